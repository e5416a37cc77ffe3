"""When the training examples are fitted, and when held-out ones follow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tscope.analyses.events.event import Event, confidence, scatter, smooth

if TYPE_CHECKING:
    from tscope.analyses.events.event import Steps, Values

_ROWS = 5  # of the running median


@dataclass(frozen=True, eq=False)
class Fit:
    """How well a set of examples is predicted along the run.

    Attributes:
        step: (row,)
        value: The share told right, or 1 − the squared error over the labels' variance and at least 0 (row,);
            of a training loss alone, 1 − it over its level at the start.
        examples: How many examples a value is a mean over.
        basis: Of what: accuracy, variance or loss.
        source: Where it comes from, in a few words.
        window: Rows of training that a value covers; 0 where it is of one state.
    """

    step: Steps
    value: Values
    examples: int
    basis: str
    source: str
    window: int = 0

    def error(self, value: float) -> float:
        """Return the standard error of a value: of a share, that of as many draws."""
        if self.basis != "accuracy":
            return 0.0
        return math.sqrt(max(value * (1 - value), 1 / self.examples) / self.examples)


def interpolation(fit: Fit, level: float, sure: float) -> Event | None:
    """Return when the training examples were fitted: from which row on the median is at `level` or above.

    The curve is its running median over 5 rows. The row counts if at least half of all later rows are at the
    level too, and the curve was below it before.

    Args:
        fit: Of training examples.
        level: The share of them, or of their variance.
        sure: The least confidence.
    """
    if len(fit.value) < 2:
        return None
    curve = smooth(fit.value, _ROWS)
    above = curve >= level
    later = np.cumsum(above[::-1])[::-1] / np.arange(len(above), 0, -1)
    rows = np.flatnonzero(above & (later >= 0.5))
    if not rows.size or rows[0] == 0:
        return None
    row = int(rows[0])
    start, reached = float(curve[0]), float(curve[row])
    noise = math.hypot(scatter(fit.value), math.hypot(fit.error(start), fit.error(reached)))
    held = float(later[row])
    sureness = confidence(reached - start, noise, len(curve))
    if sureness < sure:
        return None
    return Event(
        "interpolation",
        int(fit.step[row]),
        int(fit.step[max(0, row - max(1, fit.window))]),
        int(fit.step[row]),
        sureness * held,
        start,
        reached,
        f"training examples are fitted: {_WORDS[fit.basis]} {reached:.3g}",
    )


def grokking(fitted: Event, held_out: Fit, rise: float, sure: float) -> Event | None:
    """Return when held-out examples follow long after the training examples were fitted.

    With a_0 the held-out curve (its running median over 5 rows) at its first row, a_fit where the training
    examples are fitted and a_end its median over the last tenth of the rows (5 at least), it is grokking if
    a_end − a_fit is at least `rise`, if a_fit covers less than half of the way from a_0 to a_end, and if the
    curve stays above half of the way from a_fit to a_end only from a step on that is at least twice that of
    the fit. That step is the onset; `low` and `high` are the steps at a tenth and nine tenths of the way.

    Args:
        fitted: The interpolation.
        held_out: Of held-out examples.
        rise: How much they must still gain.
        sure: The least confidence.
    """
    curve = smooth(held_out.value, _ROWS)
    at = int(np.searchsorted(held_out.step, fitted.step, side="right")) - 1
    if at < 0 or at + 1 + _last(curve) > len(curve):
        return None
    start, here, end = float(curve[0]), float(curve[at]), float(np.median(curve[-_last(curve) :]))
    if end - here < rise or here - start >= (end - start) / 2:
        return None
    # The first row from which the curve is above half of the way in most of what follows.
    above = curve >= here + (end - here) / 2
    later = np.cumsum(above[::-1])[::-1] / np.arange(len(above), 0, -1)
    rows = at + 1 + np.flatnonzero((above & (later >= 0.5))[at + 1 :])
    if not rows.size:
        return None
    row = int(rows[0])
    step = int(held_out.step[row])
    if step < 2 * fitted.step:
        return None
    noise = math.hypot(scatter(held_out.value), math.hypot(held_out.error(here), held_out.error(end)))
    held = float(later[row])
    sureness = confidence(end - here, noise, len(curve) - at)
    if sureness < sure:
        return None
    low = np.flatnonzero(curve[: row + 1] <= here + 0.1 * (end - here))
    high = row + np.flatnonzero(curve[row:] >= here + 0.9 * (end - here))
    return Event(
        "grokking",
        step,
        int(held_out.step[low[-1] if low.size else at]),
        int(held_out.step[high[0] if high.size else -1]),
        sureness * held,
        here,
        end,
        f"held-out examples follow {step - fitted.step:,} steps after the fit: {_WORDS[held_out.basis]} "
        f"{here:.3g} to {end:.3g}",
    )


def _last(curve: Values) -> int:
    """Return how many rows the level at the end is taken over."""
    return max(_ROWS, len(curve) // 10)


_WORDS = {"accuracy": "accuracy", "variance": "explained variance", "loss": "1 − loss/its start"}
