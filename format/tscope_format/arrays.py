"""Arrays that grow row by row, written a whole chunk at a time.

The rows of the open block live in memory. A full block is written once; at a flush the open block is written
too, and written again when it has grown: each time whole, so that a chunk never loses a row that it had.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np

from tscope_format.codecs import PLAIN, SHUFFLED, Codec
from tscope_format.disk import Disk
from tscope_format.dtypes import JSON, Dtype, NDArray
from tscope_format.metadata import ArrayMetadata

_BLOCK_BYTES = 1 << 20
_BLOCK_ROWS = 16384
_PIECE_BYTES = 16 << 20


def split_evenly(length: int, limit: int) -> int:
    """Return the size of the pieces, at most `limit`, that cover `length` with the least padding."""
    pieces = max(1, math.ceil(length / max(1, limit)))
    return max(1, math.ceil(length / pieces))


class ArrayWriter:
    """One array whose first axis grows by rows, and whose other axes may grow too.

    Attributes:
        path: its path within the trace.
        rows: rows appended.
        trail: lengths of the axes after the first.
        fill: the value of elements that nothing was appended for.
    """

    def __init__(
        self,
        disk: Disk,
        path: str,
        dims: tuple[str, ...],
        trail: tuple[int, ...],
        dtype: Dtype,
        codec: Codec,
        *,
        chunk_rows: int | None = None,
        piece: tuple[int, ...] | None = None,
        attributes: Mapping[str, JSON] | None = None,
        backfill: int = 0,
    ) -> None:
        """Describe the array; nothing is written before the first full block or flush, but the backfill.

        Args:
            disk: where it is written.
            path: its path within the trace.
            dims: a name for each axis.
            trail: the lengths of the axes after the first.
            dtype: the element type.
            codec: how chunks become bytes.
            chunk_rows: rows of a chunk; by default about 1 MiB of them.
            piece: the chunk's lengths along the other axes; by default whole, or split to 16 MiB.
            attributes: JSON attributes.
            backfill: rows before this array's first one, which are written as fill.
        """
        self.path = path
        self._disk = disk
        word = dtype.word
        held = {"dtype": dtype.name} if word.name != dtype.name else {}
        rows = chunk_rows or min(
            _BLOCK_ROWS, max(1, _BLOCK_BYTES // max(1, math.prod(trail) * word.itemsize))
        )
        chunks = (rows, *(piece or _pieces(trail, word.itemsize)))
        self._form = ArrayMetadata(dims, (0, *trail), chunks, word, codec, {**held, **(attributes or {})})
        self.rows = backfill
        self.trail = trail
        self.fill = self._form.fill
        self._block: NDArray | None = None
        self._dirty = False
        if backfill:
            self._write_fill(range(backfill // rows), self._coordinates(trail))
            self._dirty = backfill % rows > 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the stored words."""
        return self._form.dtype

    @property
    def metadata(self) -> ArrayMetadata:
        """What its `zarr.json` says once everything appended is flushed."""
        return self._form.with_shape((self.rows, *self.trail))

    @property
    def bytes_raw(self) -> int:
        """Size of the rows appended, uncompressed."""
        return self.rows * math.prod(self.trail) * self._form.dtype.itemsize

    def append(self, value: NDArray | float) -> None:
        """Append one row; one that is shorter than the other axes is padded with fill."""
        size = self._form.chunks[0]
        shape = () if isinstance(value, (float, int)) else value.shape
        if size == 1 or shape != self.trail:
            self.extend(np.asarray(value, self._form.dtype)[None])
            return
        index, filled = divmod(self.rows, size)
        block = self._opened()
        block[filled] = value
        self.rows += 1
        self._dirty = True
        if filled + 1 == size:
            self._close_block(index, block)
            block.fill(self.fill)

    def extend(self, values: NDArray) -> None:
        """Append rows (row, …); the other axes may be shorter than the array's."""
        size = self._form.chunks[0]
        exact = values.shape[1:] == self.trail
        corner = tuple(slice(length) for length in values.shape[1:])
        done = 0
        while done < len(values):
            index, filled = divmod(self.rows, size)
            count = min(size - filled, len(values) - done)
            rows = values[done : done + count]
            if exact and count == size:
                self._close_block(index, rows)
            else:
                block = self._opened()
                block[(slice(filled, filled + count), *corner)] = rows
                self._dirty = True
                if filled + count == size:
                    self._close_block(index, block)
                    self._block = None if size == 1 else block
                    block.fill(self.fill)
            done += count
            self.rows += count

    def grow(self, trail: tuple[int, ...]) -> None:
        """Lengthen the axes after the first; earlier rows hold fill there."""
        longer = tuple(max(old, new) for old, new in zip(self.trail, trail, strict=True))
        if longer == self.trail:
            return
        size = self._form.chunks[0]
        known = set(self._coordinates(self.trail))
        self._write_fill(
            range(self.rows // size), [place for place in self._coordinates(longer) if place not in known]
        )
        former, self._block = self._block, None
        self.trail = longer
        if self.rows % size:
            if former is not None:
                self._opened()[tuple(slice(length) for length in former.shape)] = former
            self._dirty = True

    def flush(self) -> None:
        """Write the open block, if it changed since it was last written."""
        if not self._dirty:
            return
        index, filled = divmod(self.rows, self._form.chunks[0])
        self._write_block(index, self._opened()[:filled])
        self._dirty = False

    def _opened(self) -> NDArray:
        if self._block is None:
            shape = (self._form.chunks[0], *self.trail)
            self._block = np.full(shape, self.fill, self._form.dtype)
        return self._block

    def _close_block(self, index: int, rows: NDArray) -> None:
        self._write_block(index, rows)
        self._dirty = False

    def _write_block(self, index: int, rows: NDArray) -> None:
        """Write the chunks of one block of rows (row, …), padded with fill to whole chunks."""
        metadata = self._form
        for place in self._coordinates(self.trail):
            corner = tuple(
                slice(at * length, (at + 1) * length)
                for at, length in zip(place, metadata.chunks[1:], strict=True)
            )
            chunk = rows[(slice(None), *corner)]
            if chunk.shape != metadata.chunks:
                padded = np.full(metadata.chunks, metadata.fill, metadata.dtype)
                padded[tuple(slice(length) for length in chunk.shape)] = chunk
                chunk = padded
            self._disk.write(chunk_key(self.path, (index, *place)), metadata.codec.encode(chunk))

    def _write_fill(self, blocks: range, places: list[tuple[int, ...]]) -> None:
        """Write chunks of fill, so that no chunk within the shape is ever missing."""
        if not blocks or not places:
            return
        metadata = self._form
        parts = metadata.codec.encode(np.full(metadata.chunks, metadata.fill, metadata.dtype))
        for index, place in product(blocks, places):
            self._disk.write(chunk_key(self.path, (index, *place)), parts)

    def _coordinates(self, trail: tuple[int, ...]) -> list[tuple[int, ...]]:
        counts = (
            range(math.ceil(n / length)) for n, length in zip(trail, self._form.chunks[1:], strict=True)
        )
        return list(product(*counts))


def chunk_key(path: str, place: tuple[int, ...]) -> str:
    """Return the key of the chunk at `place` in the chunk grid."""
    return "/".join((path, "c", *map(str, place)))


def write_array(disk: Disk, path: str, data: NDArray, dims: tuple[str, ...], dtype: Dtype) -> ArrayMetadata:
    """Write an array that will not grow, and return its metadata, to be committed."""
    codec = SHUFFLED if data.dtype.kind == "f" else PLAIN
    if data.ndim == 0:
        held = {"dtype": dtype.name} if dtype.word.name != dtype.name else {}
        metadata = ArrayMetadata((), (), (), data.dtype, codec, held)
        disk.write(chunk_key(path, ()), codec.encode(data))
        return metadata
    row_bytes = max(1, math.prod(data.shape[1:]) * data.dtype.itemsize)
    rows = max(1, min(len(data), split_evenly(len(data), _PIECE_BYTES // row_bytes)))
    array = ArrayWriter(disk, path, dims, data.shape[1:], dtype, codec, chunk_rows=rows)
    array.extend(data)
    array.flush()
    return array.metadata


def _pieces(trail: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Split the axes after the first, the outer ones first, until one row of a chunk is at most 16 MiB."""

    def lengths() -> Iterator[int]:
        rest = math.prod(trail) * itemsize
        for length in trail:
            rest = rest // max(1, length)
            over = rest * length > _PIECE_BYTES
            yield split_evenly(length, _PIECE_BYTES // max(1, rest)) if over else max(1, length)

    return tuple(lengths())
