"""A flat vector at any row, bit for bit: the anchor before it, and the deltas since."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tscope_format import ulp
from tscope_format.array_reader import ArrayReader
from tscope_format.dtypes import Dtype, NDArray
from tscope_format.errors import TraceError


class ChainReader:
    """Reads the `update` and `anchor` arrays of one vector.

    Attributes:
        dtype: the element type.
        size: stored words of the vector.
        path: path of its group within the trace.
        anchors: number of anchors.
        anchor_rows: rows from one anchor to the next.
    """

    def __init__(self, arrays: Mapping[str, ArrayReader], dtype: Dtype, anchor_rows: int) -> None:
        self.dtype = dtype
        self._anchor = arrays["anchor"]
        self._update = arrays.get("update")
        self.anchor_rows = anchor_rows
        self.anchors, self.size = self._anchor.metadata.shape
        self.path = self._anchor.path.rpartition("/")[0]
        self._cached: tuple[int, list[NDArray]] | None = None

    @property
    def changes(self) -> bool:
        """Whether the vector ever changed; if not, it has one anchor and no updates."""
        return self._update is not None

    @property
    def block_rows(self) -> int:
        """Rows of a chunk, or 0 if the vector never changed."""
        return 0 if self._update is None else self._update.metadata.chunks[0]

    def at(self, row: int) -> NDArray:
        """Return the vector (param,) at a row, as stored words."""
        if self._update is None:
            return self.anchor(0)
        index = row // self.anchor_rows
        return self.follow(self.anchor(index), index * self.anchor_rows, row)

    def follow(self, vector: NDArray, start: int, stop: int) -> NDArray:
        """Return the vector (param,) at row `stop`, given that at row `start`."""
        while start < stop:
            # One block at a time, so that a long way needs no more memory than a short one.
            end = min(stop, (start // self.block_rows + 1) * self.block_rows)
            vector = self.rows(start + 1, end + 1, vector)[-1]
            start = end
        return vector

    def anchor(self, index: int) -> NDArray:
        """Return the vector (param,) at an anchor row."""
        vector: NDArray = self._anchor.read(index, index + 1).reshape(-1)
        if not len(vector) == self.size:
            raise TraceError(f"{self._anchor.trace}: {self._anchor.path} has no anchor {index}")
        return vector

    def rows(self, start: int, stop: int, before: NDArray) -> NDArray:
        """Decode rows.

        Args:
            start: first row, at least 1.
            stop: the row after the last.
            before: (param,) the vector at row `start − 1`.

        Returns:
            (row, param) stored words.
        """
        out = np.empty((stop - start, self.size), self.dtype.word)
        if self._update is None:
            out[...] = before
            return out
        size = self.block_rows
        piece = self._update.metadata.chunks[1]
        at = start
        while at < stop:
            block = at // size
            end = min(stop, (block + 1) * size)
            target = out[at - start : end - start]
            for index, chunk in enumerate(self._block(block)):
                columns = slice(index * piece, (index + 1) * piece)
                first = at - block * size
                ulp.decode_block(
                    before[columns], chunk[:, first : first + end - at], target[:, columns], self.dtype
                )
            before = target[-1]
            at = end
        return out

    def _block(self, block: int) -> list[NDArray]:
        """Return the transposed chunks of a block; the last block is kept, since rows are read in order."""
        if self._cached is None or self._cached[0] != block:
            if self._update is None:
                raise TraceError("a vector without updates has no blocks")
            self._cached = None
            chunks = [self._update.stored_chunk((block, *place)) for place in self._update.places()]
            self._cached = block, chunks
        return self._cached[1]
