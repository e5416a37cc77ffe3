"""The thread that owns the trace: frames in, rows and facts out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tscope_format.errors import RecordError, clean

from tscope.record.heap import keep_freed_memory
from tscope.record.inbox import Inbox
from tscope.record.options import RecordOptions
from tscope.record.outcome import Outcome
from tscope.record.priority import lower_priority
from tscope.record.receiver import Received, Receiver
from tscope.record.session import Session

if TYPE_CHECKING:
    from tscope.record.frames import Frame
    from tscope.record.probe_source import ProbeArrays
    from tscope.record.trace import Recording

FINALISE = 5.0  # seconds after the command's end
RESERVE = 0.7  # of them, for the last commit
STRAGGLERS = 3.0  # of them, for what still comes: the model as data, a process left in the background
TICK = 0.1

Status = Literal["complete", "interrupted", "failed"]
PROJECTOR = -1  # in place of a connection's number


class Ingest:
    """Receives until told that the run has ended; everything that touches the trace happens in its thread.

    Args:
        session: The session folder and its socket.
        out: Where the trace goes.
        options: How to record.
        probe: The probe set that the person named.
        command: What was started.
        pid: Its process.
        say: Tells the person something.
    """

    def __init__(
        self,
        session: Session,
        out: Path,
        options: RecordOptions,
        *,
        probe: ProbeArrays | None,
        command: Sequence[str],
        pid: int,
        say: Callable[[str], None],
    ) -> None:
        self._session = session
        self._out = out
        self._options = options
        self._probe = probe
        self._command = command
        self._pid = pid
        self._say = say
        self._inbox: Inbox[Received] = Inbox()
        self._receiver = Receiver(session.listener, self._inbox)
        self._dropped: set[int] = set()
        self._status: Status = "complete"
        self._reason: str | None = None
        self._ended: float | None = None
        self._finishing = False
        self._still = 0
        self._failure: str | None = None
        self._outcome = Outcome()
        self._thread = threading.Thread(target=self._run, name="tscope-ingest", daemon=True)

    def start(self) -> None:
        """Begin to receive."""
        self._receiver.start()
        self._thread.start()

    def finish(self, status: Status, reason: str | None) -> Outcome:
        """End the recording within `FINALISE` seconds, and return what became of it."""
        self._status, self._reason = status, reason
        self._ended = time.monotonic()
        self._thread.join()
        return self._outcome

    @property
    def running(self) -> bool:
        """Whether it has not been told to finish."""
        return self._ended is None

    def _run(self) -> None:
        try:
            self._record()
        except Exception as error:  # a defect of ours: the run must neither wait for us nor be blamed
            self._outcome = Outcome(failure=f"unexpected {type(error).__name__}: {clean(error)}")
        finally:
            self._receiver.close()
            self._inbox.close()

    def _record(self) -> None:
        lower_priority()
        keep_freed_memory()
        # The command was started before this: numpy and the codecs load while its own imports do.
        from tscope.record.trace import Recording

        recording = Recording(
            self._session,
            self._out,
            self._options,
            probe=self._probe,
            command=self._command,
            pid=self._pid,
            say=self._say,
            deliver=self._deliver,
        )
        try:
            while not self._over(recording):
                received = self._inbox.get(TICK)
                if self._failure is None:
                    self._guard(recording, received)
        finally:
            self._receiver.close()
            self._inbox.close()
            self._outcome = recording.close(self._status, self._reason, self._failure)

    def _deliver(self, frame: Frame) -> None:
        self._inbox.put(Received(PROJECTOR, frame), frame.size)

    def _guard(self, recording: Recording, received: Received | None) -> None:
        """Act on what came; a failure of the trace ends the recording, and never the run."""
        try:
            if received is not None:
                self._take(recording, received)
            recording.tick()
        except RecordError as error:
            self._fail(recording, str(error))
        except Exception as error:  # the boundary of the thread: a defect of ours must be said, not swallowed
            self._fail(recording, f"unexpected {type(error).__name__}: {clean(error)}")

    def _take(self, recording: Recording, received: Received) -> None:
        if received.problem is not None and received.connection not in self._dropped:
            recording.report("connection", received.problem)
        if received.frame is None or received.connection in self._dropped:
            return
        try:
            if received.connection == PROJECTOR:
                recording.projection(received.frame)
            else:
                recording.take(received.connection, received.frame)
                if received.frame.kind == "trees":
                    self._receiver.acknowledge(received.connection)
        except RecordError as error:
            if recording.broken:
                raise
            # The frame is at fault, not the trace: what this process sends further cannot be trusted.
            recording.report(received.frame.kind, str(error))
            self._dropped.add(received.connection)
            self._receiver.drop(received.connection)

    def _fail(self, recording: Recording, reason: str) -> None:
        self._failure = reason
        self._say(f"recording stopped, the run goes on: {clean(reason)}")
        # The processes of the run see their connections end, and go on without hooks.
        self._receiver.close()
        recording.fail(reason)

    def _over(self, recording: Recording) -> bool:
        if self._ended is None:
            return False
        passed = time.monotonic() - self._ended
        if self._failure is not None or passed >= FINALISE - RESERVE:
            return True
        if not self._finishing:
            # Twice in a row, since a connection may be on its way from the listener to its thread.
            still = not self._receiver.expecting and len(self._inbox) == 0
            self._still = self._still + 1 if still else 0
            if passed < STRAGGLERS and self._still < 2:
                return False
            self._finishing = True
            recording.finish(self._ended + FINALISE - RESERVE)
            return False
        return not recording.projecting and len(self._inbox) == 0
