"""Events that are told from what is shown: recorded facts, and quick rules where none were looked for.

The rules are like those of the metric `events`, without its confidence, and over what the browser has read
anyway: a curve may be thinned, and one that strays passes more easily. `docs/browsing.md` has both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tscope_format.errors import clean

from tscope_tui.data.curve import Curve
from tscope_tui.data.events import Event
from tscope_tui.plot import compact

_SPIKES, _WINDOW, _MOST = 3, 24, 8192
# What an accuracy must gain for its half to be an event, and of how many rows its level at the end is.
_GAIN, _END = 0.2, 5


def loss_facts(loss: Curve) -> list[Event]:
    """Return the minimum, and the first value that is not finite."""
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
    return events


def flag_events(steps: NDArray[np.int64], kind: str, text: str, *, most: int = 5) -> list[Event]:
    """Return one event for each flagged step, and beyond `most` of them the first only, with the count."""
    if steps.size <= most:
        return [Event(int(step), kind, text) for step in steps]
    return [Event(int(steps[0]), kind, f"{text} (first of {steps.size})")]


def fork_events(facts: Mapping[str, Any]) -> list[Event]:
    """Return where this run parts from the one that it is a fork of, and where others part from it."""
    found = []
    own = facts.get("fork")
    if isinstance(own, Mapping) and own.get("verified") and isinstance(own.get("same_until"), int):
        words = f"parts from {own.get('base')} (seed {own.get('seed')})"
        found.append(Event(own["same_until"], "Y", clean(words)))
    others: dict[int, list[str]] = {}
    listed = facts.get("forks")
    for fork in listed if isinstance(listed, list | tuple) else ():
        if isinstance(fork, Mapping) and isinstance(fork.get("same_until"), int):
            others.setdefault(fork["same_until"], []).append(str(fork.get("trace")))
    for step, names in others.items():
        who = f"{names[0]} parts" if len(names) == 1 else f"{len(names)} forks part"
        found.append(Event(step, "Y", clean(f"{who} from this run")))
    return found


def spikes(loss: Curve) -> list[Event]:
    """Return the values that stand out most above the median of those before them.

    A spike is at least twice that median, and six times the usual scatter (median absolute deviation) above.
    """
    finite = np.isfinite(loss.values)
    steps, values = loss.steps[finite], loss.values[finite]
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
            text = f"loss spike {compact(float(values[at]))} ({ratio}×)"
            events.append(Event(int(steps[at]), "s", text, "quick"))
    return events


def crossing(steps: NDArray[np.float64], accuracy: NDArray[np.float64], probe: str) -> list[Event]:
    """Return where an accuracy (row,) has half of what it gains from its first row to its last tenth."""
    known = np.isfinite(accuracy)
    steps, accuracy = steps[known], accuracy[known]
    if accuracy.size < 2 * _END:
        return []
    start, end = float(accuracy[0]), float(np.median(accuracy[-max(_END, accuracy.size // 10) :]))
    if end - start < _GAIN:
        return []
    level = (start + end) / 2
    above = accuracy >= level
    later = np.cumsum(above[::-1])[::-1] / np.arange(accuracy.size, 0, -1)
    row = int(np.flatnonzero(above & (later >= 0.5))[0])
    return [Event(int(steps[row]), "a", f"accuracy on {probe} passes {level:.2f}, half of its way", "quick")]


def peak(p: NDArray[np.float64], error: NDArray[np.float64]) -> int | None:
    """Return the row at which p is largest; None where it is not above both ends, up to its uncertainty.

    Args:
        p: Effective parameters (row,).
        error: Their standard errors (row,); 0 where they are exact.
    """
    known = np.flatnonzero(np.isfinite(p))
    if known.size < 3:
        return None
    at = int(known[np.argmax(p[known])])
    # A fiftieth, or twice the standard errors, above both ends: less is not told from a plateau.
    above = all(
        p[at] - p[end] > max(0.02 * abs(p[at]), 2 * (error[at] + error[end])) for end in (known[0], known[-1])
    )
    return at if above else None


def jump(alignment: NDArray[np.float64]) -> tuple[int, float] | None:
    """Return the row after the largest change between two rows, and the change, where that is a jump."""
    known = alignment[np.isfinite(alignment)]
    if alignment.size < 2 or not known.size:
        return None
    change = np.nan_to_num(np.diff(alignment))
    at = int(np.abs(change).argmax())
    if abs(change[at]) < max(0.1, 0.5 * float(np.ptp(known))):
        return None
    return at + 1, float(change[at])


def worst_event(steps: Sequence[int]) -> list[Event]:
    """Return the worst of the telescoping steps, which come worst first."""
    return [Event(step, "w", "worst telescoping step") for step in steps[:1]]
