"""Curves over something else than steps: eigenvalues over their ranks, errors over a share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tscope_tui.data.table import Table, Value
from tscope_tui.panes.box import box
from tscope_tui.panes.chart import spans_of
from tscope_tui.panes.pane import Draw
from tscope_tui.plot import Series
from tscope_tui.plot.chart import legend_parts
from tscope_tui.spans import Line, Span, cells, wrap

# Rows of the pane from which on the chart has an x axis with numbers: no scrubber tells them.
_X_LABELS = 7


@dataclass(frozen=True, eq=False)
class RelationPane:
    """A chart whose x axis is its own; neither the cursor nor the steps in sight are on it.

    Attributes:
        name: Of the pane's numbers when they are exported.
        title: What the chart shows.
        over: What x is called.
        series: The curves, over one x.
        log_x: Whether the x axis is logarithmic.
        log_y: Whether the y axis is, unless the reader chose otherwise.
        step: The step that the curves are of, for those of one step.
        empty: What to say, and what would provide the data, when there are no curves.
        mark: The point on the x axis that is looked at; None without one.
        foot: Said in the lower edge, in place of what x is called.
        bars: What the error bars are, in the names of exported columns.
    """

    name: str
    title: str
    over: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False
    step: int = 0
    empty: tuple[str, ...] = ()
    mark: float | None = None
    foot: str = ""
    bars: str = "sd"

    def lines(self, width: int, height: int, draw: Draw) -> list[Line]:
        """Return the chart in its frame."""
        look = draw.look
        if not self.series:
            told: list[Line] = [
                (Span(" " + line, "dim"),) for text in self.empty for line in wrap(text, max(4, width - 4))
            ]
            return box(
                [Span(self.title or self.name, "title")], told, width, height, look, focused=draw.focused
            )
        plot = draw.cache.plot(
            self.series,
            max(1, width - 2),
            max(1, height - 2),
            log_x=self.log_x,
            log_y=self.log_y if draw.log_y is None else draw.log_y,
            x_range=None,
            x_labels=height >= _X_LABELS,
            ascii=look.ascii,
        )
        title = [Span(self.title, "title")]
        parts = legend_parts(self.series, ascii=look.ascii)
        room = width - 5 - cells(self.title)
        whole = sum(cells(text) + 1 for text, _ in parts) <= room
        for text, hue in parts:
            title += [
                Span(" "),
                Span(text if whole else text[: max(3, room // len(parts) - 1)], f"series{hue % 8}"),
            ]
        said = self.foot or (f"over {self.over}" if self.over else "")
        foot = "; ".join((*plot.notes, *([said] if said else [])))
        if cells(foot) + 5 > width and plot.notes and self.foot:
            foot = f"{self.foot}; not all drawn"
        lines = spans_of(plot.frame(cursor=self.mark))
        return box(title, lines, width, height, look, focused=draw.focused, foot=foot)

    def table(self) -> Table:
        """Return one row a point of the first curve."""
        if not self.series:
            return Table(self.name, {})
        x, _ = self.series[0].points
        columns: dict[str, list[Value]] = {
            self.over or "x": [int(value) if value == int(value) else value for value in x.tolist()]
        }
        for one in self.series:
            columns[one.label] = one.points[1].tolist()
            if one.error is not None:
                columns[f"{one.label} {self.bars}"] = np.asarray(one.error).tolist()
        return Table(self.name, columns)

    def at(self) -> str:
        """Return the row at the mark, or without one the table, tab separated."""
        table = self.table()
        rows = table.rows
        if self.mark is not None and self.series:
            nearest = int(np.abs(self.series[0].points[0] - self.mark).argmin())
            rows = rows[nearest : nearest + 1]
        return "\n".join("\t".join(map(str, row)) for row in (tuple(table.columns), *rows)) + "\n"
