"""A scalar over steps, read at the resolution that fits: exact rows, or the range of blocks of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tscope_tui.data.steps import Steps

if TYPE_CHECKING:
    from tscope_format import RootReader

# Values read for one curve: 2 MB, and a few ms to draw. Longer traces are read from their pyramid.
BUDGET = 1 << 18
_BLOCKS = (64, 4096)


@dataclass(frozen=True, eq=False)
class Curve:
    """Values over steps (point,). With `block` > 1 each block of rows is two points: its range."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]
    block: int = 1

    def at(self, step: float) -> float:
        """Return the value of the last point at or before a step; NaN when there is none."""
        index = int(self.steps.searchsorted(step, side="right")) - 1
        return float(self.values[index]) if index >= 0 else float("nan")

    @property
    def last(self) -> float:
        """The last finite value, NaN when there is none."""
        finite = self.values[np.isfinite(self.values)]
        return float(finite[-1]) if finite.size else float("nan")

    def joined(self, other: Curve, start: float) -> Curve:
        """Return this curve up to the step `start` (exclusive), and the other from there on."""
        keep = int(self.steps.searchsorted(start))
        return Curve(
            np.concatenate([self.steps[:keep], other.steps]),
            np.concatenate([self.values[:keep], other.values]),
            max(self.block, other.block),
        )


def read_curve(
    root: RootReader, name: str, steps: Steps, start: int = 0, stop: int | None = None
) -> Curve | None:
    """Read rows `start` … `stop` of a scalar array; None if the trace has no such array.

    An array with a second axis (a norm for each tensor) is read as the norm over all tensors.

    Raises:
        TraceError: The rows cannot be read.
    """
    arrays = root.arrays()
    if name not in arrays:
        return None
    stop = steps.rows if stop is None else min(stop, steps.rows)
    shape = arrays[name].shape
    width = int(np.prod(shape[1:], dtype=np.int64)) if len(shape) > 1 else 1
    rows = max(0, stop - start)
    for block in _BLOCKS:
        if rows * width <= BUDGET:
            break
        pyramid = f"{name}_lod{block}"
        if pyramid in arrays and (2 * rows // block <= BUDGET or block == _BLOCKS[-1]):
            return _from_pyramid(root, name, pyramid, block, steps, start, stop)
    return _exact(root, name, steps, start, stop)


def _exact(root: RootReader, name: str, steps: Steps, start: int, stop: int) -> Curve:
    values = np.asarray(root.read(name, start, stop), dtype=np.float64)
    if values.ndim > 1:
        # A tensor without a gradient is NaN, and adds nothing to the norm; a row of only NaN has none.
        flat = values.reshape(len(values), -1)
        known = ~np.isnan(flat).all(axis=1)
        values = np.where(known, np.sqrt(np.nansum(np.square(flat), axis=1)), np.nan)
    return Curve(steps.of(np.arange(start, stop)).astype(np.float64), values)


def _from_pyramid(
    root: RootReader, name: str, pyramid: str, block: int, steps: Steps, start: int, stop: int
) -> Curve:
    begin, end = start // block, stop // block
    pairs = np.asarray(root.read(pyramid, begin, min(end, root.arrays()[pyramid].shape[0])), dtype=np.float64)
    rows = (begin + np.arange(len(pairs))) * block
    # Minimum and maximum at the two ends of their block, so that the curve also spans its steps.
    where = np.stack([rows, rows + block - 1], axis=1).reshape(-1)
    coarse = Curve(steps.of(where).astype(np.float64), pairs.reshape(-1), block)
    rest = (begin + len(pairs)) * block
    return coarse.joined(_exact(root, name, steps, rest, stop), steps.at(rest)) if rest < stop else coarse
