"""The thread that writes frames to the recorder, and the bounded queue before it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import deque
from typing import Callable, Deque, Optional

from .descriptor import Descriptor
from .wire import Frame, connect, send

# Waits are cut into short ones, so that a suspended process (Ctrl-Z) does not count its own absence.
_TICK = 1.0
# After so many ticks in which the recorder took nothing at all it is given up, for it must not hold the run.
_PATIENCE = 120
# To wake a thread costs the run's own one 20 µs. While frames come the sender looks for them by itself, and
# sleeps when none came for so many naps; it is only woken then, and when much is waiting.
_NAP = 0.005
_NAPS = 20
_MUCH = 1 / 8  # of the queue


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
        self._frames: Deque[Frame] = deque()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        # Unlocked to wake the thread.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._asleep = False
        self._much = int(_MUCH * limit)
        self._closing = False
        self._waiting = 0
        self._queued = 0
        self._sent = 0
        self.gone = False
        self.closed_by_script = False
        self.wait_ns = 0
        self._thread = threading.Thread(target=self._run, name="tscope-sender", daemon=True)
        self._thread.start()

    def put(self, frame: Frame) -> None:
        """Queue a frame; it is dropped if the recorder is gone."""
        with self._lock:
            if self._full(frame):
                self._make_room(frame)
            self._queued += frame.size
        if self.gone:
            return
        self._frames.append(frame)
        if self._asleep or self._queued > self._much:
            self._wake()

    def close(self) -> None:
        """Wait until everything is sent or the recorder is gone, and end."""
        with self._lock:
            self._await(lambda: self._queued == 0)
        self._closing = True
        self._wake()

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

    def _make_room(self, frame: Frame) -> None:
        # The sender's own thread (with a report on a frame) would wait for itself.
        if not self.gone and threading.current_thread() is not self._thread:
            began = time.perf_counter_ns()
            self._await(lambda: not self._full(frame))
            self.wait_ns += time.perf_counter_ns() - began

    def _await(self, condition: Callable[[], bool]) -> None:
        """Wait, with the lock held, until the condition is true or the recorder is gone."""
        self._waiting += 1
        self._wake()
        idle, sent = 0, self._sent
        while not condition() and not self.gone:
            if not self._changed.wait(_TICK):
                idle, sent = (idle + 1, sent) if sent == self._sent else (0, self._sent)
                if idle >= _PATIENCE or not self._thread.is_alive():
                    self.gone = True
        self._waiting -= 1

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is on its way
            self._bell.release()

    def _rest(self, naps: int) -> None:
        """Wait for frames."""
        if naps < _NAPS:
            self._bell.acquire(timeout=_NAP)
            return
        self._asleep = True
        if not self._frames:  # one may have come just before it could be seen that nobody looks for it
            self._bell.acquire()
        self._asleep = False

    def _run(self) -> None:
        connection = self._connection
        naps = 0
        while connection is not None and not self.gone and not self._closing:
            if not self._frames:
                self._rest(naps)
                naps = naps + 1 if naps < _NAPS else 0
                continue
            naps = 0
            frame = self._frames.popleft()
            self._send(connection, frame)
            with self._lock:
                self._queued -= frame.size
                self._sent += 1
                if self._waiting:
                    self._changed.notify_all()
            del frame  # or its arrays would be kept until the next one comes
        self._frames.clear()
        with self._lock:
            self._changed.notify_all()
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
