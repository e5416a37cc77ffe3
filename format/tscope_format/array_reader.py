"""Reading one array: chunks are found, checked and decoded here, without Zarr's help.

Zarr reads a missing chunk as fill values, without a word. Here every chunk within the committed shape must be
there, whole, and carry the right checksum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from tscope_format.arrays import chunk_key
from tscope_format.codecs import DamagedChunk
from tscope_format.dtypes import NDArray
from tscope_format.errors import TraceError
from tscope_format.metadata import ArrayMetadata


class ArrayReader:
    """One committed array.

    Attributes:
        trace: the trace's folder.
        path: the array's path within the trace.
        metadata: its committed metadata.
    """

    def __init__(self, trace: Path, path: str, metadata: ArrayMetadata) -> None:
        self.trace = trace
        self.path = path
        self.metadata = metadata

    @property
    def blocks(self) -> int:
        """Number of chunks along the first axis; a single value is one chunk."""
        if not self.metadata.shape:
            return 1
        return -(-self.metadata.shape[0] // self.metadata.chunks[0])

    def places(self) -> list[tuple[int, ...]]:
        """Return the chunk grid's places along the axes after the first."""
        shape, chunks = self.metadata.shape[1:], self.metadata.chunks[1:]
        return list(product(*(range(-(-n // length)) for n, length in zip(shape, chunks, strict=True))))

    def read(self, start: int = 0, stop: int | None = None) -> NDArray:
        """Return rows `start` to `stop`, touching only the chunks that hold them.

        Raises:
            TraceError: a chunk is missing or damaged.
        """
        shape = self.metadata.shape
        if not shape:
            return self.chunk(()).copy()
        start, stop, _ = slice(start, stop).indices(shape[0])
        size = self.metadata.chunks[0]
        blocks = range(start // size, -(-stop // size)) if stop > start else range(0)
        self._require(blocks)
        out = np.empty((max(0, stop - start), *shape[1:]), self.metadata.dtype)
        for block in blocks:
            first, last = max(start, block * size), min(stop, (block + 1) * size)
            target = out[first - start : last - start]
            self._read_block(block, slice(first - block * size, last - block * size), target)
        return out

    def take(self, rows: Sequence[int] | NDArray) -> NDArray:
        """Return the rows of the given indices, in their order, each chunk decoded once.

        Raises:
            TraceError: a row does not exist, or a chunk is missing or damaged.
        """
        wanted = np.asarray(rows, np.int64)
        shape = self.metadata.shape
        if wanted.size and (wanted.min() < 0 or wanted.max() >= shape[0]):
            raise TraceError(
                f"{self.trace}: {self.path} has {shape[0]} rows; asked for {wanted.min()} to {wanted.max()}"
            )
        out = np.empty((len(wanted), *shape[1:]), self.metadata.dtype)
        size = self.metadata.chunks[0]
        for block in np.unique(wanted // size):
            places = np.flatnonzero(wanted // size == block)
            rest = np.empty((min(size, shape[0] - block * size), *shape[1:]), self.metadata.dtype)
            self._read_block(int(block), slice(0, len(rest)), rest)
            out[places] = rest[wanted[places] - block * size]
        return out

    def chunk(self, place: tuple[int, ...]) -> NDArray:
        """Return a whole chunk in its logical axis order.

        Raises:
            TraceError: it is missing or damaged.
        """
        metadata = self.metadata
        return self._decoded(place, lambda data: metadata.codec.decode(data, metadata.chunks, metadata.dtype))

    def stored_chunk(self, place: tuple[int, ...]) -> NDArray:
        """Return a whole chunk with its axes as stored, C-contiguous.

        Raises:
            TraceError: it is missing or damaged.
        """
        metadata = self.metadata
        return self._decoded(
            place, lambda data: metadata.codec.decode_stored(data, metadata.chunks, metadata.dtype)
        )

    def rows_of(self, place: tuple[int, ...]) -> tuple[int, int]:
        """Return the first row of a chunk and the one after its last."""
        if not place:
            return 0, 1
        size = self.metadata.chunks[0]
        return place[0] * size, min(self.metadata.shape[0], (place[0] + 1) * size)

    def problem(self, place: tuple[int, ...]) -> str | None:
        """Return what is wrong with a chunk, None if nothing is."""
        try:
            self.metadata.codec.decode_stored(self._bytes(place), self.metadata.chunks, self.metadata.dtype)
        except DamagedChunk as damage:
            return str(damage)
        return None

    def _decoded(self, place: tuple[int, ...], decode: Callable[[bytes], NDArray]) -> NDArray:
        try:
            return decode(self._bytes(place))
        except DamagedChunk as damage:
            first, last = self.rows_of(place)
            raise TraceError(
                f"{self.trace}: the chunk of {self.path} with rows {first} to {last - 1} {damage}; "
                "`tscope verify` lists all damage"
            ) from damage

    def _bytes(self, place: tuple[int, ...]) -> bytes:
        try:
            return (self.trace / chunk_key(self.path, place)).read_bytes()
        except FileNotFoundError:
            raise DamagedChunk("is missing") from None
        except OSError as error:
            raise DamagedChunk(f"cannot be read ({error.strerror})") from error

    def _read_block(self, block: int, rows: slice, target: NDArray) -> None:
        chunks = self.metadata.chunks
        for place in self.places():
            corner = tuple(slice(at * n, (at + 1) * n) for at, n in zip(place, chunks[1:], strict=True))
            part = target[(slice(None), *corner)]
            inner = tuple(slice(length) for length in part.shape[1:])
            part[...] = self.chunk((block, *place))[(rows, *inner)]

    def _require(self, blocks: range) -> None:
        """Refuse a huge array without its last chunk before reserving memory for a false shape."""
        places = self.places()
        if blocks and places and math.prod(self.metadata.shape) * self.metadata.dtype.itemsize > 1 << 30:
            self.chunk((blocks[-1], *places[-1]))
