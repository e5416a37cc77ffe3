"""Spikes of the training loss, and its divergence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tscope.analyses.events.event import Event, confidence, spread, tail_confidence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.analyses.events.event import Steps, Values

WINDOW = 24
"""Rows of the running level."""

_LOCAL = 4 * WINDOW  # rows over which the scatter is taken beside that of the whole curve
_ROWS = 65536  # of which medians are taken at once
_HIGH = 3.0  # scatters; neighbours that are both this high do not count as noise
_MOST = 16


def spikes(steps: Steps, loss: Values, factor: float, sure: float) -> list[Event]:
    """Return the highest spikes of a positive, finite loss, in the order of their steps.

    With y = log L, the rise of a row is y − the median of the 24 rows before it. A spike is the highest row
    of a stretch whose rise is at least log `factor`, and is later halved again; of two within 24 rows the
    higher counts. Its confidence is the lesser of that of a Gaussian of the rises' scatter, there or in all,
    and of the tail that the rises themselves have.

    Args:
        steps: The optimizer step of each row (row,).
        loss: (row,)
        factor: How many times the level before it.
        sure: The least confidence.
    """
    if len(loss) < 2 * WINDOW or loss.min() <= 0:
        return []
    y = np.log(loss)
    rise = y[WINDOW:] - _trailing_median(y)[:-1]
    scaled = _scaled(rise)
    # What lasts is no tail of the noise: the many rows of a few spikes would hide them all.
    tall = np.pad(scaled > _HIGH, 1)
    usual = scaled[~(tall[1:-1] & (tall[:-2] | tall[2:]))]
    found: list[Event] = []
    taken: list[int] = []
    for place in _tallest_first(rise, math.log(factor)):
        row = int(place) + WINDOW
        if any(abs(row - other) <= WINDOW for other in taken):
            continue
        # In units of the scatter there: that of a loss may change along the run.
        sureness = min(
            confidence(float(scaled[place]), 1.0, len(rise)),
            tail_confidence(float(scaled[place]), usual, len(rise)),
        )
        if sureness < sure:
            continue
        taken.append(row)  # also one that does not come back hides its neighbours
        half = y[row] - rise[place] / 2
        over = np.flatnonzero(y[row:] <= half)
        if not over.size:
            continue
        under = np.flatnonzero(y[:row] <= half)
        before = float(np.exp(y[row] - rise[place]))
        text = f"loss spike: {loss[row]:.3g}, {loss[row] / before:.3g} times the level before"
        low, high = int(steps[under[-1]]), int(steps[row + over[0]])
        found.append(
            Event("loss spike", int(steps[row]), low, high, sureness, before, float(loss[row]), text)
        )
        if len(found) == _MOST:
            break
    return sorted(found, key=lambda event: event.step)


def divergence(steps: Steps, loss: Values, factor: float, sure: float) -> Event | None:
    """Return where the loss left its lowest level for good, or stopped being finite for good.

    The level is the median of 24 rows, dated at their middle. It diverged if at the end it is at least
    `factor` times its lowest, and not below that of the first 24 rows; the event is the last row at which it
    was at most twice its lowest. A loss that is NaN or infinite from some row to the end has diverged in any
    case: from the first row after which it was never at most twice its lowest level, if by these bounds it
    had diverged where it was last finite, and else where it stops being finite.

    Args:
        steps: The optimizer step of each row (row,).
        loss: (row,), NaN or infinite where the run was.
        factor: How many times its lowest level it ends at.
        sure: The least confidence.
    """
    finite = np.isfinite(loss)
    if not finite.any():
        return None
    last = int(np.flatnonzero(finite)[-1])
    if last < len(loss) - 1:
        return _overflow(steps, loss, last, factor)
    steps, loss = steps[finite], loss[finite]
    if len(loss) < 2 * WINDOW or loss.min() <= 0:
        return None
    y = np.log(loss)
    level = _trailing_median(y)
    lowest, end = float(level.min()), float(level[-1])
    if end < lowest + math.log(factor) or end < level[0]:
        return None
    sureness = confidence(end - lowest, float(spread(y[WINDOW:] - level[:-1])), len(level))
    if sureness < sure:
        return None
    left = int(np.flatnonzero(level <= lowest + math.log(2))[-1]) + WINDOW // 2
    beyond = int(np.flatnonzero(level < lowest + math.log(factor))[-1]) + WINDOW
    return Event(
        "divergence",
        int(steps[left]),
        int(steps[left - WINDOW // 2]),
        int(steps[min(beyond, len(steps) - 1)]),
        sureness,
        math.exp(lowest),
        math.exp(end),
        f"the loss leaves its lowest level {math.exp(lowest):.3g} for good and ends at {math.exp(end):.3g}",
    )


def _overflow(steps: Steps, loss: Values, last: int, factor: float) -> Event:
    """Return the divergence of a loss that is not finite after row `last`, from where it left its level."""
    what = "NaN" if np.isnan(loss[last + 1]) else "infinite"
    left, text = last, f"the loss is {what} from here on"
    rows = np.flatnonzero(np.isfinite(loss))
    if len(rows) >= 2 * WINDOW and loss[rows].min() > 0:
        y = np.log(loss[rows])
        level = _trailing_median(y)
        lowest = float(level.min())
        if y[-1] >= max(lowest + math.log(factor), level[0]):
            left = int(rows[np.flatnonzero(y <= lowest + math.log(2))[-1]])
        if left < last:
            text = (
                f"the loss leaves its lowest level {math.exp(lowest):.3g} for good and is {what} from step "
                f"{int(steps[last + 1]):,} on"
            )
    return Event(
        "divergence",
        int(steps[left + 1]),
        int(steps[left]),
        int(steps[last + 1]),
        1.0,
        float(loss[left]),
        float(loss[last + 1]),
        text,
    )


def _trailing_median(values: Values) -> Values:
    """Return the median of every 24 rows (row − 23,), some rows at a time: a long run has millions."""
    windows = np.lib.stride_tricks.sliding_window_view(values, WINDOW)
    return np.concatenate(
        [np.median(windows[start : start + _ROWS], axis=1) for start in range(0, len(windows), _ROWS)]
    )


def _scaled(rise: Values) -> Values:
    """Return rises from their usual value, in units of their scatter, where they are.

    The usual value is the median of the 96 to 192 rows up to a row. The scatter is the largest of that of
    these rows, of all, and of the 96 rows around and those after: where it grows at once, its first rows
    stand out from what was before, but not from what follows.
    """
    whole = spread(rise)
    found = np.empty_like(rise)
    for start in range(0, len(rise), _LOCAL):
        near = rise[max(0, start - _LOCAL) : start + _LOCAL]
        ahead = (rise[place : place + _LOCAL] for place in (start, start + _LOCAL))
        noise = max(whole, spread(near), *(spread(part) for part in ahead if len(part) == _LOCAL))
        noise = max(noise, np.finfo(np.float64).tiny)
        found[start : start + _LOCAL] = (rise[start : start + _LOCAL] - np.median(near)) / noise
    return found


def _tallest_first(rise: Values, least: float) -> NDArray[Any]:
    tall = np.flatnonzero(rise >= least)
    return tall[np.argsort(-rise[tall], kind="stable")]
