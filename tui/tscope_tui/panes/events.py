"""The list of events; the one at the cursor is marked."""

from __future__ import annotations

from dataclasses import dataclass

from tscope_tui.data.events import Event
from tscope_tui.data.table import Table
from tscope_tui.panes.box import box
from tscope_tui.panes.pane import Draw
from tscope_tui.plot import compact
from tscope_tui.spans import Line, Span

TONES = {"!": "bad", "s": "warn", "w": "warn", "f": "warn", "k": "warn", "m": "good", "p": "good"}


@dataclass(frozen=True)
class EventsPane:
    """Events by step, as many around the cursor as there is room for."""

    events: tuple[Event, ...]
    reason: str = "none: nothing stands out in what was recorded"

    def lines(self, width: int, height: int, draw: Draw) -> list[Line]:
        """Return the list in its frame."""
        title = [Span("events", "title"), Span("  [ ] jump", "dim")]
        if not self.events:
            return box(
                title, [(Span(f" {self.reason}", "dim"),)], width, height, draw.look, focused=draw.focused
            )
        at = -1 if draw.cursor is None else sum(event.step <= draw.cursor for event in self.events) - 1
        room = max(1, height - 2)
        start = min(max(0, at - room // 2), max(0, len(self.events) - room))
        wide = max(len(_step(event.step)) for event in self.events)
        lines: list[Line] = []
        for event in self.events[start : start + room]:
            here = draw.cursor is not None and event.step == round(draw.cursor)
            tone = "select" if here else "text"
            mark = "▸" if here else " "
            lines.append(
                (
                    Span(f"{mark}{_step(event.step):>{wide}} ", tone),
                    Span(event.kind, TONES.get(event.kind, "text")),
                    Span(f" {event.text}", tone),
                )
            )
        foot = f"{len(self.events) - room} more" if len(self.events) > room else ""
        return box(title, lines, width, height, draw.look, focused=draw.focused, foot=foot)

    def table(self) -> Table:
        """Return step, kind and text."""
        return Table(
            "events",
            {
                "step": [event.step for event in self.events],
                "kind": [event.kind for event in self.events],
                "event": [event.text for event in self.events],
            },
        )


def _step(step: int) -> str:
    return f"{step:,}" if step < 1_000_000 else compact(step, 4)
