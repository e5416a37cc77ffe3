"""Frames as bytes: what the observer sends, and the connection it sends them on."""

from __future__ import annotations

import json
import socket
import struct
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional, Protocol, Sequence, Tuple

if TYPE_CHECKING:
    import torch  # not at run time: ensembles of trees are sent from processes without it

PREFIX = struct.Struct("<4sIQ")
MAGIC = b"tsc1"
# sendmsg takes at most IOV_MAX (1024) pieces.
_MOST_PIECES = 512

_encode = json.JSONEncoder(separators=(",", ":")).encode

_NAMES: Dict[torch.dtype, str] = {}


def dtype_name(dtype: torch.dtype) -> str:
    """Return torch's name of a dtype without the module: `float32`."""
    name = _NAMES.get(dtype)
    if name is None:
        name = _NAMES[dtype] = str(dtype)[6:]
    return name


class Piece(Protocol):
    """Some bytes.

    Attributes:
        data: They, as a buffer.
        offset: Where they lie in the memory shared with the recorder; 0 if they do not.
    """

    data: Any
    offset: int


class Blob(NamedTuple):
    """An array of a frame: the first `size` bytes of `block`."""

    name: str
    dtype: str
    shape: Tuple[int, ...]
    block: Piece
    size: int


class Frame:
    """One message: a JSON header and the arrays it announces."""

    __slots__ = ("blobs", "fields", "kind", "size")

    def __init__(self, kind: str, fields: Dict[str, Any], blobs: Optional[List[Blob]] = None) -> None:
        self.kind = kind
        self.fields = fields
        self.blobs = blobs or []
        # The header counts too, or a run of tiny frames would not be bounded by the queue.
        self.size = 1024 + sum(blob.size for blob in self.blobs)

    def pieces(self) -> List[Any]:
        """Return the bytes to send, in order: not the arrays that lie in memory which the recorder shares."""
        own = [blob for blob in self.blobs if not blob.block.offset]
        header = {
            "type": self.kind,
            "blobs": [
                (*blob[:3], blob.block.offset) if blob.block.offset else blob[:3] for blob in self.blobs
            ],
        }
        header.update(self.fields)
        text = _encode(header).encode("utf-8")
        prefix = PREFIX.pack(MAGIC, len(text), sum(blob.size for blob in own))
        return [prefix + text, *(memoryview(blob.block.data)[: blob.size] for blob in own if blob.size)]


def connect(path: str) -> socket.socket:
    """Connect to the recorder."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def send(connection: socket.socket, pieces: Sequence[Any], attached: Sequence[Any] = ()) -> None:
    """Send all the pieces; OSError when the other side is gone, never a SIGPIPE.

    Args:
        connection: Where to.
        pieces: Buffers.
        attached: Ancillary data of the first byte, for `socket.sendmsg`.
    """
    waiting = [memoryview(piece) for piece in pieces]
    while waiting:
        sent = connection.sendmsg(waiting[:_MOST_PIECES], attached, socket.MSG_NOSIGNAL)
        attached = ()
        done = 0
        while done < len(waiting) and sent >= len(waiting[done]):
            sent -= len(waiting[done])
            done += 1
        waiting = waiting[done:]
        if sent:
            waiting[0] = waiting[0][sent:]
