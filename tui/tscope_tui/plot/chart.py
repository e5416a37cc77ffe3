"""A chart: axes, curves, legend and cursor, as rows of characters with roles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from tscope_tui.plot.axis import Axis, axis_over
from tscope_tui.plot.decimate import Columns, bar_columns, decimate, ordered
from tscope_tui.plot.raster import BRAILLE, cells, dots
from tscope_tui.plot.series import ASCII_MARKS, GLYPH, Series

# Lone bits of a braille cell are a thin line in every font; ASCII cells hold one mark.
_DOT_ROWS, _DOT_COLUMNS = 4, 2
# Characters from one error bar to the next.
_BARS = 3


class Role(IntEnum):
    """What a run of characters is, when it is not a curve; curves have their index, 0 and up."""

    BLANK = -1
    AXIS = -2
    LABEL = -3
    CURSOR = -4
    BAND = -5
    TITLE = -6


@dataclass(frozen=True)
class Run:
    """Neighbouring characters of one role (a `Role`, or the number of a colour); `band`: the chosen range."""

    text: str
    role: int
    band: bool = False


@dataclass(frozen=True)
class Frame:
    """The rows of a chart, each a sequence of runs that together fill its width."""

    rows: tuple[tuple[Run, ...], ...]

    def lines(self) -> list[str]:
        """Return the rows as plain text."""
        return ["".join(run.text for run in row) for row in self.rows]


@dataclass(frozen=True, eq=False)
class Plot:
    """Drawn curves, before the cursor is laid over them: drawing is dear, moving a cursor must not be.

    Attributes:
        x_axis: The horizontal axis, for mapping a column to a step and back.
        left: Columns taken by the labels and the axis.
        width: Columns of the plotting area.
        notes: What could not be drawn, in words.
    """

    x_axis: Axis
    y_axis: Axis
    left: int
    width: int
    notes: tuple[str, ...]
    _margin: tuple[str, ...]
    _characters: NDArray[np.int64]
    _roles: NDArray[np.int64]
    _bottom: str
    _right: int
    _ascii: bool

    def column(self, x: float) -> int | None:
        """Return the column (0 is the left edge of the chart) of an x value, None when it is out of sight."""
        unit = float(self.x_axis.unit(np.array([x]))[0])
        if not 0 <= unit <= 1 or not self.width:
            return None
        return self.left + min(self.width - 1, int(unit * self.width))

    def x_at(self, column: int) -> float:
        """Return the x value in the middle of a column."""
        return self.x_axis.value(min(1.0, max(0.0, (column - self.left + 0.5) / max(self.width, 1))))

    def frame(self, *, cursor: float | None = None, band: tuple[float, float] | None = None) -> Frame:
        """Return the rows, with a vertical cursor and a marked range laid over them."""
        characters, roles = self._characters, self._roles
        marked = np.zeros(characters.shape[1], dtype=bool)
        if band is not None:
            edges = self.x_axis.unit(np.array(sorted(band)))
            if np.isfinite(edges).all():
                start, stop = np.floor(np.clip(edges, 0, 1) * self.width).astype(int)
                marked[start : min(self.width, stop + 1)] = edges[1] >= 0 and edges[0] <= 1
        at = None if cursor is None else self.column(cursor)
        if at is not None:
            characters, roles = characters.copy(), roles.copy()
            empty = roles[:, at - self.left] == Role.BLANK
            characters[empty, at - self.left] = ord("|" if self._ascii else "┊")
            roles[empty, at - self.left] = Role.CURSOR
        rows = []
        for margin, line, row in zip(self._margin, characters, roles, strict=True):
            runs = [Run(margin[:-1], Role.LABEL), Run(margin[-1:], Role.AXIS)] if margin else []
            rows.append((*runs, *_runs(line, row, marked)))
        if self._bottom:
            rows.append((Run(self._bottom, Role.AXIS),))
        return Frame(tuple(rows))


def _runs(line: NDArray[np.int64], roles: NDArray[np.int64], marked: NDArray[np.bool_]) -> list[Run]:
    key = roles * 2 + marked
    edges = np.concatenate(([0], np.flatnonzero(np.diff(key)) + 1, [key.size]))
    text = "".join(map(chr, line))
    return [
        Run(text[start:stop], int(roles[start]), bool(marked[start]))
        for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        if stop > start
    ]


def draw(
    series: Sequence[Series],
    width: int,
    height: int,
    *,
    log_x: bool = False,
    log_y: bool = False,
    x_range: tuple[float, float] | None = None,
    x_labels: bool = True,
    ascii: bool = False,
) -> Plot:
    """Draw curves into `width` × `height` characters; the first series lies on top.

    Args:
        series: The curves.
        width: Columns, labels included.
        height: Rows, the row of x labels included.
        log_x: Logarithmic x; values that are not positive are left out and noted.
        log_y: Logarithmic y, likewise.
        x_range: The window on x; all of the data when None. The y axis covers what the window shows.
        x_labels: Give the lowest row to the x axis.
        ascii: Use only ASCII.

    Returns:
        The plot; `frame()` gives its rows.
    """
    points = [ordered(one) for one in series]
    x_axis = axis_over([np.asarray(x_range)] if x_range else [x for x, _ in points], log_x)
    rows = max(0, height - 1 if x_labels and height > 2 else height)
    across, down = (1, 1) if ascii else (_DOT_COLUMNS, _DOT_ROWS)
    bars = [one.bounds(positive=log_y) for one in series]
    # A lower end far down must not press a logarithmic axis together.
    ends_of_bars = [ordered(end) for bar in bars if bar for end in (bar[1:] if log_y else bar)]
    y_axis = axis_over([_seen(x, y, x_axis) for x, y in (*points, *ends_of_bars)], log_y)
    ticks = _rows_of(y_axis, rows)
    left = min(max(0, width - 1), max((len(label) for label in ticks.values()), default=0) + 1)
    right = 1 if len(series) > 1 and width - left > 8 else 0
    area = max(0, width - left - right)
    characters = np.full((rows, area + right), ord(" "), dtype=np.int64)
    roles = np.full((rows, area + right), int(Role.BLANK), dtype=np.int64)
    notes, ends = [], []
    bits = np.zeros((rows, area), dtype=np.int64)
    for index, bar in enumerate(bars):
        if bar is None or not (area and rows):
            continue
        grid = _bars(bar, x_axis, y_axis, log_y, area * across, rows * down, _BARS * across)
        own = grid.astype(np.int64) * ord(":") if ascii else cells(grid)
        bits = np.where(own > 0, own, bits) if ascii else bits | own
        roles[:, :area][own > 0] = series[index].colour(index)
    for index, (one, (x, y)) in reversed(list(enumerate(zip(series, points, strict=True)))):
        columns = decimate(x, y, x_axis, log_y, max(1, area * across))
        if columns.dropped:
            notes.append(f"{one.label}: {columns.dropped} not on the axis")
        if not (area and rows):
            continue
        grid = dots(columns, y_axis, rows * down, "solid" if ascii else one.dash)
        own = grid.astype(np.int64) * ord(ASCII_MARKS[index % len(ASCII_MARKS)]) if ascii else cells(grid)
        bits = np.where(own > 0, own, bits) if ascii else bits | own
        roles[:, :area][own > 0] = one.colour(index)
        ends.append((index, _end_row(columns, y_axis, rows)))
    characters[:, :area] = np.where(bits > 0, bits if ascii else bits + BRAILLE, ord(" "))
    if right:
        _mark_ends(characters, roles, series, ends)
    margin = tuple(
        (ticks.get(row, "")[: left - 1].rjust(left - 1) + _tee(row in ticks, ascii)) if left else ""
        for row in range(rows)
    )
    bottom = _bottom(x_axis, left, area, width, ascii) if x_labels and height > 2 else ""
    return Plot(
        x_axis, y_axis, left, area, tuple(reversed(notes)), margin, characters, roles, bottom, right, ascii
    )


def _bars(
    ends: tuple[Series, Series], x_axis: Axis, y_axis: Axis, log_y: bool, columns: int, rows: int, apart: int
) -> NDArray[np.bool_]:
    """Return the dots of error bars (rows, columns), at least `apart` columns from one to the next."""
    low, high = (decimate(*ordered(end), x_axis, log_y, columns) for end in ends)
    x, y = ordered(ends[1])
    shown = bar_columns(x[np.isfinite(y)], x_axis, columns, apart)
    spans = replace(
        high,
        low=np.where(shown, low.low, np.nan),
        high=np.where(shown, high.high, np.nan),
        joined=np.zeros(columns, dtype=bool),
    )
    return dots(spans, y_axis, rows, "solid")


def _seen(x: NDArray[np.float64], y: NDArray[np.float64], axis: Axis) -> NDArray[np.float64]:
    start, stop = x.searchsorted(axis.low), x.searchsorted(axis.high, side="right")
    if stop > start or not x.size:
        return y[start:stop]
    # A window between two points still has a line through it.
    return np.interp([axis.low, axis.high], x, y, left=np.nan, right=np.nan)


def _tee(tick: bool, ascii: bool) -> str:
    return ("+" if tick else "|") if ascii else ("┤" if tick else "│")


def _rows_of(axis: Axis, rows: int) -> dict[int, str]:
    """Return tick labels by row; the ends of the axis get the round values next to them."""
    labels: dict[int, str] = {}
    for value, label in axis.ticks(max(2, rows // 3)):
        row = round((1 - float(axis.unit(np.array([value]))[0])) * (rows - 1))
        labels.setdefault(min(max(row, 0), max(rows - 1, 0)), label)
    return labels


def _bottom(axis: Axis, left: int, area: int, width: int, ascii: bool) -> str:
    line = [" "] * max(0, left - 1) + ["+" if ascii else "└"] + ["-" if ascii else "─"] * area
    line += [" "] * (width - len(line))
    free = left
    for value, label in axis.ticks(max(2, area // 12)):
        at = left + round(float(axis.unit(np.array([value]))[0]) * max(0, area - 1))
        start = min(max(left, at - (len(label) - 1) // 2), left + area - len(label))
        if start >= free:
            line[start : start + len(label)] = label
            free = start + len(label) + 1
    return "".join(line[:width])


def _end_row(columns: Columns, axis: Axis, rows: int) -> int | None:
    if columns.last is None:
        return None
    unit = float(axis.unit(np.array([columns.last[1]]))[0])
    return min(rows - 1, max(0, int((1 - unit) * (rows - 1) + 0.5))) if np.isfinite(unit) else None


def letters(labels: Sequence[str]) -> list[str]:
    """Return one distinct ASCII character per label: its first free letter, else a digit."""
    chosen: list[str] = []
    for label in labels:
        options = [letter for letter in label if letter.isascii() and letter.isalnum()]
        options += list("123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
        chosen.append(next((letter for letter in options if letter not in chosen), "?"))
    return chosen


def _mark_ends(
    characters: NDArray[np.int64],
    roles: NDArray[np.int64],
    series: Sequence[Series],
    ends: Sequence[tuple[int, int | None]],
) -> None:
    """Write each curve's letter beside its end, in the nearest free row."""
    rows = characters.shape[0]
    marks = letters([one.label for one in series])
    for index, row in sorted(ends):
        if row is None:
            continue
        free = [at for at in sorted(range(rows), key=lambda at: abs(at - row)) if roles[at, -1] == Role.BLANK]
        if free:
            characters[free[0], -1], roles[free[0], -1] = ord(marks[index]), series[index].colour(index)


