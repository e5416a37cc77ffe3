"""The trace of one recording: made when the first model makes a step, and told what is known of the run."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from tscope_format.disk import disk_size
from tscope_format.dtypes import JSON
from tscope_format.errors import RecordError, clean
from tscope_format.writer import TraceWriter

from tscope.record.facts import facts_of_run
from tscope.record.followers import Followers
from tscope.record.frames import Frame, FrameError
from tscope.record.options import RecordOptions
from tscope.record.outcome import CUT, Outcome
from tscope.record.probe_choice import ProbeChoice
from tscope.record.probe_source import ProbeArrays
from tscope.record.roots import Root
from tscope.record.session import Session
from tscope.record.trees import Trees

FACTS_EVERY = 0.5  # seconds; they reach the disk with the next commit
MOST_REPORTS = 100
MOST_NAMES = 99


class Recording:
    """The frames of all processes of a run, on their way into one trace. For one thread.

    Args:
        session: The session folder.
        out: Where the trace goes.
        options: How to record.
        probe: The probe set that the person named.
        command: What was started.
        pid: Its process.
        say: Tells the person something.
        deliver: Takes the frames of the projecting process, from another thread.
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
        deliver: Callable[[Frame], None],
    ) -> None:
        self._session = session
        self._out = out
        self._options = options
        self._probe = probe
        self._say = say
        self._facts = facts_of_run(command, options, pid)
        self._reports: list[JSON] = []
        self._said: set[str] = set()
        self._roots: dict[tuple[int, int], Root] = {}
        self._trees: dict[tuple[int, int], Trees] = {}
        self._ranks: dict[int, int] = {}
        self._processes: dict[object, int] = {}  # connections by process
        self._complete: set[int] = set()
        self._writer: TraceWriter | None = None
        self._create_failed = False
        self._facts_due = 0.0
        self._followers = Followers(deliver, options, session.folder)

    @property
    def broken(self) -> bool:
        """Whether the trace cannot be written any more."""
        return self._create_failed or (self._writer is not None and self._writer.failed is not None)

    @property
    def projecting(self) -> bool:
        """Whether, after `finish`, projections are still to come."""
        return self._followers.busy

    def take(self, connection: int, frame: Frame) -> None:
        """Act on a frame of the run.

        Raises:
            FrameError: It says what cannot be.
            RecordError: The trace cannot be written (then `broken`), or refuses what it says.
        """
        if frame.kind == "hello":
            self._hello(connection, frame)
        elif frame.kind == "report":
            where, error = frame.text("where"), frame.text("error")
            self.report(where, error, frame.fields.get("pid"), failed=frame.fields.get("failed") is not False)
        elif frame.kind == "root":
            self._root(connection, frame)
        elif frame.kind == "bye":
            self._bye(connection, frame)
        elif frame.kind == "fork":
            self._forked(connection, frame)
        elif frame.kind in ("trees", "tree_rows"):
            if self._ranks.get(connection, 0) == 0:
                self._of_trees(frame)
        elif frame.kind in ("optimizer", "step", "state", "eval", "program"):
            if self._ranks.get(connection, 0) == 0:
                self._of_root(connection, frame)
        else:
            raise FrameError(f"there is no frame of type `{frame.kind}`")

    def projection(self, frame: Frame) -> None:
        """Act on a frame of the projecting process."""
        root = frame.text("root")
        next(found for found in self._roots.values() if found.name == root).projection(frame)

    def report(self, where: str, error: str, pid: JSON = None, *, failed: bool = True) -> None:
        """Keep an error (or, not `failed`, a remark) in the trace, and tell the person once of each place."""
        where, error = clean(where), clean(error)
        self._keep(where, error, pid, failed=failed)
        text = f"the recorder's {where} failed, the run goes on without it: {error}"
        self._say_once(f"report {where}", text if failed else f"{where}: {error}")

    def _keep(self, where: str, error: str, pid: JSON, *, failed: bool) -> None:
        if len(self._reports) < MOST_REPORTS:
            report = {"where": where, "error": error, "pid": pid, "time": time.time(), "failed": failed}
            self._reports.append(report)

    def tick(self) -> None:
        """Do what is due; called after every frame, and several times a second."""
        for root in self._roots.values():
            root.decide()
        for problem in self._followers.problems:
            self._say_once(f"follower {problem}", problem)
        now = time.monotonic()
        if now >= self._facts_due:
            self._facts_due = now + FACTS_EVERY
            self._update_facts()
            if self._options.follows and self._session.saw_torch:
                self._followers.start()
        if self._writer is not None:
            self._writer.maybe_flush()

    def finish(self, deadline: float) -> None:
        """The run is over: settle on probe sets, and project until `deadline` (monotonic)."""
        for root in self._roots.values():
            root.decide(ended=True)
        self._followers.finish(deadline)

    def fail(self, reason: str) -> None:
        """Close the trace at once, as far as it can still be written."""
        self._followers.close()
        if self._writer is not None:
            self._close("failed", reason)

    def close(
        self, status: Literal["complete", "interrupted", "failed"], reason: str | None, failure: str | None
    ) -> Outcome:
        """Write what is left, and return what became of the recording."""
        self._followers.close()
        outcome = Outcome(failure=failure, hello=self._session.said_hello, torch=self._session.saw_torch)
        outcome.columns, outcome.updates = self._options.sketch, self._options.updates
        for root in self._roots.values():
            root.close()
        if failure is None:
            for trees in self._trees.values():
                trees.close()
        refused = next((report for report in self._reports if not report["failed"]), None)
        outcome.refused = None if refused is None else f"{refused['where']}: {refused['error']}"
        outcome.trees = self._session.saw_trees
        if self._writer is not None:
            if failure is None:
                self._update_facts()
                outcome.cut = any(
                    root.steps and n not in self._complete for (n, _), root in self._roots.items()
                )
                if outcome.cut and status == "complete":
                    status, reason = "interrupted", CUT
                failure = outcome.failure = self._close(status, reason)
            self._measure(outcome)
            outcome.path = self._out
            outcome.written, outcome.raw = disk_size(self._out), self._writer.bytes_raw
        return outcome

    def _hello(self, connection: int, frame: Frame) -> None:
        rank = str(frame.fields.get("rank") or 0)
        self._ranks[connection] = int(rank) if rank.isdecimal() else 0
        self._processes[frame.fields.get("pid")] = connection
        for name in ("python", "torch", "executable", "threads", "argv"):
            if name in frame.fields:
                self._facts.setdefault(name, frame.fields[name])
        if self._ranks[connection]:
            self._say_once("rank", "several processes train together: only the one of rank 0 is recorded")

    def _root(self, connection: int, frame: Frame) -> None:
        key = connection, frame.integer("root")
        if key in self._roots:
            raise FrameError(f"root {key[1]} is announced twice")
        if self._ranks.get(connection, 0):
            return
        # The person's probe set is for the first model; a second one (of a GAN) gets rows of its own.
        given = self._probe if not self._roots else None
        self._roots[key] = Root(
            self._name(frame.text("class")),
            frame,
            writer=self._trace,
            followers=self._followers,
            updates=self._options.updates,
            choice=ProbeChoice(given, follows=self._options.follows),
            max_examples=self._options.max_examples,
            say=self._say,
        )

    def _forked(self, connection: int, frame: Frame) -> None:
        """Take in which generators were reseeded; of several processes, in the first that was."""
        if self._ranks.get(connection, 0) == 0 and "fork" in self._facts:
            reseeded = {"numpy": frame.flag("numpy"), "own": frame.mapping("own")}
            self._facts["fork"].setdefault("reseeded", reseeded)

    def _of_root(self, connection: int, frame: Frame) -> None:
        number = frame.integer("root")
        root = self._roots.get((connection, number))
        if root is None and frame.kind == "program":
            # The exporting process is a copy of the training one, with a connection of its own.
            connection = self._processes.get(frame.fields.get("pid"), connection)
            if self._ranks.get(connection, 0):
                return
            root = self._roots.get((connection, number))
        if root is None:
            raise FrameError(f"a `{frame.kind}` frame speaks of root {number}, which was not announced")
        if frame.kind == "step":
            root.step(frame)
        elif frame.kind == "optimizer":
            root.optimizer(frame)
        elif frame.kind == "state":
            root.state(frame)
        elif frame.kind == "eval":
            root.evaluated(frame)
        else:
            root.program(frame)

    def _of_trees(self, frame: Frame) -> None:
        """Take in an ensemble of trees, or what it predicted."""
        key = frame.integer("pid"), frame.integer("number")
        if frame.kind == "trees":
            if key in self._trees:
                raise FrameError(f"ensemble {key[1]} of process {key[0]} is sent twice")
            name = self._name(frame.text("class"))
            trees = Trees(name, frame, self._trace(), self._probe, self._say)
            self._trees[key] = trees
            if trees.problem is not None:
                self._keep(f"trees {name}", trees.problem, key[0], failed=True)
        elif key not in self._trees:
            raise FrameError(f"a `{frame.kind}` frame speaks of ensemble {key[1]}, which was not sent")
        else:
            self._trees[key].predicted(frame)
        self._trees[key].hook_ns, self._trees[key].wait_ns = (
            frame.integer("hook_ns"),
            frame.integer("wait_ns"),
        )

    def _bye(self, connection: int, frame: Frame) -> None:
        self._complete.add(connection)
        for (origin, _), root in self._roots.items():
            if origin == connection:
                root.hook_ns, root.wait_ns = frame.integer("hook_ns"), frame.integer("wait_ns")

    def _trace(self) -> TraceWriter:
        """Return the trace's writer, making the trace if this is its first row."""
        if self._writer is None:
            try:
                self._writer = self._created()
            except RecordError:
                self._create_failed = True
                raise
        return self._writer

    def _created(self) -> TraceWriter:
        """Make the trace; a name of our choice gives way to another recording's of the same second."""
        wanted = self._out
        for number in range(2, MOST_NAMES):
            if self._options.out is not None or not self._out.exists():
                break
            self._out = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
        return TraceWriter.create(
            self._out, facts=self._facts, overwrite=self._options.force, durable=self._options.durable
        )

    def _name(self, kind: str) -> str:
        """Return the group's name for a root: `model`, for further ones their class."""
        taken = {root.name for root in self._roots.values()} | {found.name for found in self._trees.values()}
        if not taken:
            return "model"
        plain = re.sub(r"[^a-z0-9_]", "", kind.lower()) or "model"
        names = [plain, *(f"{plain}_{number}" for number in range(2, len(taken) + 3))]
        return next(name for name in names if name not in taken and name != "analysis")

    def _update_facts(self) -> None:
        if self._writer is None:
            return
        outcome = Outcome()
        self._measure(outcome)
        self._facts["updated"] = time.time()
        self._facts["reports"] = self._reports
        self._facts["recorder"] = {
            "share": outcome.share,
            "hook_seconds": outcome.hook_seconds,
            "wait_seconds": outcome.wait_seconds,
            "seconds": outcome.seconds,
            "rows": outcome.rows,
            "projected": outcome.projected,
            "sketched": outcome.sketched,
        }
        self._writer.facts.update(self._facts)

    def _measure(self, outcome: Outcome) -> None:
        """Set the figures of `outcome` that come from the roots."""
        started = [root for root in self._roots.values() if root.steps]
        outcome.models = len(started)
        for root in started:
            outcome.programs += root.exported
            rows = self._rows_on_disk(root)
            outcome.steps += root.steps if rows == root.rows else rows * self._options.every
            outcome.rows += rows
            outcome.projected += root.projected
            outcome.probes += [name for name in root.probes if name not in outcome.probes]
            outcome.sketched += root.sketched
            outcome.unsketched += root.unsketched(self._options.every)
        self._measure_trees(outcome)
        # The hooks' clocks run over all roots of a process: the largest is the sum.
        for connection in {origin for origin, _ in self._roots}:
            mine = [root for (origin, _), root in self._roots.items() if origin == connection and root.rows]
            if mine:
                outcome.hook_seconds += max(root.hook_ns for root in mine) / 1e9
                outcome.wait_seconds += max(root.wait_ns for root in mine) / 1e9
                last = max(root.last_time for root in mine)
                outcome.seconds += last - min(root.first_time for root in mine)

    def _measure_trees(self, outcome: Outcome) -> None:
        ensembles = [] if self._writer is None or self._writer.failed else list(self._trees.values())
        outcome.models += len(ensembles)
        outcome.programs += len(ensembles)  # their nodes are the model
        for trees in ensembles:
            outcome.steps += trees.steps
            outcome.rows += trees.steps
            outcome.projected += trees.steps + 1 if trees.probes else 0
            outcome.probes += [name for name in trees.probes if name not in outcome.probes]
            outcome.seconds += trees.ended - trees.began
        for process in {process for process, _ in self._trees}:
            mine = [trees for (origin, _), trees in self._trees.items() if origin == process]
            outcome.hook_seconds += max(trees.hook_ns for trees in mine) / 1e9
            outcome.wait_seconds += max(trees.wait_ns for trees in mine) / 1e9

    def _rows_on_disk(self, root: Root) -> int:
        """Return the rows after the first that a reader will find: of a full disk, those committed before."""
        if self._writer is None or self._writer.failed is None:
            return root.rows
        return max(0, self._writer.committed.get(root.name, 0) - 1)

    def _close(self, status: Literal["complete", "interrupted", "failed"], reason: str | None) -> str | None:
        """Close the trace and return why that failed, None if it did not."""
        if self._writer is None:
            return None
        try:
            written = self._writer.close(status, reason)
        except RecordError as error:
            written, reason = self._writer.close("failed", str(error)), str(error)
            return clean(reason)
        return None if written else "the disk does not even take the trace's final status"

    def _say_once(self, key: str, text: str) -> None:
        if key not in self._said:
            self._said.add(key)
            self._say(text)
