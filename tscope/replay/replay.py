"""Walk a recorded run again: parameters and buffers row by row, bit-exact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from tscope_format.errors import UsageError

from tscope.replay.flat import Tensors, named

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.trace import Trace

Blocks = Iterator[tuple[int, dict[str, "NDArray[Any]"]]]

# Anchors are at most this many rows apart: a sparser walk is cheaper by seeking than by reading through.
_ANCHOR_ROWS = 256


class Replay:
    """The states of a run, in order.

    Row 0 is the state before training, row t the state after the t-th recorded update.

    Attributes:
        trace: The trace, at the root that is walked.
        dtype: Floating-point tensors are cast to this; None keeps what was recorded, bit for bit.
    """

    def __init__(self, trace: Trace, root: str | None = None, dtype: torch.dtype | None = None) -> None:
        self.trace = trace if root is None else trace.root(root)
        self.dtype = dtype

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Tensors, Tensors]]:
        """Yield (row, parameters, buffers) for the rows start … stop − 1.

        The tensors are views of a block of rows that is decoded at once; they stay valid as long as they are
        held.
        """
        reader = self.trace.reader
        stop = reader.rows if stop is None else stop
        self._check(start, stop)
        thetas = _single(reader.theta_blocks(start, stop))
        buffers = _single(reader.buffer_blocks(start, stop)) if reader.buffers else None
        for row, theta in thetas:
            buffer = next(buffers)[1] if buffers is not None else {}
            yield row, *self._tensors(theta, buffer)

    def at(self, rows: Sequence[int]) -> Iterator[tuple[int, Tensors, Tensors]]:
        """Yield (row, parameters, buffers) for increasing `rows`, seeking when they lie far apart."""
        if not rows:
            return
        self._check(rows[0], rows[-1] + 1)
        reader = self.trace.reader
        sparse = reader.theta_rows is not None  # without updates there is no way from one row to the next
        if sparse or (rows[-1] - rows[0]) > _ANCHOR_ROWS * len(rows):
            for row in rows:
                buffer = reader.buffer(row) if reader.buffers else {}
                yield row, *self._tensors(reader.theta(row), buffer)
            return
        wanted = set(rows)
        for state in self.rows(rows[0], rows[-1] + 1):
            if state[0] in wanted:
                yield state

    def _tensors(
        self, theta: dict[str, NDArray[Any]], buffer: dict[str, NDArray[Any]]
    ) -> tuple[Tensors, Tensors]:
        reader = self.trace.reader
        return named(reader.parameters, theta, self.dtype), named(reader.buffers, buffer, self.dtype)

    def _check(self, start: int, stop: int) -> None:
        rows = self.trace.reader.rows
        if not 0 <= start <= stop <= rows:
            raise UsageError(f"rows {start} to {stop} were asked for; the trace holds rows 0 to {rows}")


def _single(blocks: Blocks) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """Cut blocks of rows into rows."""
    for first, block in blocks:
        count = len(next(iter(block.values())))
        for k in range(count):
            yield first + k, {dtype: rows[k] for dtype, rows in block.items()}
