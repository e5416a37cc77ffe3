"""The thread that writes frames to the recorder, and the bounded queue before it."""

from __future__ import annotations

import socket
import threading
import time
from queue import SimpleQueue
from typing import Callable, Optional

from .descriptor import Descriptor
from .wire import Frame, connect, send

# Waits are cut into short ones, so that a suspended process (Ctrl-Z) does not count its own absence.
_TICK = 1.0
# After so many ticks in which the recorder took nothing at all it is given up, for it must not hold the run.
_PATIENCE = 120


class Sender:
    """Sends frames in their order, in a thread of its own.

    Args:
        path: The recorder's socket.
        limit: Bytes that may wait; beyond, whoever adds a frame waits too.
        failed: Called, in the sender's thread, with a frame that could not be encoded and the reason.

    Raises:
        OSError: Nobody listens on the socket.
    """

    def __init__(self, path: str, limit: int, failed: Callable[[Frame, Exception], None]) -> None:
        self._connection: Optional[socket.socket] = connect(path)
        self._descriptor = Descriptor(self._connection.fileno())
        self._limit = limit
        self._failed = failed
        # SimpleQueue hands over in C: a Condition costs the user's thread five times as much.
        self._frames: SimpleQueue[Frame] = SimpleQueue()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0
        self._queued = 0
        self._sent = 0
        self.gone = False
        self.closed_by_script = False
        self.wait_ns = 0
        self._thread = threading.Thread(target=self._run, name="tscope-sender", daemon=True)
        self._thread.start()

    def put(self, frame: Frame) -> None:
        """Queue a frame; its blocks are released once it is sent, or at once if the recorder is gone."""
        with self._lock:
            # The sender's own thread (with a report on a frame) would wait for itself.
            mine = threading.current_thread() is self._thread
            if self._full(frame) and not self.gone and not mine:
                began = time.perf_counter_ns()
                self._await(lambda: not self._full(frame))
                self.wait_ns += time.perf_counter_ns() - began
            gone = self.gone
            self._queued += frame.size
        if gone:
            frame.release()
        else:
            self._frames.put(frame)

    def drain(self) -> None:
        """Wait until everything is sent or the recorder is gone."""
        with self._lock:
            self._await(lambda: self._queued == 0)

    def forked(self) -> None:
        """In the child of a fork: forget the connection, which belongs to the parent."""
        self.gone = True
        if self._connection is not None:
            self._connection.detach()
            self._descriptor.close()
            self._connection = None

    def _full(self, frame: Frame) -> bool:
        # A frame larger than the queue may enter when it is the only one.
        return self._queued > 0 and self._queued + frame.size > self._limit

    def _await(self, condition: Callable[[], bool]) -> None:
        """Wait, with the lock held, until the condition is true or the recorder is gone."""
        self._waiting += 1
        idle, sent = 0, self._sent
        while not condition() and not self.gone:
            if not self._changed.wait(_TICK):
                idle, sent = (idle + 1, sent) if sent == self._sent else (0, self._sent)
                if idle >= _PATIENCE or not self._thread.is_alive():
                    self.gone = True
        self._waiting -= 1

    def _run(self) -> None:
        connection = self._connection
        while connection is not None and not self.gone:
            frame = self._frames.get()
            self._send(connection, frame)
            frame.release()
            with self._lock:
                self._queued -= frame.size
                self._sent += 1
                if self._waiting:
                    self._changed.notify_all()
            del frame  # or its arrays would be kept until the next one comes
        if connection is not None:
            connection.detach()
            self._descriptor.close()

    def _send(self, connection: socket.socket, frame: Frame) -> None:
        try:
            pieces = frame.pieces()
        except Exception as error:
            self._failed(frame, error)
            return
        if not self._descriptor.ours:
            self.gone = self.closed_by_script = True
            return
        try:
            send(connection, pieces)
        except OSError:
            self.gone = True
