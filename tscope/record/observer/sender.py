"""The thread that writes frames to the recorder, and the bounded queue before it."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import deque
from typing import Callable, Deque, Optional

from .arena import Arena
from .descriptor import Descriptor
from .wire import Frame, connect, send

# Waits are cut into short ones, so that a suspended process (Ctrl-Z) does not count its own absence.
_TICK = 1.0
# After so many ticks in which the recorder took nothing at all it is given up, for it must not hold the run.
_PATIENCE = 120
# To wake a thread costs the run's own one 20 µs. While frames come the sender looks for them by itself, and
# sleeps when none came for so many naps; it is only woken then, and when much is waiting. Naps are long:
# frames one after the other cost half of what each costs alone, since the run's own work fills the caches.
_NAP = 0.05
_NAPS = 20
_SHORT_NAP = 0.001  # while somebody waits for room
_MUCH = 1 / 8  # of the queue
_LAST = 10.0


class Sender:
    """Sends frames in their order, in a thread of its own.

    Args:
        path: The recorder's socket.
        limit: Bytes that may wait; beyond, whoever adds a frame waits too.
        failed: Called, in the sender's thread, with a frame that could not be encoded and the reason.
        arena: The memory that frames lie in. They wait until the recorder has read them; without such memory,
            until they are sent.

    Raises:
        OSError: Nobody listens on the socket.
    """

    def __init__(
        self,
        path: str,
        limit: int,
        failed: Callable[[Frame, Exception], None],
        arena: Optional[Arena] = None,
    ) -> None:
        self._connection: Optional[socket.socket] = connect(path)
        if arena is not None:
            arena.offer(self._connection)
        self._descriptor = Descriptor(self._connection.fileno())
        self._arena = arena
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
        # Those in shared memory which were sent, and are not known to be read.
        self._unread: Deque[Frame] = deque()
        self._unread_bytes = 0
        self._read = 0
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
        if self._asleep or self._queued - self._unread_bytes > self._much:
            self._wake()

    def drain(self) -> None:
        """Wait until everything is sent or the recorder is gone."""
        with self._lock:  # shared memory outlives this process, until the recorder has read it
            self._await(lambda: self._queued == self._unread_bytes)

    def close(self) -> None:
        """Wait until everything is sent or the recorder is gone, and end."""
        self.drain()
        self._closing = True
        self._wake()
        self.join()

    def join(self) -> None:
        """Wait for the thread's end.

        It lets go of tensors, which gives the interpreter's lock away and takes it back within C++. When the
        interpreter ends, that is the end of the thread, and C++ would abort the process.
        """
        if threading.current_thread() is not self._thread:
            self._thread.join(_LAST)  # one that hangs in a call to the system lets go of nothing

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
        idle, done = 0, self._progress()
        while not condition() and not self.gone:
            if not self._changed.wait(_TICK):
                idle, done = (idle + 1, done) if done == self._progress() else (0, self._progress())
                if idle >= _PATIENCE or not self._thread.is_alive():
                    self.gone = True
        self._waiting -= 1

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is on its way
            self._bell.release()

    def _progress(self) -> int:
        return self._sent + self._read

    def _rest(self, naps: int) -> None:
        """Wait for frames."""
        if self._unread or naps < _NAPS:
            self._bell.acquire(timeout=_SHORT_NAP if self._waiting else _NAP)
            return
        self._asleep = True
        if not self._frames:  # one may have come just before it could be seen that nobody looks for it
            self._bell.acquire()
        self._asleep = False

    def _run(self) -> None:
        connection = self._connection
        naps = 0
        while connection is not None and not self.gone and not self._closing:
            if self._arena is not None and self._unread:
                self._collect(self._arena)
            if not self._frames:
                self._rest(naps)
                naps = naps + 1 if naps < _NAPS else 0
                continue
            naps = 0
            self._send(connection, self._frames.popleft())
        self._frames.clear()
        self._unread.clear()
        with self._lock:
            self._changed.notify_all()
        if connection is not None:
            connection.detach()
            self._descriptor.close()

    def _send(self, connection: socket.socket, frame: Frame) -> None:
        sent = False
        try:
            pieces = frame.pieces()
        except Exception as error:
            self._failed(frame, error)
        else:
            if not self._descriptor.ours:
                self.gone = self.closed_by_script = True
                return
            try:
                send(connection, pieces)
                sent = True
            except OSError:
                self.gone = True
        with self._lock:
            self._sent += 1
            if sent and self._arena is not None:
                self._unread.append(frame)
                self._unread_bytes += frame.size
            else:
                self._queued -= frame.size
            if self._waiting:
                self._changed.notify_all()

    def _collect(self, arena: Arena) -> None:
        """Let go of the frames that the recorder has read; see whether it is there to read the others."""
        read = arena.read
        if self._read < read:
            with self._lock:
                while self._unread and self._read < read:
                    frame = self._unread.popleft()
                    self._read += 1
                    self._unread_bytes -= frame.size
                    self._queued -= frame.size
                if self._waiting:
                    self._changed.notify_all()
        elif not self._frames and self._hung_up():
            self.gone = True

    def _hung_up(self) -> bool:
        if not self._descriptor.ours:
            self.closed_by_script = True
            return True
        poll = select.poll()
        poll.register(self._descriptor.number, 0)
        return bool(poll.poll(0))
