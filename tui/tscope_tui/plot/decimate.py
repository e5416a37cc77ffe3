"""From points to columns: what each dot column of a chart must show, in one pass over the data.

A column with many points shows all of their range (minimum to maximum), so a spike of one step among 10^7 is
never lost; columns between two points follow the straight line that joins them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tscope_tui.plot.axis import Axis
from tscope_tui.plot.series import Series

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Columns:
    """A curve by dot column: `low`, `high` (column,) in data units, NaN where nothing is drawn.

    `joined` (column,) tells whether the curve runs on from the previous column. `last` is the right end.
    """

    low: Floats
    high: Floats
    joined: NDArray[np.bool_]
    dropped: int
    last: tuple[int, float] | None


def ordered(series: Series) -> tuple[Floats, Floats]:
    """Return the points in the order of x, without those whose x is not finite."""
    x, y = series.points
    finite = np.isfinite(x)
    if not finite.all():
        x, y = x[finite], y[finite]
    if (x[1:] < x[:-1]).any():
        order = np.argsort(x, kind="stable")
        x, y = x[order], y[order]
    return x, y


def decimate(x: Floats, y: Floats, axis: Axis, log_y: bool, columns: int) -> Columns:
    """Reduce an ordered curve to one range per dot column.

    Args:
        x: Coordinates (point,), finite and not decreasing.
        y: Values (point,).
        axis: The horizontal axis.
        log_y: Interpolate between points in log(y), as a log axis draws straight lines.
        columns: How many dot columns there are.

    Returns:
        The ranges (column,).
    """
    start, stop = int(x.searchsorted(axis.low)), int(x.searchsorted(axis.high, side="right"))
    # One more point on either side, so that lines enter and leave the window where they should.
    x, y = x[max(0, start - 1) : stop + 1], y[max(0, start - 1) : stop + 1]
    position = axis.unit(x) * columns
    with np.errstate(all="ignore"):
        value = np.where(y > 0, np.clip(np.log10(y), -300, 300), np.nan) if log_y else y
    # NaN is a recorded gap; what cannot be drawn (infinite, not positive on a log axis) is also counted.
    undrawn = ~np.isfinite(value) | ~np.isfinite(position)
    inside = (x >= axis.low) & (x <= axis.high)
    dropped = int(np.count_nonzero(undrawn & inside & ~np.isnan(y)))
    run = np.cumsum(undrawn, dtype=np.int64)
    keep = ~undrawn
    position, value, run, inside = position[keep], value[keep], run[keep], inside[keep]
    column = np.floor(np.clip(position, -1, columns)).astype(np.int64)
    column[inside] = np.clip(column[inside], 0, columns - 1)
    return _columns(column, position, value, run, columns, dropped, log_y)


def bar_columns(x: Floats, axis: Axis, columns: int, apart: int) -> NDArray[np.bool_]:
    """Return in which columns error bars stand (column,): at the points, or evenly where these are too close.

    Args:
        x: Coordinates of the points with a bar (point,).
        axis: The horizontal axis.
        columns: How many dot columns there are.
        apart: Columns from one bar to the next, at least.
    """
    position = axis.unit(x[(x >= axis.low) & (x <= axis.high)]) * columns
    at = np.unique(np.clip(np.floor(position[np.isfinite(position)]), 0, columns - 1).astype(np.int64))
    shown = np.zeros(columns, dtype=bool)
    if at.size and (np.diff(at) >= apart).all():
        shown[at] = True
    else:
        shown[apart // 2 :: apart] = True
    return shown


def _columns(
    column: NDArray[np.int64],
    position: Floats,
    value: Floats,
    run: NDArray[np.int64],
    columns: int,
    dropped: int,
    log_y: bool,
) -> Columns:
    low, high = np.full(columns, np.nan), np.full(columns, np.nan)
    joined = np.zeros(columns, dtype=bool)
    if not column.size:
        return Columns(low, high, joined, dropped, None)
    first = np.flatnonzero(np.diff(column, prepend=column[0] - 1))
    last = np.append(first[1:], column.size) - 1
    minimum, maximum = np.minimum.reduceat(value, first), np.maximum.reduceat(value, first)
    where = column[first]
    shown = (where >= 0) & (where < columns)
    low[where[shown]], high[where[shown]] = minimum[shown], maximum[shown]
    linked = run[last[:-1]] == run[first[1:]]
    joined[where[1:][linked & (where[1:] < columns)]] = True
    for index in np.flatnonzero(linked & (np.diff(where) > 1)):
        left, right = last[index], first[index + 1]
        between = np.arange(where[index] + 1, where[index + 1])
        share = (between + 0.5 - position[left]) / (position[right] - position[left])
        line = value[left] + np.clip(share, 0, 1) * (value[right] - value[left])
        low[between], high[between], joined[between] = line, line, True
    joined[0] = False
    visible = np.flatnonzero(np.isfinite(low))
    end_point = None
    if visible.size:
        final = int(visible[-1])
        inside = np.flatnonzero(column == final)
        end_point = (final, float(value[inside[-1]] if inside.size else low[final]))
    if log_y:
        with np.errstate(all="ignore"):
            low, high = 10.0**low, 10.0**high
        end_point = end_point and (end_point[0], float(10.0 ** end_point[1]))
    return Columns(low, high, joined, dropped, end_point)
