"""Minimum and maximum of a scalar over 64 rows, over 64² and over 64³, so that a long trace opens at once.

A level holds complete groups only: what is committed never changes, and a reader takes the last, open group
from the level below.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tscope_format.arrays import ArrayWriter
from tscope_format.codecs import Codec
from tscope_format.disk import Disk
from tscope_format.dtypes import dtype_of

FACTOR = 64
LEVELS = (64, 4096, 262_144)
"""Rows of one group at each level."""


def level_name(name: str, level: int) -> str:
    """Return the name of the array that holds `name` at a level."""
    return f"{name}_lod{level}"


class PyramidWriter:
    """Writes the levels of one scalar; a level's array exists from its first complete group on."""

    def __init__(self, disk: Disk, group: str, name: str) -> None:
        self._disk = disk
        self._group = group
        self._name = name
        self.arrays: list[ArrayWriter] = []
        # (level, member of the group, low and high)
        self._open = np.empty((len(LEVELS), FACTOR, 2))
        self._counts = [0] * len(LEVELS)

    def append(self, low: float, high: float) -> None:
        """Append one row's value, or its range; NaN counts only where there is nothing else."""
        entry: npt.NDArray[np.float64] | tuple[float, float] = (low, high)
        for level in range(len(LEVELS)):
            members = self._open[level]
            members[self._counts[level]] = entry
            self._counts[level] += 1
            if self._counts[level] < FACTOR:
                return
            self._counts[level] = 0
            entry = reduce_range(members)
            self._array(level).append(entry)

    def flush(self) -> None:
        """Write the complete groups so far."""
        for array in self.arrays:
            array.flush()

    def _array(self, level: int) -> ArrayWriter:
        if level == len(self.arrays):
            rows = LEVELS[level]
            path = f"{self._group}/{level_name(self._name, rows)}"
            dims = (f"step{rows}", "bound")
            self.arrays.append(
                ArrayWriter(self._disk, path, dims, (2,), dtype_of("float64"), Codec.time_last(2))
            )
        return self.arrays[level]


def reduce_range(ranges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the range that covers `ranges` (group, 2), NaN if all of them are."""
    return np.array([np.fmin.reduce(ranges[:, 0]), np.fmax.reduce(ranges[:, 1])])
