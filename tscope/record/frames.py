"""The frames that processes of one recording exchange over a stream socket.

`<4sIQ`: magic `tsc1`, header length, payload length; the header is a JSON object with `type`, `blobs`
(name, dtype, shape of each array) and the frame's own fields; the payload is the arrays, one after the other.
The sender is someone else's process, possibly killed in the middle of a frame: nothing is believed unchecked.
"""

from __future__ import annotations

import json
import math
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from tscope_format.dtypes import dtype_of
from tscope_format.errors import RecordError, clean

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC = b"tsc1"
PREFIX = struct.Struct("<4sIQ")
Receive: TypeAlias = Callable[[memoryview], int]
# The largest header is an exported graph: some hundred bytes a node.
LONGEST_HEADER = 256 << 20


class FrameError(RecordError):
    """A frame is truncated, garbled, or says something that cannot be."""


@dataclass(frozen=True)
class Blob:
    """One array of a frame: its values, and what torch calls their dtype."""

    array: NDArray[Any]
    dtype: str


@dataclass(frozen=True)
class Frame:
    """One message: its type, its fields as they came, and its arrays by name."""

    kind: str
    fields: Mapping[str, Any]
    blobs: Mapping[str, Blob] = field(default_factory=dict)
    size: int = 0

    def _wrong(self, name: str, expected: str) -> FrameError:
        got = "nothing" if name not in self.fields else repr(self.fields[name])[:80]
        return FrameError(f"a `{self.kind}` frame must hold {expected} as `{name}`, it holds {clean(got)}")

    def integer(self, name: str) -> int:
        """Return the field `name`, which must be an integer."""
        value = self.fields.get(name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(name, "an integer")
        return value

    def number(self, name: str, missing: float | None = None) -> float:
        """Return the field `name` as a float; `missing` stands for null."""
        value = self.fields.get(name)
        if value is None and missing is not None:
            return missing
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, "a number")
        return float(value)

    def text(self, name: str) -> str:
        """Return the field `name`, which must be a string."""
        value = self.fields.get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a string")
        return value

    def flag(self, name: str) -> bool:
        """Return the field `name` as a truth value; absent is false."""
        return bool(self.fields.get(name))

    def items(self, name: str) -> list[Any]:
        """Return the field `name`, which must be a list."""
        value = self.fields.get(name)
        if not isinstance(value, list):
            raise self._wrong(name, "a list")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        """Return the field `name`, which must be an object."""
        value = self.fields.get(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "an object")
        return value

    def flats(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the flat vectors `<prefix>:<dtype>` by dtype."""
        start = prefix + ":"
        return {
            name[len(start) :]: blob.array.reshape(-1)
            for name, blob in self.blobs.items()
            if name.startswith(start)
        }


def read_frame(receive: Receive) -> Frame | None:
    """Read one frame.

    Args:
        receive: Fills the front of a buffer and returns how much came, 0 at the end: `socket.recv_into`,
            `file.readinto`.

    Returns:
        The frame, or None when the sender closed the connection between two frames.

    Raises:
        FrameError: The bytes are not a frame, or end within one.
    """
    prefix = bytearray(PREFIX.size)
    got = _fill(receive, memoryview(prefix))
    if got == 0:
        return None
    if got < PREFIX.size:
        raise FrameError(f"the connection ended within the prefix of a frame ({got} of {PREFIX.size} bytes)")
    magic, header_length, payload_length = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise FrameError(
            f"the bytes on the connection are no frame: it starts with {bytes(magic)!r}, not {MAGIC!r}"
        )
    if header_length > LONGEST_HEADER:
        raise FrameError(
            f"a frame claims a header of {header_length} bytes; at most {LONGEST_HEADER} are accepted"
        )
    header = bytearray(header_length)
    if _fill(receive, memoryview(header)) < header_length:
        raise FrameError("the connection ended within the header of a frame")
    kind, fields, layout = _header(bytes(header))
    promised = sum(size for _, _, _, size in layout)
    if promised != payload_length:
        raise FrameError(
            f"a `{kind}` frame has {payload_length} bytes of payload, its arrays need {promised}"
        )
    try:
        payload: NDArray[np.uint8] = np.empty(payload_length, np.uint8)
    except (MemoryError, ValueError) as error:
        raise FrameError(f"a `{kind}` frame of {payload_length} bytes does not fit in memory") from error
    if _fill(receive, payload.data) < payload_length:
        raise FrameError(f"the connection ended within the payload of a `{kind}` frame")
    blobs: dict[str, Blob] = {}
    offset = 0
    for name, dtype, shape, size in layout:
        values = payload[offset : offset + size].view(dtype_of(dtype).numpy).reshape(shape)
        # Arrays of odd length leave those behind them unaligned, which torch does not expect.
        blobs[name] = Blob(values if values.flags.aligned else values.copy(), dtype)
        offset += size
    return Frame(kind, fields, blobs, PREFIX.size + header_length + payload_length)


def write_frame(
    connection: socket.socket, kind: str, fields: Mapping[str, Any], blobs: Mapping[str, Blob] | None = None
) -> None:
    """Send one frame; raises OSError when the other side is gone."""
    blobs = blobs or {}
    arrays = {name: np.ascontiguousarray(blob.array) for name, blob in blobs.items()}
    layout = [[name, blob.dtype, list(blob.array.shape)] for name, blob in blobs.items()]
    header = json.dumps({"type": kind, "blobs": layout, **fields}).encode()
    connection.sendall(
        PREFIX.pack(MAGIC, len(header), sum(array.nbytes for array in arrays.values())) + header
    )
    for array in arrays.values():
        if array.nbytes:
            connection.sendall(array.reshape(-1).view(np.uint8).data)


def _fill(receive: Receive, into: memoryview) -> int:
    """Fill `into` and return the number of bytes that came before the end of the stream."""
    got = 0
    while got < len(into):
        try:
            count = receive(into[got:])
        except ConnectionError:
            break
        if count == 0:
            break
        got += count
    return got


def _header(data: bytes) -> tuple[str, dict[str, Any], list[tuple[str, str, tuple[int, ...], int]]]:
    try:
        header = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"the header of a frame is not JSON ({clean(error)})") from error
    if not isinstance(header, dict) or not isinstance(header.get("type"), str):
        raise FrameError("the header of a frame must be a JSON object with a `type`")
    kind = clean(header.pop("type"))
    blobs = header.pop("blobs", [])
    if not isinstance(blobs, list):
        raise FrameError(f"a `{kind}` frame must list its arrays as `blobs`")
    return kind, header, [_blob(kind, entry) for entry in blobs]


def _blob(kind: str, entry: object) -> tuple[str, str, tuple[int, ...], int]:
    if not (isinstance(entry, list) and len(entry) == 3):
        raise FrameError(
            f"a `{kind}` frame has an array without name, dtype and shape: {clean(repr(entry)[:80])}"
        )
    name, dtype, shape = entry
    if not isinstance(name, str) or not _is_shape(shape):
        raise FrameError(f"a `{kind}` frame has an array of shape {clean(repr(shape)[:80])}")
    try:
        storage = dtype_of(str(dtype))
    except RecordError as error:
        raise FrameError(f"the array `{clean(name)}` of a `{kind}` frame: {clean(error)}") from error
    return name, storage.name, tuple(shape), math.prod(shape) * storage.numpy.itemsize


def _is_shape(shape: object) -> bool:
    return isinstance(shape, Sequence) and all(
        isinstance(length, int) and not isinstance(length, bool) and length >= 0 for length in shape
    )
