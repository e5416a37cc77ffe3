"""Labels and texts: what was recorded."""

from __future__ import annotations

from dataclasses import dataclass

from tscope_tui.data.facts import Facts
from tscope_tui.data.table import Table
from tscope_tui.panes.box import box
from tscope_tui.panes.pane import Draw
from tscope_tui.spans import Line, Span, cells


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


def wrap(text: str, width: int) -> list[str]:
    """Return `text` in lines of at most `width` columns, broken at spaces where there are some."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        while cells(word) > width:
            room = width - cells(line) - 1 if line else width
            if room < max(2, width // 2):
                lines.append(line)
                line, room = "", width
            end = 0
            while end < len(word) and cells(word[: end + 1]) <= room:
                end += 1
            # A single character wider than the line still has to go somewhere.
            end = max(1, end)
            lines.append(f"{line} {word[:end]}" if line else word[:end])
            line, word = "", word[end:]
        if not line:
            line = word
        elif cells(line) + 1 + cells(word) <= width:
            line += f" {word}"
        else:
            lines.append(line)
            line = word
    return [*lines, line] if line or not lines else lines
