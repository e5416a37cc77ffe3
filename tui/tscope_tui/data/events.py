"""What happened in a run, told from its recorded series: only what the numbers show."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tscope_tui.data.curve import Curve
from tscope_tui.plot import compact

_SPIKES, _WINDOW, _MOST = 3, 24, 8192


@dataclass(frozen=True, order=True)
class Event:
    """Something at a step. `kind` is one letter, its mark on the scrubber."""

    step: int
    kind: str
    text: str


def loss_events(loss: Curve) -> list[Event]:
    """Return the minimum, the worst spikes, and the first value that is not finite."""
    events: list[Event] = []
    finite = np.isfinite(loss.values)
    if not finite.any():
        return events
    lowest = int(np.nanargmin(np.where(finite, loss.values, np.nan)))
    events.append(Event(int(loss.steps[lowest]), "m", f"loss minimum {compact(float(loss.values[lowest]))}"))
    first = int(finite.argmax())
    broken = np.flatnonzero(~finite[first:])
    if broken.size:
        at = first + int(broken[0])
        what = "NaN" if math.isnan(loss.values[at]) else "infinite"
        more = f" ({broken.size} rows)" if broken.size > 1 else ""
        events.append(Event(int(loss.steps[at]), "!", f"loss is {what}{more}"))
    events.extend(_spikes(loss.steps[finite], loss.values[finite]))
    return events


def _spikes(steps: NDArray[np.float64], values: NDArray[np.float64]) -> list[Event]:
    """Return the values that stand out most above the median of those before them.

    A spike is at least twice that median, and six times the usual scatter (median absolute deviation) above.
    """
    if values.size > _MOST:
        # The largest value of each block stands for it: a spike of one row still stands out.
        block = -(-values.size // _MOST)
        starts = np.arange(0, values.size, block)
        where = [int(start + np.argmax(values[start : start + block])) for start in starts.tolist()]
        steps, values = steps[where], values[where]
    if values.size < 2 * _WINDOW or values.min() <= 0:
        return []
    level = np.log(values)
    before = np.median(np.lib.stride_tricks.sliding_window_view(level, _WINDOW), axis=1)[:-1]
    jump = level[_WINDOW:] - before
    scatter = float(np.median(np.abs(jump - np.median(jump))))
    bound = max(math.log(2.0), 6 * scatter)
    events: list[Event] = []
    taken: list[int] = []
    for index in np.argsort(-jump, kind="stable")[: 50 * _SPIKES]:
        if jump[index] <= bound or len(taken) == _SPIKES:
            break
        if all(abs(int(index) - other) > _WINDOW for other in taken):
            taken.append(int(index))
            at = int(index) + _WINDOW
            ratio = compact(float(np.exp(jump[index])), 2)
            events.append(Event(int(steps[at]), "s", f"loss spike {compact(float(values[at]))} ({ratio}×)"))
    return events


def flag_events(steps: NDArray[np.int64], kind: str, text: str, *, most: int = 5) -> list[Event]:
    """Return one event for each flagged step, and beyond `most` of them the first only, with the count."""
    if steps.size <= most:
        return [Event(int(step), kind, text) for step in steps]
    return [Event(int(steps[0]), kind, f"{text} (first of {steps.size})")]


def in_order(events: Iterable[Event]) -> tuple[Event, ...]:
    """Return the events by step, each once."""
    return tuple(sorted(set(events)))


def neighbour(events: Iterable[Event], step: int, direction: int) -> Event | None:
    """Return the next event after a step (direction +1), or the last one before it (−1)."""
    if direction > 0:
        return next((event for event in sorted(events) if event.step > step), None)
    return next((event for event in sorted(events, reverse=True) if event.step < step), None)
