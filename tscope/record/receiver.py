"""Connections from the processes of a run: one thread each, frames into one inbox."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from tscope.record.inbox import Inbox
from tscope.record.priority import lower_priority

if TYPE_CHECKING:
    from tscope.record.frames import Frame


@dataclass(frozen=True)
class Received:
    """What came on one connection: a frame, or its end (with what was wrong, if anything was)."""

    connection: int
    frame: Frame | None
    problem: str | None = None


class Receiver:
    """Accepts connections until closed.

    Args:
        listener: A bound, listening socket.
        inbox: Where frames go.
    """

    def __init__(self, listener: socket.socket, inbox: Inbox[Received]) -> None:
        self._listener = listener
        self._inbox = inbox
        self._open: dict[int, socket.socket] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._numbers = count()
        self._thread = threading.Thread(target=self._accept, name="tscope-accept", daemon=True)

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    @property
    def expecting(self) -> bool:
        """Whether a connection is open, or waits to be accepted."""
        with self._lock:
            if self._open or self._closed:
                return bool(self._open)
        return bool(select.select([self._listener], [], [], 0)[0])

    def drop(self, connection: int) -> None:
        """Close one connection; its process goes on without the recorder."""
        with self._lock:
            opened = self._open.get(connection)
        if opened is not None:
            _shut(opened)

    def acknowledge(self, connection: int) -> None:
        """Tell a process that an ensemble of trees was taken in, which it waits for before it ends."""
        with self._lock:
            opened = self._open.get(connection)
        if opened is not None:
            with contextlib.suppress(OSError):  # it may have ended without waiting
                opened.send(b"\x01", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close(self) -> None:
        """Take no further connection and close those that are open."""
        with self._lock:
            self._closed = True
            opened = list(self._open.values())
        _shut(self._listener)
        for connection in opened:
            _shut(connection)

    def _accept(self) -> None:
        lower_priority()
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # the listener was closed: the recording is over
                return
            with self._lock:
                if self._closed:
                    connection.close()
                    return
                number = next(self._numbers)
                self._open[number] = connection
            threading.Thread(
                target=self._receive, args=(number, connection), name=f"tscope-receive-{number}", daemon=True
            ).start()

    def _receive(self, number: int, connection: socket.socket) -> None:
        # numpy comes with the frames, and must not be imported before the command was started.
        from tscope.record.frames import FrameError, read_frame
        from tscope.record.shared_memory import SharedMemory, Stream

        problem: str | None = None
        stream = Stream(connection)
        shared: SharedMemory | None = None
        try:
            while (frame := read_frame(stream.receive, shared)) is not None:
                if frame.kind == "memory":
                    shared = SharedMemory(stream.descriptor())
                    continue
                if shared is not None:
                    shared.done()
                if not self._inbox.put(Received(number, frame), frame.size):
                    break
        except FrameError as error:
            # After `drop` or `close` a frame is cut off by ourselves, which is not worth a word.
            problem = None if self._closed else str(error)
        except OSError as error:
            problem = None if self._closed else f"a connection broke: {error}"
        finally:
            with self._lock:
                del self._open[number]
            stream.close()
            self._inbox.put(Received(number, None, problem))


def _shut(connection: socket.socket) -> None:
    """Shut down, which unlike `close` wakes the thread that reads from it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
