"""What happened in a run, and how that is known; the next event on either side of a step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Source = Literal["recorded", "quick", "saved"]

NAMES = {
    "i": "interpolation",
    "g": "grokking",
    "p": "effective-parameter peak",
    "K": "alignment jump",
    "s": "loss spike",
    "D": "divergence",
    "a": "accuracy",
    "m": "loss minimum",
    "w": "telescoping",
    "k": "skipped step",
    "f": "foreign change",
    "Y": "fork",
    "!": "not finite",
}
"""The letter of each kind, its mark on the scrubber, and what it is."""

DEFINITIONS = {
    "p": "the largest p_train or p_test of the saved result, 2% and twice its standard error above both ends",
    "K": "the largest change of the saved alignment between two rows, 0.1 and half of its range at least",
    "s": "a loss at least twice the median of the 24 values before it, and six times their usual scatter "
    "above",
    "a": "the first row at which the accuracy on the probe set has half of what it gains in all, there and "
    "in at least half of all later rows; it gains 0.2 at least",
    "m": "the smallest recorded loss",
    "w": "the step with the largest ‖Δf − JΔθ‖ over the probe set",
    "k": "the optimizer skipped the step: an overflow under gradient scaling",
    "f": "the weights changed between two steps of the optimizer",
    "Y": "the last step at which the parameters of both runs are the same, bit for bit",
    "!": "the first row that is not finite",
}
"""What the browser's own marks are; a saved result brings the definitions of its events."""


@dataclass(frozen=True)
class Event:
    """Something at a step.

    Attributes:
        step: When.
        kind: One letter, its mark on the scrubber: a key of `NAMES`.
        text: It in words.
        source: A recorded fact; told by a quick rule from what is shown; or of a saved result of `events`.
        between: The steps between which it happened; only of a saved result.
        confidence: How sure it is, 0 to 1; only of a saved result.
        definition: What counts as such an event; empty where it is that of `DEFINITIONS`.
    """

    step: int
    kind: str
    text: str
    source: Source = "recorded"
    between: tuple[int, int] | None = None
    confidence: float | None = None
    definition: str = ""

    @property
    def defined(self) -> str:
        """What counts as such an event."""
        return self.definition or DEFINITIONS.get(self.kind, "")

    @property
    def bounds(self) -> str:
        """How sure it is and between which steps, in words; empty where that is not known."""
        sure = "" if self.confidence is None else f"{percent(self.confidence)} sure"
        between = "" if self.between is None else "between {:,} and {:,}".format(*self.between)
        return ", ".join(part for part in (sure, between) if part)


def percent(share: float) -> str:
    """Return a confidence, never rounded up: what is not certain is not 100%."""
    return f"{math.floor(share * 1000) / 10:g}%"


def told(events: Iterable[Event], step: int) -> str:
    """Return the events at a step in one line, of which a narrow screen shows the beginning."""
    here = []
    for event in events:
        if event.step == step:
            known = [] if event.confidence is None else [percent(event.confidence)]
            known += [] if event.between is None else ["{:,}–{:,}".format(*event.between)]
            known += ["quick rule"] if event.source == "quick" else []
            here.append(f"[{', '.join(known)}] {event.text}" if known else event.text)
    return f"step {step:,}: {'; '.join(here)}"


def in_order(events: Iterable[Event]) -> tuple[Event, ...]:
    """Return the events by step, each once."""
    return tuple(sorted(set(events), key=lambda event: (event.step, event.kind, event.text)))


def neighbour(events: Sequence[Event], step: int, direction: int) -> Event | None:
    """Return the next event after a step (direction +1), or the last one before it (−1)."""
    if direction > 0:
        return min((e for e in events if e.step > step), key=lambda e: e.step, default=None)
    return max((e for e in events if e.step < step), key=lambda e: e.step, default=None)
