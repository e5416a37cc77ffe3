"""Which training examples moved a prediction, as signed bars around a middle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tscope_tui.data.table import Table
from tscope_tui.panes.box import box
from tscope_tui.panes.pane import Draw
from tscope_tui.plot import bar, compact
from tscope_tui.spans import Line, Span, wrap


@dataclass(frozen=True, eq=False)
class InfluencePane:
    """The most influential training examples first, as many as there is room for.

    Attributes:
        title: Of what, and when.
        example: Numbers of training examples (rank,).
        value: Their influences (rank,).
        memory: The part of each through the optimizer's memory (rank,); None where that is not told apart.
        first: The first rank that is listed.
        foot: What they add up to.
        empty: What to say, and what would provide the data, when there are none.
    """

    title: str
    example: NDArray[np.int64]
    value: NDArray[np.float64]
    memory: NDArray[np.float64] | None = None
    first: int = 0
    foot: str = ""
    empty: tuple[str, ...] = ()

    def lines(self, width: int, height: int, draw: Draw) -> list[Line]:
        """Return the bars in their frame."""
        look = draw.look
        title = [Span(self.title, "title")]
        if not self.example.size:
            told: list[Line] = [
                (Span(" " + line, "dim"),) for text in self.empty for line in wrap(text, max(4, width - 4))
            ]
            return box(title, told, width, height, look, focused=draw.focused)
        room, inner = max(1, height - 2), width - 2
        first = min(self.first, max(0, self.example.size - room))
        shown = range(first, min(self.example.size, first + room))
        names = [f"#{int(self.example[index])}" for index in shown]
        label = max(map(len, names))
        told_memory = self.memory is not None and inner >= label + 34
        wide = max(3, inner - label - 13 - (14 if told_memory else 0))
        scale = float(np.abs(self.value).max()) or 1.0
        lines: list[Line] = []
        for name, index in zip(names, shown, strict=True):
            value = float(self.value[index])
            up = value >= 0
            spans = [
                Span(f" {name:>{label}} "),
                Span(bar(abs(value) / scale, wide, ascii=look.ascii), "series0" if up else "series1"),
                Span(f" {'+' if up else '−'}{compact(abs(value), 3):<9}"),
            ]
            if told_memory and self.memory is not None:
                part = float(self.memory[index]) / value if value else 0.0
                spans.append(Span(f"memory {part * 100:4.0f}%", "dim"))
            lines.append(tuple(spans))
        return box(title, lines, width, height, look, focused=draw.focused, foot=self.foot)

    def at(self) -> str:
        """Return the table's first ten rows, tab separated."""
        table = self.table()
        rows = [tuple(table.columns), *table.rows[:10]]
        return "\n".join("\t".join(map(str, row)) for row in rows) + "\n"

    def table(self) -> Table:
        """Return one row a training example, the most influential first."""
        columns: dict[str, list[float | int | str]] = {
            "example": self.example.tolist(),
            "influence": self.value.tolist(),
        }
        if self.memory is not None:
            columns["through_memory"] = self.memory.tolist()
        return Table("influence", columns)
