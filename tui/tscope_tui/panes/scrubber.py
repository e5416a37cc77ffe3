"""The step scrubber: where the cursor is among all steps, the steps in sight, and events below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tscope_tui.data.events import Event
from tscope_tui.panes.box import Look
from tscope_tui.panes.events import TONES
from tscope_tui.spans import Line, Span, fit


@dataclass(frozen=True)
class Scrubber:
    """One line with the position, one with the events.

    Attributes:
        cursor: The step of the cursor.
        last: The last step.
        window: The steps in sight, None for all.
        band: The marked range.
        events: What is marked on the second line, which says `~` where quick rules told some of it.
        following: The cursor stays on the last step.
        playing: The cursor moves on by itself.
        new: Steps that arrived since the cursor left the last one.
    """

    cursor: int
    last: int
    window: tuple[float, float] | None = None
    band: tuple[float, float] | None = None
    events: Sequence[Event] = ()
    following: bool = False
    playing: bool = False
    new: int = 0

    def lines(self, width: int, look: Look) -> list[Line]:
        """Return both lines, each `width` columns."""
        head = f" step {self.cursor:,}/{self.last:,} "
        tail = (
            " ▶ play"
            if self.playing
            else " follow"
            if self.following
            else f" +{self.new:,} new"
            if self.new
            else ""
        )
        if look.ascii:
            tail = tail.replace("▶", ">")
        room = max(1, width - len(head) - len(tail) - 3)
        track = [Span("─", "axis")] * room
        if self.window is not None:
            for at in range(self._at(self.window[0], room), self._at(self.window[1], room) + 1):
                track[at] = Span("━", "label")
        if self.band is not None:
            for at in range(self._at(self.band[0], room), self._at(self.band[1], room) + 1):
                track[at] = Span("━", "band:label")
        track[self._at(self.cursor, room)] = Span("◆", "focus")
        line = look.text(
            (
                Span(head),
                Span("├", "axis"),
                *_merge(track),
                Span("┤", "axis"),
                Span(tail, "good" if self.following else "warn"),
            )
        )
        marks: list[Span] = [Span(" ")] * room
        for event in sorted(self.events, key=_weight):
            marks[self._at(event.step, room)] = Span(event.kind, TONES.get(event.kind, "text"))
        quick = any(event.source == "quick" for event in self.events)
        label = f" {'~' if quick else ''}events" if self.events else ""
        below = (Span(f"{label:<{len(head) + 1}}", "dim"), *_merge(marks))
        return [fit(line, width), fit(below, width)]

    def _at(self, step: float, room: int) -> int:
        return min(room - 1, max(0, round(step / max(1, self.last) * (room - 1))))

    def step_at(self, column: int, width: int) -> int:
        """Return the step under a column of the first line."""
        head = len(f" step {self.cursor:,}/{self.last:,} ") + 1
        room = max(2, width - head - 2)
        return round(min(1.0, max(0.0, (column - head) / (room - 1))) * self.last)


def _weight(event: Event) -> tuple[bool, int]:
    """Return what of two events in one column is shown: what went wrong, then what is sure."""
    return event.kind in "!D", ("recorded", "quick", "saved").index(event.source)


def _merge(spans: Sequence[Span]) -> list[Span]:
    """Join neighbours of one tone: fewer runs are fewer bytes to the terminal."""
    merged: list[Span] = []
    for span in spans:
        if merged and merged[-1].tone == span.tone:
            merged[-1] = Span(merged[-1].text + span.text, span.tone)
        else:
            merged.append(span)
    return merged
