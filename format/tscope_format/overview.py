"""A long scalar at a glance: its range over groups of rows, from the coarsest level that is fine enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tscope_format.array_reader import ArrayReader
from tscope_format.pyramid import LEVELS, level_name


@dataclass(frozen=True)
class Overview:
    """Ranges of a scalar.

    Attributes:
        rows: (group,) first row of each group.
        low: (group,) minimum over the group, NaN if nothing was recorded.
        high: (group,) maximum.
    """

    rows: npt.NDArray[np.int64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]


def overview(arrays: Mapping[str, ArrayReader], name: str, start: int, stop: int, points: int) -> Overview:
    """Return the ranges of `name` between two rows in at least `points` groups, where there are so many rows.

    Groups at a level are aligned to its size. What the level has not completed yet comes from the one below.
    """
    level = next((size for size in reversed(LEVELS) if (stop - start) // size >= points), 1)
    parts = []
    at = start
    for size in sorted((size for size in (1, *LEVELS) if size <= level), reverse=True):
        array = arrays.get(level_name(name, size)) if size > 1 else None
        if size == 1:
            parts.append((np.arange(at, stop), _plain(arrays[name], at, stop)))
        elif array is not None:
            first, last = at // size, min(stop // size, array.metadata.shape[0])
            if last > first:
                parts.append((np.arange(first, last) * size, array.read(first, last)))
                at = last * size
    rows = np.concatenate([part[0] for part in parts])
    ranges = np.concatenate([part[1] for part in parts])
    return Overview(rows, ranges[:, 0], ranges[:, 1])


def _plain(array: ArrayReader, start: int, stop: int) -> npt.NDArray[np.float64]:
    """Return (row, 2) the range at each row: of the groups for `lr`, the norm over all tensors for norms."""
    values = array.read(start, stop).astype(np.float64)
    if array.metadata.dims[1:] == ("tensor",):
        known = ~np.isnan(values).all(axis=1)
        total = np.sqrt(np.nansum(np.square(values), axis=1))
        values = np.where(known, total, np.nan)
    if values.ndim == 1:
        return np.stack([values, values], axis=1)
    return np.stack([np.fmin.reduce(values, axis=1), np.fmax.reduce(values, axis=1)], axis=1)
