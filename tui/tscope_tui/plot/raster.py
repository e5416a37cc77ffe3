"""From columns to dots, and from dots to characters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tscope_tui.plot.axis import Axis
from tscope_tui.plot.decimate import Columns
from tscope_tui.plot.series import PATTERN, Dash

# Bit of the braille pattern (U+2800 + bits) by dot row and dot column of a cell.
_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.int64)
BRAILLE = 0x2800


def dots(columns: Columns, axis: Axis, rows: int, dash: Dash) -> NDArray[np.bool_]:
    """Return which dots a curve sets, (rows, column), row 0 at the top.

    A curve is a connected stroke: where neighbouring columns do not touch, both grow half-way to each other.
    """
    top = (1 - axis.unit(columns.high)) * (rows - 1)
    bottom = (1 - axis.unit(columns.low)) * (rows - 1)
    drawn = np.isfinite(top) & np.isfinite(bottom) & (bottom > -0.5) & (top < rows - 0.5)
    first = np.where(drawn, np.rint(np.clip(top, 0, rows - 1)), rows).astype(np.int64)
    final = np.where(drawn, np.rint(np.clip(bottom, 0, rows - 1)), -1).astype(np.int64)
    link = columns.joined[1:] & drawn[1:] & drawn[:-1]
    falls = np.where(link, first[1:] - final[:-1] - 1, 0)
    rises = np.where(link, first[:-1] - final[1:] - 1, 0)
    falls, rises = np.maximum(falls, 0), np.maximum(rises, 0)
    final[:-1] = np.maximum(final[:-1], final[:-1] + falls // 2)
    first[1:] -= falls - falls // 2
    first[:-1] -= rises // 2
    final[1:] += rises - rises // 2
    row = np.arange(rows)[:, None]
    grid = (row >= first) & (row <= final)
    pattern = PATTERN[dash]
    return grid if pattern is None else grid & _phase(first, final, row, pattern)


def _phase(
    first: NDArray[np.int64],
    final: NDArray[np.int64],
    row: NDArray[np.int64],
    pattern: tuple[int, int, int, int],
) -> NDArray[np.bool_]:
    """Return where a dash pattern is on, measured along the stroke, so that steep parts are dashed too."""
    length = np.where(final >= first, final - first + 1, 1)
    phase = (np.cumsum(length) - length + np.maximum(row - first, 0)) % sum(pattern)
    on, off, on_again, _ = pattern
    return np.asarray((phase < on) | ((phase >= on + off) & (phase < on + off + on_again)))


def cells(grid: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Pack dots (4·height, 2·width) into the braille bits of cells (height, width)."""
    height, width = grid.shape[0] // 4, grid.shape[1] // 2
    blocks = grid.reshape(height, 4, width, 2)
    return np.asarray(np.einsum("hiwj,ij->hw", blocks.astype(np.int64), _BITS))
