"""A chart in a frame; its title is the legend, with the values at the cursor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tscope_tui.data.table import Table, Value
from tscope_tui.panes.box import box
from tscope_tui.panes.pane import Draw
from tscope_tui.plot import Frame, Plot, Role, Series, compact
from tscope_tui.plot.chart import legend_parts, letters
from tscope_tui.spans import Line, Span, cells, fit

# Rows of the chart from which on it has an x axis of its own; below, the scrubber tells the steps.
_X_LABELS = 10
_ROLES = {
    Role.BLANK: "text",
    Role.AXIS: "axis",
    Role.LABEL: "label",
    Role.CURSOR: "cursor",
}


@dataclass(frozen=True)
class ChartPane:
    """Curves over steps.

    Attributes:
        name: What the chart shows, for its title.
        series: The curves, the first on top; their labels are cleaned.
        log_y: Whether the y axis is logarithmic unless the reader chose otherwise.
        empty: What to say, and what would provide the data, when there are no curves.
        unit: Said after the name in the title.
    """

    name: str
    series: tuple[Series, ...]
    log_y: bool = False
    empty: tuple[str, ...] = ()

    def lines(self, width: int, height: int, draw: Draw) -> list[Line]:
        """Return the chart in its frame."""
        if not self.series:
            told = [fit([Span(" " + text, "dim")], width - 2) for text in self._told(width - 4)]
            return box([Span(self.name, "title")], told, width, height, draw.look, focused=draw.focused)
        plot = self._plot(width, height, draw)
        frame = plot.frame(cursor=draw.cursor, band=draw.band)
        title = self._title(draw, width - 5)
        notes = "; ".join(plot.notes)
        return box(title, spans_of(frame), width, height, draw.look, focused=draw.focused, foot=notes)

    def _log_y(self, draw: Draw) -> bool:
        return self.log_y if draw.log_y is None else draw.log_y

    def _plot(self, width: int, height: int, draw: Draw) -> Plot:
        rows = max(1, height - 2)
        window = draw.window
        if window is not None and draw.log_x:
            # Step 0 is not on a logarithmic axis.
            window = (max(1.0, window[0]), window[1]) if window[1] > 1 else None
        return draw.cache.plot(
            self.series,
            max(1, width - 2),
            rows,
            log_x=draw.log_x,
            log_y=self._log_y(draw),
            x_range=window,
            x_labels=rows >= _X_LABELS or draw.zoomed,
            ascii=draw.look.ascii,
        )

    def step_at(self, column: int, width: int, height: int, draw: Draw) -> float | None:
        """Return the step under a column of the pane; None on its frame and labels."""
        plot = self._plot(width, height, draw)
        inside = plot.left <= column - 1 < plot.left + plot.width
        return plot.x_at(column - 1) if inside else None

    def _told(self, width: int) -> list[str]:
        lines: list[str] = []
        for text in self.empty:
            words, line = text.split(" "), ""
            for word in words:
                if line and cells(line) + 1 + cells(word) > width:
                    lines.append(line)
                    line = word
                else:
                    line = f"{line} {word}" if line else word
            lines.append(line)
        return lines

    def _title(self, draw: Draw, width: int) -> list[Span]:
        """Return the legend, with the values at the cursor where they fit."""
        ascii = draw.look.ascii
        reading = draw.crosshair and draw.cursor is not None
        spans = [Span(f"{self.name}{' (log)' if self._log_y(draw) else ''}", "title")]
        if reading and draw.cursor is not None:
            spans = [Span(f"{self.name} @{round(draw.cursor):,}", "title")]
        parts = legend_parts(self.series, ascii=ascii)
        values = [value_at(one, draw.cursor, ascii=ascii) for one in self.series]
        full = [f"{text} {value}" for (text, _), value in zip(parts, values, strict=True)]
        plain = [text for text, _ in parts]
        glyphs = [f"{text.split(' ')[0]} {value}" for (text, _), value in zip(parts, values, strict=True)]
        ends = letters([one.label for one in self.series])
        short = [f"{text.split(' ')[0]} {end}" for (text, _), end in zip(parts, ends, strict=True)]
        room = width - cells(spans[0].text)
        # Names are shortened before they are reduced to the letters at the curves' ends.
        cut = [
            [f"{text.split(' ')[0]} {text.split(' ', 1)[1][:most]}" for text, _ in parts]
            for most in (7, 6, 5, 4)
        ]
        for texts in (full, glyphs) if reading else (full, plain, *cut, short):
            if sum(cells(text) + 1 for text in texts) <= room:
                break
        for (_, hue), text in zip(parts, texts, strict=True):
            spans += [Span(" ", "title"), Span(text, f"series{hue % 8}")]
        return spans

    def table(self) -> Table:
        """Return one row for each step of the first curve; other curves at or before it."""
        if not self.series:
            return Table(self.name, {})
        steps = np.unique(np.concatenate([np.asarray(one.x) for one in self.series]))
        columns: dict[str, list[Value]] = {
            "step": [int(step) if step == int(step) else step for step in steps.tolist()]
        }
        for one in self.series:
            x, y = one.points
            index = x.searchsorted(steps, side="right") - 1
            columns[one.label] = np.where(index >= 0, y[np.maximum(index, 0)], np.nan).tolist()
            if one.error is not None:
                error = np.asarray(one.error)[np.maximum(index, 0)]
                columns[f"{one.label} se"] = np.where(index >= 0, error, np.nan).tolist()
        return Table(self.name, columns)


def value_at(series: Series, step: float | None, *, ascii: bool = False) -> str:
    """Return the value at or before a step, the last one without a step; a dash when there is none."""
    x, y = series.points
    index = x.size - 1 if step is None else int(x.searchsorted(step, side="right")) - 1
    if index < 0:
        return "-" if ascii else "–"
    value = compact(float(y[index]))
    if series.error is None or not np.asarray(series.error)[index] > 0:
        return value
    return f"{value}{'+-' if ascii else '±'}{compact(float(np.asarray(series.error)[index]), 2)}"


def spans_of(frame: Frame) -> Sequence[Line]:
    """Return the rows of a plot with tones for roles."""
    return [
        tuple(Span(run.text, ("band:" if run.band else "") + _tone(run.role)) for run in row if run.text)
        for row in frame.rows
    ]


def _tone(role: int) -> str:
    return f"series{role % 8}" if role >= 0 else _ROLES[Role(role)]
