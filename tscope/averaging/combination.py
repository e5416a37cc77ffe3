"""Weighted sums of the rows of a run, in one walk over it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tscope.averaging.interpolation import State
from tscope.replay.flat import tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tscope_format.tensors import Tensor as Entry

    from tscope.trace import Trace

    Weights = NDArray[np.float64]
    Blocks = Iterator[tuple[int, dict[str, NDArray[Any]]]]

_COLUMNS = 1 << 16  # parameters that are cast to float64 at once


def combine(trace: Trace, weights: Sequence[Weights], dtype: torch.dtype, memory: float) -> Iterator[State]:
    """Yield Σ_r w_r θ_r, and of the buffers, for each vector of weights.

    Sums are in float64 and then cast. Tensors of integers are those of the last row that has a weight. The
    run is read once for as many averages as fit in memory: 8·P bytes each.

    Args:
        trace: The run.
        weights: For each average the weights of the rows 0, 1, … (row,), as many as it needs; not all zero.
        dtype: Of the floating-point tensors.
        memory: Bound on the sums that are held at once, in bytes; one of them is always.
    """
    reader = trace.reader
    size = sum(entry.size for entry in (*reader.parameters, *reader.buffers))
    group = max(1, int(memory / max(1, 8 * size)))
    for first in range(0, len(weights), group):
        part = weights[first : first + group]
        length = max(len(values) for values in part)
        table = np.zeros((len(part), length))
        for place, values in enumerate(part):
            table[place, : len(values)] = values
        start = int(np.flatnonzero(table.any(0))[0])
        thetas = _sums(reader.theta_blocks(start, length), reader.parameters, table, dtype)
        buffers: list[dict[str, Tensor]] = [{} for _ in part]
        if reader.buffers:
            buffers = _sums(reader.buffer_blocks(start, length), reader.buffers, table, dtype)
        for theta, buffer in zip(thetas, buffers, strict=True):
            yield State(theta, buffer)


def _sums(
    blocks: Blocks, table: Sequence[Entry], weights: Weights, dtype: torch.dtype
) -> list[dict[str, Tensor]]:
    """Return the sums of all averages as named tensors."""
    sums: dict[str, Tensor] = {}
    for first, block in blocks:
        for name, flats in block.items():
            rows = tensor(flats, name)
            part = torch.from_numpy(np.ascontiguousarray(weights[:, first : first + len(rows)]))
            if not bool(part.any()):
                continue
            floating = rows.is_floating_point()
            if name not in sums:
                kind = torch.float64 if floating else rows.dtype
                sums[name] = torch.zeros(len(weights), rows.shape[1], dtype=kind)
            if not floating:
                for place, own in enumerate(part):
                    if bool(own.any()):
                        sums[name][place] = rows[int(own.nonzero()[-1])]
                continue
            for column in range(0, rows.shape[1], _COLUMNS):
                piece = slice(column, column + _COLUMNS)
                _add(sums[name][:, piece], part, rows[:, piece])
    return [
        {
            entry.name: _cast(
                sums[entry.dtype][place, entry.offset : entry.offset + entry.size].view(entry.shape), dtype
            )
            for entry in table
        }
        for place in range(len(weights))
    ]


def _add(sums: Tensor, weights: Tensor, rows: Tensor) -> None:
    """Add weights (average, row) times rows (row, parameter) to sums (average, parameter), in place.

    Rows without a weight are left out, and averages without a row. A row that is not finite, of a run that
    diverged, must not reach averages in which its weight is zero.
    """
    used, active = weights.any(0), weights.any(1)
    chosen = rows[used].double()
    if bool(chosen.isfinite().all()):
        sums[active] += weights[active][:, used] @ chosen
        return
    for place in active.nonzero()[:, 0].tolist():
        own = weights[place] != 0
        sums[place] += weights[place, own] @ rows[own].double()


def _cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value
