"""Peaks and jumps of curves that other metrics saved: effective parameters, kernel alignment."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tscope.analyses.events.event import Event, confidence, scatter, smooth

if TYPE_CHECKING:
    from tscope.analyses.events.event import Steps, Values

_SMOOTH, _SMOOTHED = 3, 12  # rows of the running median, and from how many rows on it is taken
_SIDE = 3  # rows on either side of a jump that must agree with it
PROMINENCE = 0.02
"""How far a peak is above both ends of the run at least, as a share of its own value."""
STRETCH = 1.5
"""A jump is over before the step has grown by this factor."""
JUMP = 0.1
"""The least change of an alignment that is a jump."""


def peak(steps: Steps, p: Values, error: Values, name: str, sure: float) -> Event | None:
    """Return the maximum of effective parameters, if it lies between the ends of the run and above both.

    Of 12 rows and more the running median over 3 is taken. It must exceed both ends by 2 % of itself. Its
    scatter is that of the curve and of the estimate together, of the two values compared; `low` and `high`
    are where the curve last was, and is again, below half of the way from the maximum to the higher end.

    Args:
        steps: (row,)
        p: Effective parameters (row,).
        error: Their standard errors (row,); 0 where they are exact.
        name: Of which examples.
        sure: The least confidence.
    """
    known = np.isfinite(p)
    steps, p, error = steps[known], p[known], np.nan_to_num(error[known])
    if len(p) < 5:
        return None
    noise = scatter(p)
    raw, p = p, smooth(p, _SMOOTH) if len(p) >= _SMOOTHED else p
    # The running median is flat around a maximum, which may lie on either side.
    top = int(p.argmax())
    row = max(0, top - 1) + int(raw[max(0, top - 1) : top + 2].argmax())
    higher = max(float(p[0]), float(p[-1]))
    height = float(p[row]) - higher
    if row in (0, len(p) - 1) or height < PROMINENCE * abs(float(p[row])):
        return None
    noise = math.sqrt(2 * noise**2 + float(error[row]) ** 2 + max(error[0], error[-1]) ** 2)
    sureness = confidence(height, noise, len(p))
    if sureness < sure:
        return None
    half = higher + height / 2
    low = int(np.flatnonzero(p[:row] < half)[-1])
    high = row + int(np.flatnonzero(p[row:] < half)[0])
    return Event(
        "effective-parameter peak",
        int(steps[row]),
        int(steps[low]),
        int(steps[high]),
        sureness,
        float(p[0]),
        float(p[row]),
        f"effective parameters of {name} examples peak at {p[row]:.4g}, and end at {p[-1]:.4g}",
    )


def jump(steps: Steps, alignment: Values, sure: float, of: str = "training") -> Event | None:
    """Return the largest change of the kernel's alignment with the labels within a short stretch.

    A stretch is two neighbouring rows, or all rows from a step to 1.5 times it. The change is the lesser of
    that from its first row to its last, which so have it between them, and of that from the median of the 3
    rows up to the first to the median of the 3 rows from the last on, which must agree: it lasts. It is a
    jump if it is at least 0.1, and at least half of the range of all values. Its step is where half of the
    change is done, interpolated: rows may be far apart.

    Args:
        steps: (row,), increasing.
        alignment: (row,)
        sure: The least confidence.
        of: Whose labels.
    """
    known = np.isfinite(alignment)
    steps, alignment = steps[known], alignment[known]
    if len(steps) < 2 * _SIDE:
        return None
    before = np.array([np.median(alignment[max(0, k - _SIDE + 1) : k + 1]) for k in range(len(steps))])
    after = np.array([np.median(alignment[k : k + _SIDE]) for k in range(len(steps))])
    best, looks = (0.0, 0, 0), 0
    for first in range(len(steps) - 1):
        last = max(first + 1, int(np.searchsorted(steps, STRETCH * steps[first], side="right")) - 1)
        lasting = after[first + 1 : last + 1] - before[first]
        within = alignment[first + 1 : last + 1] - alignment[first]
        lesser = np.minimum(np.abs(lasting), np.abs(within))
        changes = np.where(lasting * within > 0, np.copysign(lesser, lasting), 0.0)
        looks += len(changes)
        place = int(np.abs(changes).argmax())
        if abs(changes[place]) > abs(best[0]):
            best = float(changes[place]), first, first + 1 + place
    change, first, last = best
    if abs(change) < max(JUMP, 0.5 * float(np.ptp(alignment))):
        return None
    sureness = confidence(abs(change), math.sqrt(2) * scatter(alignment), looks)
    if sureness < sure:
        return None
    way = (alignment[first : last + 1] - before[first]) / (after[last] - before[first])
    half = np.flatnonzero(way >= 0.5)
    row = int(half[0]) if half.size else len(way) - 1
    step = float(steps[first + row])
    if half.size and row:
        step -= (
            (way[row] - 0.5) / (way[row] - way[row - 1]) * float(steps[first + row] - steps[first + row - 1])
        )
    return Event(
        "alignment jump",
        round(step),
        int(steps[first]),
        int(steps[last]),
        sureness,
        float(before[first]),
        float(after[last]),
        f"the kernel's alignment with the {of} labels changes from {before[first]:.3g} to {after[last]:.3g}",
    )
