"""A chart as SVG: the same curves as vectors, for a paper or a page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from tscope_tui.plot.axis import Axis, axis_over
from tscope_tui.plot.decimate import bar_columns, decimate, ordered
from tscope_tui.plot.series import Dash, Series

# Okabe and Ito's colours, distinct for colour-blind readers; the order of the terminal's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
_STROKES: dict[Dash, str] = {"solid": "", "dash": "7 4", "dot": "2 3", "dashdot": "8 3 2 3"}
# Pixels from one error bar to the next.
_APART = 12
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 16, 34, 40


def svg(
    series: Sequence[Series],
    *,
    title: str = "",
    width: int = 720,
    height: int = 360,
    log_x: bool = False,
    log_y: bool = False,
    x_range: tuple[float, float] | None = None,
) -> str:
    """Return a chart as an SVG document of `width` × `height` pixels, two points a pixel column at most."""
    points = [ordered(one) for one in series]
    x_axis = axis_over([np.asarray(x_range)] if x_range else [x for x, _ in points], log_x)
    inner = width - _LEFT - _RIGHT, height - _TOP - _BOTTOM
    reduced = [decimate(x, y, x_axis, log_y, inner[0]) for x, y in points]
    bars = [_bars(one, x_axis, log_y, inner[0]) for one in series]
    edges = [edge for one in reduced for edge in (one.low, one.high)]
    # A lower end far down must not press a logarithmic axis together.
    edges += [edge for low, high in bars for edge in ((high,) if log_y else (low, high))]
    y_axis = axis_over(edges, log_y)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-size="14">{escape(title)}</text>',
        f'<rect x="{_LEFT}" y="{_TOP}" width="{inner[0]}" height="{inner[1]}" fill="none" stroke="#888"/>',
        *_ticks(x_axis, y_axis, inner),
    ]
    for index, (one, columns) in enumerate(zip(series, reduced, strict=True)):
        colour = COLOURS[one.colour(index) % len(COLOURS)]
        stroke = f' stroke-dasharray="{_STROKES[one.dash]}"' if _STROKES[one.dash] else ""
        path = _path(columns.low, columns.high, columns.joined, y_axis, inner[1])
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"{stroke}/>')
        low, high = bars[index]
        if low.size:
            nothing = np.zeros(low.size, dtype=bool)
            ends = np.maximum(low, y_axis.low), np.minimum(high, y_axis.high)
            bar = _path(*ends, nothing, y_axis, inner[1])
            parts.append(f'<path d="{bar}" fill="none" stroke="{colour}" stroke-opacity="0.5"/>')
        x = _LEFT + 8 + index * 130
        y = height - 8
        parts.append(f'<path d="M{x} {y - 4}h24" stroke="{colour}" stroke-width="2"{stroke}/>')
        parts.append(f'<text x="{x + 30}" y="{y}">{escape(one.label)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _bars(
    series: Series, axis: Axis, log_y: bool, columns: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of error bars by pixel column, NaN between them; empty where there are none."""
    bounds = series.bounds(positive=log_y)
    if bounds is None:
        return np.zeros(0), np.zeros(0)
    low, high = (decimate(*ordered(end), axis, log_y, columns) for end in bounds)
    x, y = ordered(bounds[1])
    shown = bar_columns(x[np.isfinite(y)], axis, columns, _APART)
    return np.where(shown, low.low, np.nan), np.where(shown, high.high, np.nan)


def _ticks(x_axis: Axis, y_axis: Axis, inner: tuple[int, int]) -> list[str]:
    parts = []
    for value, label in x_axis.ticks(6):
        x = _LEFT + float(x_axis.unit(np.array([value]))[0]) * inner[0]
        parts.append(f'<path d="M{x:.1f} {_TOP + inner[1]}v4" stroke="#888"/>')
        parts.append(f'<text x="{x:.1f}" y="{_TOP + inner[1] + 16}" text-anchor="middle">{label}</text>')
    for value, label in y_axis.ticks(5):
        y = _TOP + (1 - float(y_axis.unit(np.array([value]))[0])) * inner[1]
        parts.append(f'<path d="M{_LEFT - 4} {y:.1f}h4" stroke="#888"/>')
        parts.append(f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    return parts


def _path(
    low: NDArray[np.float64], high: NDArray[np.float64], joined: NDArray[np.bool_], axis: Axis, height: int
) -> str:
    """Return the stroke through each column's lowest and highest value, broken where the curve is."""
    commands: list[str] = []
    drawn = False
    for column in range(low.size):
        ends = 1 - axis.unit(np.array([high[column], low[column]]))
        if not np.isfinite(ends).all():
            drawn = False
            continue
        top, bottom = (ends * height + _TOP).tolist()
        x = _LEFT + column + 0.5
        commands.append(f"{'L' if drawn and joined[column] else 'M'}{x:.1f} {top:.1f}")
        if bottom - top > 0.05:
            commands.append(f"L{x:.1f} {bottom:.1f}")
        drawn = True
    if len(commands) == 1:
        commands.append("h1")
    return "".join(commands)