def legend(series: Sequence[Series], *, ascii: bool = False) -> str:
    """Return the key of a chart in one line: `━ actual (a)  ╌ telescoped (t)`."""
    return "  ".join(text for text, _ in legend_parts(series, ascii=ascii))


def legend_parts(series: Sequence[Series], *, ascii: bool = False) -> list[tuple[str, int]]:
    """Return the key of a chart by series, each with the number of its colour."""
    parts = []
    for index, (one, letter) in enumerate(zip(series, letters([one.label for one in series]), strict=True)):
        glyph = ASCII_MARKS[index % len(ASCII_MARKS)] if ascii else GLYPH[one.dash]
        # The letter at the curve's end needs saying only where it is not the label's own initial.
        parts.append(
            (
                f"{glyph} {one.label}" + ("" if one.label.startswith(letter) else f" ({letter})"),
                one.colour(index),
            )
        )
    return parts


def chart(
    series: Sequence[Series],
    width: int,
    height: int,
    *,
    log_x: bool = False,
    log_y: bool = False,
    ascii: bool = False,
    title: str = "",
    x_range: tuple[float, float] | None = None,
    cursor: float | None = None,
) -> list[str]:
    """Return a whole chart as `height` plain lines of at most `width` characters.

    The first line holds the title and the legend; what could not be drawn is said at its end. Curves are
    braille dots, or one mark per curve with `ascii`.

    Args:
        series: The curves, the first on top.
        width: Columns.
        height: Rows, title and x axis included.
        log_x: Logarithmic x axis.
        log_y: Logarithmic y axis.
        ascii: Use only ASCII; other characters of the title and labels become `?`.
        title: Said before the legend.
        x_range: The window on x; all of the data when None.
        cursor: An x value to mark with a vertical line.

    Returns:
        The lines, without trailing spaces.
    """
    if width < 1 or height < 1:
        return []
    plot = draw(series, width, height - 1, log_x=log_x, log_y=log_y, x_range=x_range, ascii=ascii)
    shown = any(role >= 0 for role in plot._roles.flat)
    notes = plot.notes if shown else (*plot.notes, "nothing to draw")
    head = "   ".join(part for part in (title, legend(series, ascii=ascii), "; ".join(notes)) if part)
    lines = [line.rstrip() for line in [head[:width], *plot.frame(cursor=cursor).lines()][:height]]
    return [line.encode("ascii", "replace").decode() for line in lines] if ascii else lines
