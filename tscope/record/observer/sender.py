"""The thread that writes frames to the recorder, and the bounded queue before it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from typing import Callable, Deque, Optional

from .wire import Frame, connect, send

# Waits are cut into short ones, so that a suspended process (Ctrl-Z) does not count its own absence.
_TICK = 1.0
# After so many ticks in which the recorder took nothing at all, it is given up: it must not hold the run forever.
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
        self._limit = limit
        self._failed = failed
        self._frames: Deque[Frame] = deque()
        self._queued = 0
        self._sent = 0
        self._changed = threading.Condition(threading.Lock())
        self._process = os.getpid()
        self.gone = False
        self.wait_ns = 0
        self._thread = threading.Thread(target=self._run, name="tscope-sender", daemon=True)
        self._thread.start()

    def put(self, frame: Frame) -> None:
        """Queue a frame; its blocks are released once it is sent, or at once if the recorder is gone."""
        with self._changed:
            if not self.gone and self._full(frame):
                began = time.perf_counter_ns()
                self._await(lambda: not self._full(frame))
                self.wait_ns += time.perf_counter_ns() - began
            if not self.gone:
                self._frames.append(frame)
                self._queued += frame.size
                self._changed.notify_all()
                return
        frame.release()

    def drain(self) -> None:
        """Wait until everything is sent or the recorder is gone."""
        with self._changed:
            self._await(lambda: self._queued == 0)

    def forked(self) -> None:
        """In the child of a fork: forget the connection, which belongs to the parent."""
        self.gone = True
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _full(self, frame: Frame) -> bool:
        # A frame larger than the queue may enter when it is the only one.
        return self._queued > 0 and self._queued + frame.size > self._limit

    def _await(self, condition: Callable[[], bool]) -> None:
        idle, sent = 0, self._sent
        while not condition() and not self.gone:
            if self._changed.wait(_TICK):
                continue
            idle, sent = (idle + 1, sent) if sent == self._sent else (0, self._sent)
            if idle >= _PATIENCE or not self._thread.is_alive():
                self._leave()

    def _leave(self) -> None:
        self.gone = True
        self._frames.clear()
        self._queued = 0
        self._changed.notify_all()

    def _run(self) -> None:
        connection = self._connection
        while connection is not None:
            with self._changed:
                while not self._frames and not self.gone:
                    self._changed.wait()
                if self.gone:
                    break
                frame = self._frames.popleft()
            try:
                pieces = frame.pieces()
            except Exception as error:
                self._failed(frame, error)
            else:
                try:
                    send(connection, pieces)
                except OSError:
                    with self._changed:
                        self._leave()
                    break
            frame.release()
            with self._changed:
                self._queued -= frame.size
                self._sent += 1
                self._changed.notify_all()
        if connection is not None:
            connection.close()
