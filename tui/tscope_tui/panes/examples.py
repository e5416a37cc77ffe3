"""The examples of a probe set as a table, in the chosen order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tscope_tui.data.examples import Examples
from tscope_tui.data.table import Table, Value
from tscope_tui.panes.box import box
from tscope_tui.panes.pane import Draw
from tscope_tui.plot import compact, sparkline
from tscope_tui.spans import Line, Span, cells, wrap

_NORM = "‖s(x)‖²"
# Columns of the loss over steps, where there is room.
_COURSE = 12


@dataclass(frozen=True, eq=False)
class ExamplesPane:
    """One line an example; the chosen one is marked.

    Attributes:
        examples: What is known of them; None without any.
        step: The cursor.
        order: The examples (example,), in the order in which they are listed.
        by: What they are ordered by.
        chosen: The chosen example.
        norms: ‖s(x)‖² of each at the cursor (example,); None where it is not known.
        influences: The most influential training examples of those examples that were traced.
        empty: What to say, and what would provide the data, when there are none.
    """

    examples: Examples | None
    step: float
    order: NDArray[np.int64]
    by: str
    chosen: int
    norms: NDArray[np.float64] | None = None
    influences: Mapping[int, tuple[int, ...]] | None = None
    empty: tuple[str, ...] = ()

    def lines(self, width: int, height: int, draw: Draw) -> list[Line]:
        """Return the table in its frame."""
        found = self.examples
        if found is None:
            told: list[Line] = [
                (Span(" " + line, "dim"),) for text in self.empty for line in wrap(text, max(4, width - 4))
            ]
            return box([Span("examples", "title")], told, width, height, draw.look, focused=draw.focused)
        row = found.row(self.step)
        title = [Span(f"examples @{int(found.step[row]):,}", "title"), Span(f", by {self.by} (s)", "title")]
        room = max(0, height - 3)
        at = int(np.flatnonzero(self.order == self.chosen)[0]) if self.chosen in self.order else 0
        start = min(max(0, at - room // 2), max(0, self.order.size - room))
        shown = self.order[start : start + room].tolist()
        columns = self._columns(row, shown)
        inner = width - 2
        spark = self._course(shown, columns, inner, draw)
        widths = {name: max([cells(name), *map(cells, texts)]) for name, texts in columns.items()}
        while columns and sum(widths[name] + 2 for name in columns) + len(spark and "  ") > inner:
            columns.popitem()
        head = "".join(f"  {name:>{widths[name]}}" for name in columns)
        lines: list[Line] = [(Span(f"{head}  {'loss over steps' if spark else ''}", "dim"),)]
        wrong = found.wrong(row)
        for index, example in enumerate(shown):
            here = example == self.chosen
            off = wrong is not None and bool(wrong[example])
            tone = "select" if here else "warn" if off else "text"
            text = "".join(f"  {texts[index]:>{widths[name]}}" for name, texts in columns.items())
            mark = (">" if draw.look.ascii else "▸") if here else " "
            spans = [Span(mark + text[1:], tone)]
            if spark:
                spans.append(Span("  " + spark[index], "series0"))
            lines.append(tuple(spans))
        hidden = self.order.size - len(shown)
        foot = f"{hidden:,} more; enter: look at it" if hidden > 0 else "enter: look at it"
        return box(title, lines, width, height, draw.look, focused=draw.focused, foot=foot)

    def _course(self, shown: list[int], columns: dict[str, list[str]], inner: int, draw: Draw) -> list[str]:
        """Return the loss of each shown example over the kept rows, where there is room for it."""
        used = sum(2 + max([cells(name), *map(cells, texts)]) for name, texts in columns.items())
        losses = [None if self.examples is None else self.examples.course(one) for one in shown]
        if inner - used < _COURSE + 3 or not losses or any(values is None for values in losses):
            return []
        wide = min(2 * _COURSE, inner - used - 3)
        return [sparkline(values, wide, ascii=draw.look.ascii) for values in losses if values is not None]

    def _columns(self, row: int, shown: list[int]) -> dict[str, list[str]]:
        """Return the texts of each column of the shown examples, those that give way first at the end."""
        found = self.examples
        columns: dict[str, list[str]] = {"#": [str(example) for example in shown]}
        if found is None:
            return columns
        told, wrong = found.told(row), found.wrong(row)
        known: list[tuple[str, NDArray[np.float64] | NDArray[np.int64] | None]] = [
            ("y", found.label),
            ("told", told),
            ("loss", found.loss(row)),
            ("forgot", found.forgotten),
            (_NORM, self.norms),
        ]
        for name, values in known:
            if values is not None:
                columns[name] = [_number(float(values[example])) for example in shown]
        if wrong is not None and "told" in columns:
            pairs = zip(columns["told"], shown, strict=True)
            columns["told"] = [f"{text}{' x' if wrong[example] else '  '}" for text, example in pairs]
        if found.numbers is not None:
            columns["train"] = [
                f"#{int(found.numbers[example])}" if found.numbers[example] >= 0 else "" for example in shown
            ]
        if self.influences:
            columns["most influence"] = [
                " ".join(f"#{one}" for one in self.influences.get(example, ())) for example in shown
            ]
        return columns

    def table(self) -> Table:
        """Return one row an example, in the order that is shown."""
        found = self.examples
        if found is None:
            return Table("examples", {})
        row = found.row(self.step)
        columns: dict[str, list[Value]] = {"example": self.order.tolist()}
        known = (
            ("label", found.label),
            ("told", found.told(row)),
            ("loss", found.loss(row)),
            ("forgotten", found.forgotten),
            ("norm", self.norms),
            ("training_example", found.numbers),
        )
        for name, values in known:
            if values is not None:
                columns[name] = values[self.order].tolist()
        return Table("examples", columns)

    def at(self) -> str:
        """Return the chosen example's row, tab separated."""
        table = self.table()
        rows = [row for row in table.rows if row[0] == self.chosen] or table.rows[:1]
        return "\n".join("\t".join(map(str, row)) for row in (tuple(table.columns), *rows)) + "\n"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return str(int(value)) if value == int(value) and abs(value) < 1e6 else compact(value, 3)
