"""The examples whose gradients are most like those of one example, by the tangent kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tscope_tui.data.table import Table
from tscope_tui.panes.box import box
from tscope_tui.panes.pane import Draw
from tscope_tui.plot import bar, compact
from tscope_tui.spans import Line, Span, pad, wrap


@dataclass(frozen=True, eq=False)
class NeighboursPane:
    """The nearest first, as many as there is room for.

    Attributes:
        title: Of which example, and when.
        names: Of the neighbours, in words.
        cosine: K(x, x')/√(K(x, x) K(x', x')) of each (rank,).
        value: K(x, x') of each (rank,).
        empty: What to say, and what would provide the data, when there are none.
    """

    title: str
    names: Sequence[str]
    cosine: NDArray[np.float64]
    value: NDArray[np.float64]
    empty: tuple[str, ...] = ()

    def lines(self, width: int, height: int, draw: Draw) -> list[Line]:
        """Return the list in its frame."""
        look, title = draw.look, [Span(self.title, "title")]
        if not self.cosine.size:
            told: list[Line] = [
                (Span(" " + line, "dim"),) for text in self.empty for line in wrap(text, max(4, width - 4))
            ]
            return box(title, told, width, height, look, focused=draw.focused)
        shown = range(min(self.cosine.size, max(0, height - 2)))
        inner = width - 2
        label = min(max((len(self.names[index]) for index in shown), default=0), max(6, inner - 14))
        wide = max(0, inner - label - 9)
        lines: list[Line] = []
        for index in shown:
            cosine = float(self.cosine[index])
            tone = "series0" if cosine >= 0 else "series1"
            lines.append(
                (
                    Span(f" {pad(self.names[index], label, ellipsis=look.ellipsis)} "),
                    Span(bar(abs(cosine), wide, ascii=look.ascii), tone),
                    Span(f" {cosine:+.2f}"),
                )
            )
        foot = f"cosine; nearest K {compact(float(self.value[0]), 3)}"
        return box(title, lines, width, height, look, focused=draw.focused, foot=foot)

    def table(self) -> Table:
        """Return one row a neighbour, the nearest first."""
        return Table(
            "neighbours",
            {"example": list(self.names), "cosine": self.cosine.tolist(), "K": self.value.tolist()},
        )

    def at(self) -> str:
        """Return the table's first ten rows, tab separated."""
        table = self.table()
        rows = [tuple(table.columns), *table.rows[:10]]
        return "\n".join("\t".join(map(str, row)) for row in rows) + "\n"
