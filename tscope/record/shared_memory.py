"""The memory that a recorded process shares with the recorder, as the recorder sees it, and how it comes."""

from __future__ import annotations

import array
import fcntl
import mmap
import os
import socket
from typing import TYPE_CHECKING, Any

import numpy as np

from tscope.record.frames import FrameError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The first page is for the number of frames that were read; arrays lie behind it.
HEAD = 4096
# Memory that cannot be taken away from under a process that reads it.
_SEALED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


class SharedMemory:
    """The other process writes the arrays of its frames here, and uses a place again once its frame was read.

    Args:
        descriptor: Of the memory; closed.

    Raises:
        FrameError: It is no memory of fixed size, or cannot be mapped.
    """

    def __init__(self, descriptor: int) -> None:
        try:
            if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALED != _SEALED:
                raise FrameError("a process offers shared memory whose size can change")
            size = os.fstat(descriptor).st_size
            if size < HEAD:
                raise FrameError(f"a process offers {size} bytes of shared memory, fewer than {HEAD}")
            self._head = mmap.mmap(descriptor, HEAD)
            self._map = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
        except (OSError, ValueError) as error:
            raise FrameError(f"a process offers shared memory that cannot be mapped: {error}") from error
        finally:
            os.close(descriptor)
        self._bytes: NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)
        self._read: NDArray[Any] = np.frombuffer(self._head, np.uint64, count=1)

    def copy(self, offset: int, into: NDArray[np.uint8]) -> None:
        """Copy the bytes from `offset` on.

        Raises:
            FrameError: They do not lie within the memory.
        """
        end = offset + into.size
        if not HEAD <= offset <= end <= self._bytes.size:
            raise FrameError(
                f"a frame has an array at bytes {offset} to {end} of {self._bytes.size} that are shared"
            )
        into[:] = self._bytes[offset:end]

    def done(self) -> None:
        """Say that one more frame was read: its memory may be used again."""
        self._read += 1


class Stream:
    """A connection that brings bytes, and descriptors.

    Args:
        connection: A connected Unix socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._descriptors = array.array("i")
        self._room = socket.CMSG_SPACE(self._descriptors.itemsize)

    def receive(self, into: memoryview) -> int:
        """Fill the front of a buffer, and return how much came; 0 at the end."""
        count, ancillary, _, _ = self._connection.recvmsg_into([into], self._room, socket.MSG_CMSG_CLOEXEC)
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._descriptors.frombytes(
                    data[: len(data) // self._descriptors.itemsize * self._descriptors.itemsize]
                )
        return count

    def descriptor(self) -> int:
        """Return the descriptor that came; it is the caller's from then on.

        Raises:
            FrameError: None came.
        """
        if not self._descriptors:
            raise FrameError("a process offers shared memory, and sends none")
        return self._descriptors.pop()

    def close(self) -> None:
        """Close the connection, and the descriptors nobody asked for."""
        while self._descriptors:
            os.close(self._descriptors.pop())
        self._connection.close()
