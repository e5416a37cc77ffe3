"""The list of events; the one at the cursor is marked, and told in full where there is room."""

from __future__ import annotations

from dataclasses import dataclass

from tscope_tui.data.events import NAMES, Event, percent
from tscope_tui.data.table import Table
from tscope_tui.panes.box import box
from tscope_tui.panes.pane import Draw
from tscope_tui.plot import compact
from tscope_tui.spans import Line, Span, wrap

TONES = {
    **dict.fromkeys("!D", "bad"),
    **dict.fromkeys("swfk", "warn"),
    **dict.fromkeys("mpig", "good"),
    **dict.fromkeys("aKY", "label"),
}
# Lines from which on the event at the cursor is told in full although the pane has no focus, columns from
# which on the steps between which it happened have their own, and lines that are left to the list.
_TALL, _WIDE, _LEAST = 12, 64, 3


@dataclass(frozen=True)
class EventsPane:
    """Events by step, as many around the cursor as there is room for.

    Attributes:
        events: The events, by step.
        note: What they are and what would tell more; empty where nothing would.
        warns: The note is a warning.
        reason: What to say when there are none.
    """

    events: tuple[Event, ...]
    note: str = ""
    warns: bool = False
    reason: str = "none: nothing stands out in what was recorded"

    def lines(self, width: int, height: int, draw: Draw) -> list[Line]:
        """Return the list in its frame."""
        inner, room = max(1, width - 2), max(1, height - 2)
        title = [Span("events", "title"), Span("  [ ] jump", "dim")]
        above = [
            (Span(f" {line}", "warn" if self.warns else "dim"),)
            for line in wrap(self.note, max(4, inner - 2))
            if line
        ]
        if not self.events:
            told: list[Line] = [(Span(f" {line}", "dim"),) for line in wrap(self.reason, max(4, inner - 2))]
            return box(title, [*told, *above], width, height, draw.look, focused=draw.focused)
        at = -1 if draw.cursor is None else sum(event.step <= draw.cursor for event in self.events) - 1
        if len(above) > room - _LEAST:
            above = above[: max(0, room - _LEAST)]
        room -= len(above)
        below: list[Line] = []
        if at >= 0 and (draw.focused or room >= _TALL):
            below = _full(self.events[at], inner)[: max(0, room - _LEAST)]
            room -= len(below)
        start = min(max(0, at - room // 2), max(0, len(self.events) - room))
        wide = max(len(_step(event.step)) for event in self.events)
        shown = self.events[start : start + room]
        rows = [_row(event, wide, inner, draw) for event in shown]
        rows += [(Span(""),)] * (room - len(rows)) if below else []
        foot = f"{len(self.events) - room} more" if len(self.events) > room else ""
        return box(title, [*above, *rows, *below], width, height, draw.look, focused=draw.focused, foot=foot)

    def table(self) -> Table:
        """Return what is known of every event."""
        events = self.events
        nowhere = (-1, -1)
        return Table(
            "events",
            {
                "step": [event.step for event in events],
                "kind": [event.kind for event in events],
                "name": [NAMES.get(event.kind, "") for event in events],
                "low": [(event.between or nowhere)[0] for event in events],
                "high": [(event.between or nowhere)[1] for event in events],
                "confidence": [
                    float("nan") if event.confidence is None else event.confidence for event in events
                ],
                "source": [event.source for event in events],
                "event": [event.text for event in events],
                "definition": [event.defined for event in events],
            },
        )


def _row(event: Event, wide: int, inner: int, draw: Draw) -> Line:
    """Return one line: step, mark, how sure, and the words."""
    here = draw.cursor is not None and event.step == round(draw.cursor)
    tone = "select" if here else "text"
    sure = "" if event.confidence is None else f"{percent(event.confidence)} "
    quick = "~" if event.source == "quick" else " "
    between = ""
    if inner >= _WIDE and event.between is not None:
        between = f"{_step(event.between[0])}–{_step(event.between[1])}  "
    return (
        Span(f"{'▸' if here else ' '}{_step(event.step):>{wide}} ", tone),
        Span(f"{quick}{event.kind}", TONES.get(event.kind, "text")),
        Span(f" {sure}{between}{event.text}", tone),
    )


def _full(event: Event, inner: int) -> list[Line]:
    """Return an event in full: what, how sure, between which steps, and what counts as one."""
    name = NAMES[event.kind] if event.source == "saved" else "by a quick rule"
    told = ", ".join(part for part in (name, event.bounds) if part)
    texts = (
        (event.text if event.source == "recorded" else f"{told}: {event.text}", "label"),
        (f"defined as {event.defined}" if event.defined else "", "dim"),
    )
    return [
        (Span(f" {line}", tone),) for text, tone in texts for line in wrap(text, max(4, inner - 2)) if line
    ]


def _step(step: int) -> str:
    return f"{step:,}" if step < 1_000_000 else compact(step, 4)
