"""A flat vector followed through the run: ulp deltas at every row, the vector itself at every anchor row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tscope_format import ulp
from tscope_format.arrays import ArrayWriter, chunk_key, split_evenly
from tscope_format.codecs import SHUFFLED, Codec
from tscope_format.disk import Disk
from tscope_format.dtypes import JSON, Dtype, NDArray, dtype_of
from tscope_format.metadata import ArrayMetadata

ANCHOR_ROWS = 256
"""Rows from one full copy of the vector to the next."""

_BLOCK_BYTES = 64 << 20
_BLOCK_ROWS = 64
_PIECE = 262_144
# glibc gives memory beyond 32 MB back at once: buffers of a larger chunk would be page faults at every block.
_CHUNK_BYTES = 24 << 20


def group_name(prefix: str, dtype: str) -> str:
    """Return the name of the group that holds the vector of `dtype`: float32 has the plain prefix."""
    return prefix if dtype == "float32" else f"{prefix}_{dtype}"


def piece_of(size: int) -> int:
    """Return the chunk length along a vector of `size` words: at most 262144, with the least padding."""
    return split_evenly(size, _PIECE)


class ChainWriter:
    """Writes `update`, `anchor` and `anchor_step` of one vector.

    A vector that never changes has one anchor and no updates: they start with the first change, and the rows
    before it are filled with zero deltas.

    Attributes:
        path: path of the group within the trace.
        rows: rows appended.
    """

    def __init__(
        self, disk: Disk, path: str, dtype: Dtype, axis: str, initial: NDArray, *, fixed: bool
    ) -> None:
        """Write the vector of row 0.

        Args:
            disk: where it is written.
            path: path of the group within the trace.
            dtype: the element type.
            axis: name of the vector's axis.
            initial: (param,) stored words at row 0.
            fixed: whether the vector is expected not to change.
        """
        self.path = path
        self.rows = 0
        self._disk = disk
        self._dtype = dtype
        self._size = initial.size
        row_bytes = max(1, initial.nbytes)
        self._block_rows = min(_BLOCK_ROWS, max(1, _BLOCK_BYTES // row_bytes))
        column_bytes = self._block_rows * initial.itemsize
        self._piece = split_evenly(initial.size, min(_PIECE, _CHUNK_BYTES // column_bytes))
        codec = Codec.time_last(2)
        chunks = (self._block_rows, self._piece)
        self._update = ArrayMetadata(
            ("step", axis), (0, self._size), chunks, dtype.unsigned, codec, {"code": "ulp-zigzag"}
        )
        # Row 0 of the block is the state before it.
        self._block = np.empty((1 if fixed else self._block_rows + 1, self._size), dtype.word)
        self._block[0] = initial
        self._chunk: NDArray | None = None
        self._filled = 0
        self._fixed = fixed
        self._dirty = False
        self._anchors = ArrayWriter(
            disk,
            f"{path}/anchor",
            ("anchor", axis),
            (self._size,),
            dtype,
            SHUFFLED,
            chunk_rows=1,
            piece=(piece_of(initial.size),),
        )
        self._anchor_steps = ArrayWriter(
            disk, f"{path}/anchor_step", ("anchor",), (), dtype_of("int64"), Codec(shuffled=False)
        )
        self._steps: list[int] = []

    @property
    def last(self) -> NDArray:
        """(param,) stored words of the last row; valid until the next append."""
        last: NDArray = self._block[self._filled]
        return last

    @property
    def anchors(self) -> int:
        """Number of anchors appended."""
        return self._anchors.rows

    def arrays(self) -> dict[str, ArrayMetadata]:
        """Return the metadata of the arrays that exist, by path within the trace."""
        found = {array.path: array.metadata for array in (self._anchors, self._anchor_steps)}
        if not self._fixed:
            found[f"{self.path}/update"] = self._update.with_shape((self.rows, self._size))
        return found

    def groups(self) -> dict[str, Mapping[str, JSON]]:
        """Return the attributes of the group, by path within the trace."""
        return {self.path: {"dtype": self._dtype.name, "anchor_rows": ANCHOR_ROWS}}

    @property
    def bytes_raw(self) -> int:
        """Size of the vectors appended, uncompressed."""
        return (0 if self._fixed else self.rows) * self._size * self._dtype.word.itemsize

    def append(self, step: int, vector: NDArray | None) -> None:
        """Append a row.

        Args:
            step: the step count of the row.
            vector: (param,) stored words, or None if it did not change.
        """
        if self._fixed and self.rows % ANCHOR_ROWS == 0:
            self._steps.append(step)
        if self._fixed and vector is not None and self.rows > 0 and not _same(vector, self.last):
            self._start()
        if not self._fixed:
            row = self._filled + 1
            self._block[row] = self._block[row - 1] if vector is None else vector
            self._filled = row
            self._dirty = True
        if self.rows % ANCHOR_ROWS == 0 and (self.rows == 0 or not self._fixed):
            self._append_anchor(self.last, step)
        self.rows += 1
        if self._filled == self._block_rows:
            self._close_block()

    def settle(self) -> None:
        """Do nothing: every row is there already."""

    def flush(self) -> None:
        """Write the open block whole, if it changed since it was last written."""
        self._anchors.flush()
        self._anchor_steps.flush()
        if self._dirty:
            self._write_block()
            self._dirty = False

    def _append_anchor(self, vector: NDArray, step: int) -> None:
        self._anchors.extend(vector[None])
        self._anchor_steps.append(step)

    def _start(self) -> None:
        """Begin the updates of a vector that did not change up to now."""
        self._fixed = False
        initial = self._block[0].copy()
        self._block = np.empty((self._block_rows + 1, self._size), self._dtype.word)
        whole, self._filled = divmod(self.rows, self._block_rows)
        self._block[: self._filled + 1] = initial
        zeros = np.zeros((self._piece, self._block_rows), self._dtype.unsigned)
        parts = self._update.codec.encode_stored(zeros)
        for index in range(whole):
            for piece in range(self._pieces):
                self._disk.write(chunk_key(f"{self.path}/update", (index, piece)), parts)
        for step in self._steps[1 : (self.rows - 1) // ANCHOR_ROWS + 1]:
            self._append_anchor(initial, step)

    @property
    def _pieces(self) -> int:
        return -(-self._size // self._piece)

    def _close_block(self) -> None:
        self._write_block()
        self._dirty = False
        self._block[0] = self._block[self._filled]
        self._filled = 0

    def _write_block(self) -> None:
        """Encode the open block into its chunks, straight into their transposed layout."""
        if self._chunk is None:
            self._chunk = np.zeros((self._piece, self._block_rows), self._dtype.unsigned)
        chunk = self._chunk
        index = (self.rows - 1) // self._block_rows
        rows = self._block[: self._filled + 1]
        for piece in range(self._pieces):
            part = rows[:, piece * self._piece : (piece + 1) * self._piece]
            ulp.encode_block(part, chunk, self._dtype)
            chunk[part.shape[1] :] = 0
            chunk[:, self._filled :] = 0
            key = chunk_key(f"{self.path}/update", (index, piece))
            self._disk.write(key, self._update.codec.encode_stored(chunk))


def _same(left: NDArray, right: NDArray) -> bool:
    """Return whether two vectors have the same bits, so that −0 differs from 0 and a NaN equals itself."""
    width = f"u{left.dtype.itemsize}"
    return bool(np.array_equal(left.view(width), right.view(width)))
