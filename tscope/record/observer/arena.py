"""Memory shared with the recorder: what lies in it is not sent, only where it lies."""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import mmap
import os
import socket
from typing import Any, Optional

from .wire import Frame, send

# The first page holds the number of frames that the recorder has read so far, as an uint64.
HEAD = 4096
# A size that can still change would let the one process take memory away from under the other (SIGBUS).
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL if hasattr(fcntl, "F_SEAL_SEAL") else 0

_library: Any = ctypes.CDLL(None, use_errno=True)


class Arena:
    """A piece of memory without a name, mapped here and in the recorder. It is never unmapped.

    No descriptor stays open: the script's own files get the numbers that they would have without us.

    Args:
        size: Bytes; pages that were never used cost nothing.

    Attributes:
        address: Where it lies in this process.

    Raises:
        OSError: The system has no such memory, or no more of it.
    """

    def __init__(self, size: int) -> None:
        self.size = max(size, HEAD)
        self.descriptor = os.memfd_create("tscope", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.descriptor, self.size)
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALS)
            self.address = _map(self.descriptor, self.size)
        except BaseException:
            self.close()
            raise
        self._used = HEAD
        self._read = ctypes.c_uint64.from_address(self.address)

    @property
    def read(self) -> int:
        """How many frames of the connection the recorder has read: their memory may be used again."""
        return self._read.value

    def take(self, size: int) -> int:
        """Return the offset of `size` bytes that were never used; 0 if there are none."""
        start = self._used
        if start + size > self.size:
            return 0
        self._used = start + size
        return start

    def data(self, offset: int, size: int) -> Any:
        """Return some bytes as a buffer."""
        return (ctypes.c_char * size).from_address(self.address + offset)

    def offer(self, connection: socket.socket) -> None:
        """Send the descriptor, with the first frame of the connection, and close it."""
        try:
            numbers = array.array("i", [self.descriptor])
            pieces = Frame("memory", {"size": self.size}).pieces()
            send(connection, pieces, [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])
        finally:
            self.close()

    def close(self) -> None:
        """Close the descriptor; the memory stays."""
        with contextlib.suppress(OSError):
            os.close(self.descriptor)


def shared(size: int) -> Optional[Arena]:
    """Return shared memory, None where the system has none: all goes through the socket then."""
    try:
        return Arena(size) if size and _SEALS else None
    except (OSError, AttributeError):
        return None


def _map(descriptor: int, size: int) -> int:
    # Not mmap.mmap, which keeps a descriptor and closes it by its number, whosever that is by then.
    function = _library.mmap
    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    found = function(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, descriptor, 0)
    if found is None or found == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(found)
