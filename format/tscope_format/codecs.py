"""The codec chains of format 1, as bytes in and out, and as Zarr metadata.

Two chains exist. *Shuffled*, for floats and deltas: [transpose] → bytes → blosc(zstd 1, shuffle) → crc32c.
*Plain*, for the rest: bytes → zstd 1 → crc32c. Both are in Zarr's core specification, so any Zarr v3 reader
decodes them. The checksum is not optional: without it 23 of 24 flipped bits read back silently.

numcodecs and crc32c are imported when the first chunk is coded, since importing them costs as much as numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tscope_format.dtypes import JSON, NDArray

_BLOSC_HEADER = 16
_CRC_BYTES = 4
_BLOCKSIZE = 1 << 20


class DamagedChunk(Exception):
    """A chunk's bytes are not what was written; the message says what is wrong, the caller adds where."""


@cache
def _blosc() -> Any:
    from numcodecs import blosc

    # A thread pool that outlives forks and steals the trained model's cores; zarr-python sets the same.
    blosc.use_threads = False
    return blosc


@cache
def _zstd() -> Any:
    from numcodecs import zstd

    return zstd


@cache
def _crc32c() -> Any:
    import google_crc32c

    return google_crc32c


@dataclass(frozen=True)
class Codec:
    """How the chunks of one array become bytes.

    Attributes:
        shuffled: blosc with byte shuffle (floats, deltas) rather than plain zstd.
        order: the axes' order in the stored chunk; `None` leaves it as it is.
    """

    shuffled: bool
    order: tuple[int, ...] | None = None

    @classmethod
    def time_last(cls, dimensions: int) -> Codec:
        """Return the shuffled chain that stores axis 0 last, so that one element's values are neighbours."""
        return cls(True, (*range(1, dimensions), 0) if dimensions > 1 else None)

    def encode(self, chunk: NDArray) -> list[bytes]:
        """Return the stored bytes of a whole chunk, in parts to be written one after the other."""
        stored = np.ascontiguousarray(chunk if self.order is None else chunk.transpose(self.order))
        return self.encode_stored(stored)

    def encode_stored(self, stored: NDArray) -> list[bytes]:
        """Return the stored bytes of a C-contiguous chunk whose axes are already in stored order."""
        if self.shuffled:
            # blosc takes the element size for the shuffle from the buffer, which must not be a 0-d array.
            packed = _blosc().compress(stored.reshape(-1), b"zstd", 1, 1, _BLOCKSIZE)
        else:
            packed = _zstd().compress(stored.reshape(-1), 1)
        checksum: int = _crc32c().value(packed)
        return [packed, checksum.to_bytes(_CRC_BYTES, "little")]

    def decode(self, data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray:
        """Return a whole chunk in its logical axis order (a view when transposed).

        Raises:
            DamagedChunk: the checksum or the decoded size is wrong.
        """
        stored = self.decode_stored(data, shape, dtype)
        if self.order is None:
            return stored
        return stored.transpose(np.argsort(self.order))

    def decode_stored(self, data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray:
        """Return a whole chunk of logical `shape` with its axes in stored order, C-contiguous."""
        if len(data) <= _CRC_BYTES:
            raise DamagedChunk(f"is cut short ({len(data)} bytes)")
        packed, checksum = data[:-_CRC_BYTES], int.from_bytes(data[-_CRC_BYTES:], "little")
        found: int = _crc32c().value(packed)
        if found != checksum:
            raise DamagedChunk(f"has a wrong checksum (found {found:08x}, stored {checksum:08x})")
        stored = np.empty(shape if self.order is None else tuple(shape[axis] for axis in self.order), dtype)
        try:
            self._unpack(packed, stored)
        except (RuntimeError, ValueError) as error:
            raise DamagedChunk(f"cannot be decompressed ({error})") from error
        return stored

    def _unpack(self, packed: bytes, stored: NDArray) -> None:
        if not self.shuffled:
            _zstd().decompress(packed, stored)
            return
        # The decoder trusts the size in blosc's header, so a foreign one must be refused first.
        size = int.from_bytes(packed[4:8], "little") if len(packed) >= _BLOSC_HEADER else 0
        if size != stored.nbytes:
            raise DamagedChunk(f"holds {size} bytes, expected {stored.nbytes}")
        _blosc().decompress(packed, stored)

    def to_json(self, dtype: np.dtype[Any]) -> list[JSON]:
        """Return the `codecs` entry of Zarr metadata."""
        codecs: list[JSON] = []
        if self.order is not None:
            codecs.append({"name": "transpose", "configuration": {"order": list(self.order)}})
        one_byte = dtype.itemsize == 1
        codecs.append({"name": "bytes"} if one_byte else _LITTLE_ENDIAN)
        codecs.append(_blosc_json(dtype.itemsize) if self.shuffled else _ZSTD)
        return [*codecs, {"name": "crc32c"}]

    @classmethod
    def from_json(cls, codecs: list[JSON], dtype: np.dtype[Any]) -> Codec:
        """Return the chain that `codecs` describes.

        Raises:
            ValueError: it is not one of format 1.
        """
        names = [codec["name"] for codec in codecs]
        order = tuple(codecs[0]["configuration"]["order"]) if names[0] == "transpose" else None
        codec = cls("blosc" in names, order)
        expected = [entry["name"] for entry in codec.to_json(dtype)]
        if names != expected or codecs[names.index("bytes")] not in ({"name": "bytes"}, _LITTLE_ENDIAN):
            raise ValueError(f"codecs {' → '.join(names)}, expected {' → '.join(expected)}")
        return codec


PLAIN = Codec(shuffled=False)
SHUFFLED = Codec(shuffled=True)

_LITTLE_ENDIAN: JSON = {"name": "bytes", "configuration": {"endian": "little"}}
_ZSTD: JSON = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}


def _blosc_json(typesize: int) -> JSON:
    configuration = {
        "typesize": typesize,
        "cname": "zstd",
        "clevel": 1,
        "shuffle": "shuffle",
        "blocksize": _BLOCKSIZE,
    }
    return {"name": "blosc", "configuration": configuration}
