"""The frames that processes of one recording exchange over a stream socket.

`<4sIQ`: magic `tsc1`, header length, payload length; the header is a JSON object with `type`, `blobs`
(name, dtype, shape of each array) and the frame's own fields; the payload is the arrays, one after the other.
An array with a fourth entry, an offset, is not in the payload but in memory that both processes share.
The sender is someone else's process, possibly killed in the middle of a frame: nothing is believed unchecked.
"""

from __future__ import annotations

import json
import math
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

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


# Arrays of a frame begin at multiples of this in memory: torch does not expect less.
_ALIGNMENT = 64


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


class Shared(Protocol):
    """Memory that arrays of frames may lie in."""

    def copy(self, offset: int, into: NDArray[np.uint8]) -> None:
        """Copy the bytes from `offset` on."""


@dataclass(frozen=True)
class _Entry:
    """What a header says of one array."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int  # bytes
    offset: int | None = None  # in shared memory


def read_frame(receive: Receive, shared: Shared | None = None) -> Frame | None:
    """Read one frame.

    Args:
        receive: Fills the front of a buffer and returns how much came, 0 at the end: `socket.recv_into`,
            `file.readinto`.
        shared: The memory that the sender shares.

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
    kind, fields, entries = _header(bytes(header))
    promised = sum(entry.size for entry in entries if entry.offset is None)
    if promised != payload_length:
        raise FrameError(
            f"a `{kind}` frame has {payload_length} bytes of payload, its arrays need {promised}"
        )
    blobs = _arrays(kind, entries, receive, shared)
    size = PREFIX.size + header_length + sum(entry.size for entry in entries)
    return Frame(kind, fields, blobs, size)


def _arrays(kind: str, entries: Sequence[_Entry], receive: Receive, shared: Shared | None) -> dict[str, Blob]:
    """Read the arrays of a frame into one piece of memory."""
    room = sum(-(-entry.size // _ALIGNMENT) * _ALIGNMENT for entry in entries)
    try:
        memory: NDArray[np.uint8] = np.empty(room, np.uint8)
    except (MemoryError, ValueError) as error:
        raise FrameError(f"a `{kind}` frame of {room} bytes does not fit in memory") from error
    blobs: dict[str, Blob] = {}
    start = 0
    for entry in entries:
        values = memory[start : start + entry.size]
        start += -(-entry.size // _ALIGNMENT) * _ALIGNMENT
        if entry.offset is None:
            if _fill(receive, values.data) < entry.size:
                raise FrameError(f"the connection ended within the payload of a `{kind}` frame")
        elif shared is None:
            raise FrameError(
                f"a `{kind}` frame has the array `{clean(entry.name)}` in memory that is not shared"
            )
        else:
            shared.copy(entry.offset, values)
        array = values.view(dtype_of(entry.dtype).numpy).reshape(entry.shape)
        blobs[entry.name] = Blob(array, entry.dtype)
    return blobs


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


def _header(data: bytes) -> tuple[str, dict[str, Any], list[_Entry]]:
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
    return kind, header, [_entry(kind, entry) for entry in blobs]


def _entry(kind: str, entry: object) -> _Entry:
    if not (isinstance(entry, list) and len(entry) in (3, 4)):
        raise FrameError(
            f"a `{kind}` frame has an array without name, dtype and shape: {clean(repr(entry)[:80])}"
        )
    name, dtype, shape, *offset = entry
    if not _is_shape(offset):
        raise FrameError(f"a `{kind}` frame has an array at {clean(repr(offset)[:80])}")
    if not isinstance(name, str) or not _is_shape(shape):
        raise FrameError(f"a `{kind}` frame has an array of shape {clean(repr(shape)[:80])}")
    try:
        storage = dtype_of(str(dtype))
    except RecordError as error:
        raise FrameError(f"the array `{clean(name)}` of a `{kind}` frame: {clean(error)}") from error
    size = math.prod(shape) * storage.numpy.itemsize
    return _Entry(name, storage.name, tuple(shape), size, offset[0] if offset else None)


def _is_shape(shape: object) -> bool:
    return isinstance(shape, Sequence) and all(
        isinstance(length, int) and not isinstance(length, bool) and length >= 0 for length in shape
    )
