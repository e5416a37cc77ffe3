"""Labels and texts: what was recorded."""

from __future__ import annotations

from dataclasses import dataclass

from tscope_tui.data.facts import Facts
from tscope_tui.data.table import Table
from tscope_tui.panes.box import box
from tscope_tui.panes.pane import Draw
from tscope_tui.spans import Line, Span, cells, wrap


@dataclass(frozen=True)
class FactsPane:
    """One label a line; long texts run on below it."""

    facts: Facts
    name: str = "recorded"

    def lines(self, width: int, height: int, draw: Draw) -> list[Line]:
        """Return the facts in their frame."""
        label = max((cells(name) for name, _ in self.facts), default=0)
        room = max(4, width - label - 4)
        lines: list[Line] = []
        for name, text in self.facts:
            for index, part in enumerate(wrap(text, room)):
                head = name if index == 0 else ""
                lines.append(
                    (Span(f" {head:<{label}} ", "label"), Span(part, "bad" if name == "error" else "text"))
                )
        return box([Span(self.name, "title")], lines, width, height, draw.look, focused=draw.focused)

    def table(self) -> Table:
        """Return label and text."""
        return Table(
            self.name, {"what": [name for name, _ in self.facts], "value": [t for _, t in self.facts]}
        )
