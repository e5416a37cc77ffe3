"""Which step a row is, without reading the steps of 10^7 rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tscope_format import RootReader

_SAMPLE = 1024


class Steps:
    """The step of each row: arithmetic where steps are evenly spaced, else the recorded array.

    With `--every K` only the last row may break the spacing, so both ends of the array tell the rest.
    """

    def __init__(self, rows: int, first: int, stride: int, last: int, table: NDArray[np.int64] | None = None):
        self.rows, self.first, self.stride, self.last, self._table = rows, first, stride, last, table

    @classmethod
    def read(cls, root: RootReader, rows: int) -> Steps:
        """Read the steps of a root's first `rows` rows."""
        head = np.asarray(root.read("step", 0, min(rows, _SAMPLE)), dtype=np.int64)
        tail = np.asarray(root.read("step", max(0, rows - 2), rows), dtype=np.int64)
        if not head.size:
            return cls(0, 0, 1, 0)
        first, last = int(head[0]), int(tail[-1])
        stride = int(head[1] - head[0]) if rows > 1 else 1
        before_last = int(tail[0]) if rows > 1 else last
        regular = (
            stride > 0
            and (rows <= 2 or bool((np.diff(head[:-1] if rows <= head.size else head) == stride).all()))
            and (rows <= 2 or before_last == first + (rows - 2) * stride)
            and (rows == 1 or before_last < last <= before_last + stride)
        )
        table = None if regular else np.asarray(root.read("step", 0, rows), dtype=np.int64)
        return cls(rows, first, max(1, stride), last, table)

    def at(self, row: int) -> int:
        """Return the step of a row, the nearest one when there is no such row."""
        row = min(max(row, 0), max(0, self.rows - 1))
        if self._table is not None:
            return int(self._table[row])
        return self.last if row == self.rows - 1 else self.first + row * self.stride

    def row(self, step: float) -> int:
        """Return the last row at or before a step (0 when none is)."""
        if self._table is not None:
            return max(0, int(self._table.searchsorted(step, side="right")) - 1)
        if step >= self.last:
            return max(0, self.rows - 1)
        return min(max(0, int((step - self.first) // self.stride)), max(0, self.rows - 2))

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the steps of many rows (row,)."""
        if self._table is not None:
            return self._table[rows]
        return np.where(rows >= self.rows - 1, self.last, self.first + rows * self.stride)
