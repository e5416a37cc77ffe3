"""A table of numbers at one step: layers, matrices or modes, and the quantities of each beside its name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tscope_tui.data.table import Table, Value
from tscope_tui.panes.box import box
from tscope_tui.panes.pane import Draw
from tscope_tui.plot import bar, compact
from tscope_tui.spans import Line, Span, cells, pad, shortened, wrap

# Characters of a name that columns of numbers do not take.
_NAME = 8
# Of the shortest bar.
_BAR = 4


@dataclass(frozen=True, eq=False)
class RowsPane:
    """One line a row; the chosen one is marked.

    Attributes:
        name: Of the pane's numbers when they are exported.
        title: What is listed, and at which step.
        of: What the rows are.
        rows: Their names.
        columns: Numbers by what they are called, each (row,); those that give way first at the end.
        chosen: The chosen row; None without one.
        last: So many rows at the end are of the whole, and always shown.
        empty: What to say, and what would provide the data, when there are none.
        step: The step that the numbers are of.
        foot: Said in the lower edge, where nothing else is.
        bar: The column that is also drawn as bars, if there is room.
    """

    name: str
    title: str
    of: str
    rows: tuple[str, ...]
    columns: Mapping[str, NDArray[np.float64]]
    chosen: int | None = None
    last: int = 0
    empty: tuple[str, ...] = ()
    step: int = 0
    foot: str = ""
    bar: str = ""

    def lines(self, width: int, height: int, draw: Draw) -> list[Line]:
        """Return the table in its frame."""
        look, title = draw.look, [Span(self.title, "title")]
        if not self.rows or not self.columns:
            told: list[Line] = [
                (Span(" " + line, "dim"),) for text in self.empty for line in wrap(text, max(4, width - 4))
            ]
            return box(title, told, width, height, look, focused=draw.focused)
        inner, own = max(1, width - 2), len(self.rows) - self.last
        known = self._fitting(inner)
        # A row of the whole is left out where it has none of the numbers in sight.
        whole = [row for row in range(own, len(self.rows)) if any(map(math.isfinite, self._at(row, known)))]
        room = max(1, height - 3 - len(whole))
        start = min(max(0, (self.chosen or 0) - room // 2), max(0, own - room))
        shown = [*range(start, min(own, start + room)), *whole]
        widths = {name: self._wide(name) for name in known}
        # What the numbers leave goes to the names.
        used = sum(wide + 2 for wide in widths.values())
        label = min(self._longest, max(1, inner - 2 - used))
        head = "".join(f"  {' ' * (wide - cells(name))}{name}" for name, wide in widths.items())
        lines: list[Line] = [(Span(f" {'':{label}} {head}", "dim"),)]
        for row in shown:
            here = row == self.chosen
            mark = (">" if look.ascii else "▸") if here else " "
            values = zip(self._at(row, known), widths.values(), strict=True)
            numbers = "".join(f"  {_number(value):>{wide}}" for value, wide in values)
            name = pad(shortened(self.rows[row], label, ellipsis=look.ellipsis), label)
            tone = "select" if here else "label" if row >= own else "text"
            lines.append(
                (Span(f"{mark}{name} {numbers}", tone), *self._bar(row, inner - label - 2 - used, draw))
            )
        hidden = own - (len(shown) - len(whole))
        foot = f"j/k: {hidden} more {several(self.of)}" if hidden > 0 else self.foot
        return box(title, lines, width, height, look, focused=draw.focused, foot=foot)

    def _bar(self, row: int, room: int, draw: Draw) -> tuple[Span, ...]:
        """Return the bar of a row, relative to the largest value; none where there is no room for one."""
        if self.bar not in self.columns or room < _BAR + 2:
            return ()
        values = self.columns[self.bar]
        most = float(np.max(np.abs(values[np.isfinite(values)]), initial=0.0))
        share = abs(float(values[row])) / most if most > 0 else 0.0
        # A number below zero has another tone, and its sign in the column.
        tone = "warn" if values[row] < 0 else "series0"
        return (Span("  "), Span(bar(share, room - 2, ascii=draw.look.ascii), tone))

    @property
    def _longest(self) -> int:
        return max(map(cells, self.rows))

    def _at(self, row: int, known: list[str]) -> list[float]:
        return [float(self.columns[name][row]) for name in known]

    def _wide(self, name: str) -> int:
        """Return the characters of a column; of all its rows, so that it stays as one scrolls."""
        return max(cells(name), *(cells(_number(value)) for value in self.columns[name].tolist()))

    def _fitting(self, inner: int) -> list[str]:
        """Return the columns that fit beside the names."""
        left = inner - 2 - min(self._longest, max(_NAME, inner // 3))
        known: list[str] = []
        for name in self.columns:
            left -= self._wide(name) + 2
            if left < 0:
                break
            known.append(name)
        return known

    def table(self) -> Table:
        """Return one row a row, a column a quantity."""
        columns: dict[str, list[Value]] = {self.of: list(self.rows)}
        for name, values in self.columns.items():
            columns[name] = values.tolist()
        return Table(self.name, columns)

    def at(self) -> str:
        """Return the chosen row, tab separated; all of them where none is."""
        table = self.table()
        rows = table.rows if self.chosen is None else table.rows[self.chosen : self.chosen + 1]
        return "\n".join("\t".join(map(str, row)) for row in (tuple(table.columns), *rows)) + "\n"


def several(of: str) -> str:
    """Return the plural of what rows are."""
    return "matrices" if of == "matrix" else f"{of}s"


def _number(value: float) -> str:
    return compact(value, 3) if math.isfinite(value) else "-"
