"""The recorder's side of the projections: states wait here, and go one by one to the projecting process.

States come much faster than they can be projected. So the backlog is bounded and thinned, and no more is sent
than the process can do; the recorder itself never waits.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tscope_format.dtypes import JSON
from tscope_format.errors import clean

from tscope.record.backlog import LIMIT, Backlog, State
from tscope.record.frames import Blob, Frame, FrameError, read_frame, write_frame
from tscope.record.priority import end_lowest_priority, lower_priority
from tscope.record.probe_source import ProbeArrays
from tscope.record.scale import Scale

Message: TypeAlias = tuple[str, dict[str, Any], dict[str, Blob]]

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tscope_format.tensors import Tensor

PROCESS = "tscope.record.projection"
IN_FLIGHT = 2  # one being projected, one waiting in the socket
HISTORY = LIMIT // 2
PACE_OF = 15


@dataclass
class Lane:
    """The projections of one root.

    Attributes:
        first: The state before training.
        pending: States to be projected.
        history: States from the beginning on, for a probe set that is chosen late; None when none will be.
        latest: The newest state, projected last in any case.
        probe: The set that is followed.
        at: The step that was sent last, None when a set has just begun.
        recent: Seconds that the last few states took.
        scale: The steps that are taken; None: all.
    """

    first: State
    pending: Backlog = field(default_factory=Backlog)
    history: Backlog | None = None
    latest: State | None = None
    probe: str | None = None
    has_program: bool = False
    stopped: bool = False
    finishing: bool = False
    finished: bool = False
    at: int | None = None
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=PACE_OF))
    scale: Scale | None = None

    @property
    def ready(self) -> bool:
        """Whether states can be projected."""
        return self.has_program and self.probe is not None and not self.stopped


class Projector:
    """Feeds the projecting process.

    Args:
        deliver: Called (from a thread of its own) with the process's `chosen`, `row` and `failed` frames.
        functional: What is followed of the outputs, as `--probe-output` says.
        log: A file for what the process writes on stderr.
        columns: Of sketches, which are taken in place of projections, and at a few steps only; 0: project.
        every: Steps from one recorded row to the next.
        clock: Seconds.
    """

    def __init__(
        self,
        deliver: Callable[[Frame], None],
        *,
        functional: str | None,
        log: Path,
        columns: int = 0,
        every: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deliver = deliver
        self._functional = functional or "auto"
        self._log = log
        self._columns = columns
        self._every = every
        self._clock = clock
        self._lanes: dict[str, Lane] = {}
        self._changed = threading.Condition()
        self._outbox: deque[Message] = deque()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._in_flight = 0
        self._deadline: float | None = None
        self._closed = False
        self.problem: str | None = None

    @property
    def _what(self) -> str:
        return "sketches" if self._columns else "projections"

    def start(self) -> None:
        """Start the process, once; it loads torch, so this waits until the script has done so."""
        if self._process is not None or self._closed:
            return
        try:
            self._connection, theirs = socket.socketpair()
            with theirs, self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", PROCESS, str(theirs.fileno()), str(self._columns)],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # Ctrl-C is for the script: the recorder decides when the projections end. Not a new
                    # session: Linux may schedule those as groups, among which no priority counts.
                    process_group=0,
                )
        except OSError as error:
            self._closed = True
            if self._connection is not None:
                self._connection.close()
            self.problem = f"no {self._what}: their process could not be started: {clean(error.strerror)}"
            return
        for work in (self._send, self._receive):
            name = f"tscope-{self._what}{work.__name__}"
            threading.Thread(target=work, args=(self._connection,), name=name, daemon=True).start()

    def add_root(
        self, root: str, parameters: Sequence[Tensor], buffers: Sequence[Tensor], first: State, *, late: bool
    ) -> None:
        """Begin a lane; `late`: a probe set may still be chosen after others, so keep the states so far."""
        tables = {"root": root, "parameters": _entries(parameters), "buffers": _entries(buffers)}
        with self._changed:
            scale = Scale(self._every) if self._columns else None
            if scale is not None:
                scale.due(first.step)
            lane = Lane(first.copy(), history=Backlog(HISTORY) if late else None, scale=scale)
            self._lanes[root] = lane
            self._outbox.append(("root", tables, {}))
            self._changed.notify_all()

    def set_program(self, root: str, graph: Mapping[str, JSON], constants: Mapping[str, Blob]) -> None:
        """Give the model of a root as data; from now on its states can be projected."""
        with self._changed:
            self._lanes[root].has_program = True
            self._outbox.append(("program", {"root": root, "graph": graph}, dict(constants)))
            self._changed.notify_all()

    def set_probe(self, root: str, probe: ProbeArrays, *, final: bool) -> None:
        """Follow this set from the first state on; one that was followed before ends here."""
        with self._changed:
            lane = self._lanes[root]
            if lane.at is not None:
                self._outbox.append(("finish", {"root": root, "final": False}, {}))
            lane.probe, lane.at = probe.name, None
            if lane.history is not None:
                lane.pending.merge(lane.history)
            if final:
                lane.history = None
            blobs = {f"input:{k}": blob for k, blob in enumerate(probe.inputs)}
            if probe.target is not None:
                blobs["target"] = probe.target
            fields = {"root": root, "probe": probe.name, "functional": self._functional}
            self._outbox.append(("probe", fields, blobs))
            self._changed.notify_all()

    def add(self, root: str, state: State) -> None:
        """Take in the state after a step; it is copied if it is to wait."""
        with self._changed:
            lane = self._lanes[root]
            if lane.stopped:
                return
            lane.latest = state
            if lane.scale is not None and not lane.scale.due(state.step):
                return
            backlogs = [backlog for backlog in (lane.pending, lane.history) if backlog is not None]
            wanting = [backlog for backlog in backlogs if backlog.wants()]
            if wanting:
                kept = state.copy()
                for backlog in wanting:
                    backlog.add(kept)
                self._changed.notify_all()

    def stop(self, root: str) -> None:
        """Give up on a root: its model or its probe set cannot be evaluated."""
        with self._changed:
            self._stop(self._lanes[root])
            self._changed.notify_all()

    def finish(self, deadline: float) -> None:
        """Project what can be done until `deadline` (on the clock), the last state in any case."""
        if self._process is not None:
            end_lowest_priority(self._process.pid)
        with self._changed:
            self._deadline = deadline
            for lane in self._lanes.values():
                newest = max([*lane.pending.steps[-1:], lane.first.step if lane.at is None else lane.at])
                if lane.latest is not None and lane.latest.step > newest:
                    lane.pending.add(lane.latest.copy())
            self._changed.notify_all()

    @property
    def busy(self) -> bool:
        """Whether, after `finish`, anything is still to come."""
        with self._changed:
            alive = self._process is not None and self.problem is None
            return alive and any(lane.ready and not lane.finished for lane in self._lanes.values())

    def close(self) -> None:
        """End the process, whatever it does."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._process is not None and self._connection is not None:
            self._process.kill()
            self._process.wait()
            self._connection.close()

    def _send(self, connection: socket.socket) -> None:
        lower_priority()
        while True:
            with self._changed:
                message = self._next()
                while message is None and not self._closed:
                    self._changed.wait()
                    message = self._next()
            if message is None or self._closed:
                return
            try:
                write_frame(connection, *message)
            except OSError:
                return  # the receiving thread says why

    def _next(self) -> Message | None:
        """Return what to send now, None if nothing: announcements first, then states, lane by lane."""
        if self._outbox:
            return self._outbox.popleft()
        if self._in_flight >= IN_FLIGHT:
            return None
        for root, lane in self._lanes.items():
            if not lane.ready or lane.finishing:
                continue
            if lane.at is None:
                return self._state(root, lane, lane.first)
            if self._deadline is not None:
                lane.pending.thin(self._affordable(lane))
            if len(lane.pending):
                return self._state(root, lane, lane.pending.pop())
            if self._deadline is not None:
                lane.finishing = True
                return "finish", {"root": root, "final": True}, {}
        return None

    def _state(self, root: str, lane: Lane, state: State) -> Message:
        self._in_flight += 1
        lane.at = state.step
        blobs = {**_blobs("theta", state.theta), **_blobs("buffer", state.buffer)}
        hurry = self._deadline is not None
        return "state", {"root": root, "step": state.step, "hurry": hurry}, blobs

    def _affordable(self, lane: Lane) -> int:
        """Return how many states can be projected until the deadline, at the pace of those before."""
        if not lane.recent or self._deadline is None:
            return 1
        # The median: the first state, and now and then another, has something to set up.
        pace = statistics.median(lane.recent) * max(1, sum(other.ready for other in self._lanes.values()))
        return max(1, int((self._deadline - self._clock()) / max(pace, 1e-6)) - IN_FLIGHT)

    def _receive(self, connection: socket.socket) -> None:
        lower_priority()
        ended = "its process ended"
        try:
            while (frame := read_frame(connection.recv_into)) is not None:
                self._received(frame)
        except (OSError, FrameError) as error:
            ended = clean(error)
        with self._changed:
            if not self._closed:
                self.problem = f"{self._what} stopped: {_last_line(self._log) or ended}"
            self._changed.notify_all()

    def _received(self, frame: Frame) -> None:
        if frame.kind == "ready":
            return
        root = frame.text("root")
        with self._changed:
            lane = self._lanes[root]
            if frame.kind == "taken":
                self._in_flight -= 1
                lane.recent.append(frame.number("seconds"))
            elif frame.kind == "failed":
                self._stop(lane)
            self._changed.notify_all()
        if frame.kind in ("chosen", "row", "sketched", "failed"):
            self._deliver(frame)
        elif frame.kind == "finished" and frame.flag("final"):
            # After its last row was delivered, so that whoever sees it finished has that row.
            with self._changed:
                lane.finished = True

    def _stop(self, lane: Lane) -> None:
        lane.stopped = True
        lane.pending.clear()
        lane.history = None


def _entries(table: Sequence[Tensor]) -> list[dict[str, Any]]:
    return [entry.to_json() for entry in table]


def _blobs(prefix: str, flats: Mapping[str, NDArray[Any]]) -> dict[str, Blob]:
    return {f"{prefix}:{dtype}": Blob(flat, dtype) for dtype, flat in flats.items()}


def _last_line(log: Path) -> str:
    """Return the last line that the process wrote, which names the exception if there was one."""
    with contextlib.suppress(OSError):
        lines = log.read_text(errors="replace").strip().splitlines()
        return clean(lines[-1])[:300] if lines else ""
    return ""
