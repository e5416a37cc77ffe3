"""Whenever the recorder dies, the trace opens at a commit, and every committed row is what was appended."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest
from format_run import Run, check, killed_at, small_chunks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tscope_format import open_trace, verify

# These tests make some hundred thousand files; a file system in memory takes them gladly.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


def record(run: Run) -> None:
    """A run in which every axis grows, with commits in between."""
    for step in range(1, 24):
        grown = step // 6
        run.append(
            slots=2 + grown,
            micros=1 + (step > 12),
            groups=1 + (step > 15),
            width=None if step < 4 else 1 + grown,
            buffer=step > 9,
        )
        run.add_state()
        if step % 3 == 0:
            run.add_examples(length=2 + grown)
            run.project()
        if step % 5 == 0:
            run.writer.commit()
    run.writer.close("complete")


def count_operations() -> int:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        small_chunks(patch)
        with killed_at(-1, patch) as count:
            record(Run(Path(folder) / "t.zarr"))
        return count[0]


OPERATIONS = count_operations()


def check_what_is_left(path: Path, run: Run | None) -> int:
    """Return the number of committed rows, all of which must be right."""
    if not path.exists():
        return 0
    report = verify(path)
    assert report.ok, report.problems
    trace = open_trace(path)
    if not trace.roots:
        return 0
    assert run is not None
    check(trace.root(), run.model)
    return trace.root().rows


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(operation=st.integers(0, OPERATIONS - 1), torn=st.sampled_from([0.0, 0.5, 1.0]))
def test_a_kill_at_any_file_operation_damages_no_committed_row(operation: int, torn: float) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        small_chunks(patch)
        path = Path(folder) / "t.zarr"
        run: Run | None = None
        before = 0
        with killed_at(operation, patch, torn=torn):
            run = Run(path)
            record(run)
        if run is None and path.exists():
            # It died while the root was added: either the empty trace, or row 0.
            trace = open_trace(path)
            assert verify(path).ok
            assert not trace.roots or trace.root().rows == 1
            return
        before = check_what_is_left(path, run)
        assert before <= len(run.model.rows) + 1 if run else before == 0


class Recorder(RuleBasedStateMachine):
    """A recorder that appends, grows, commits and dies at random, and readers that look in at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.born = 0
        self.stack = contextlib.ExitStack()
        self.patch = self.stack.enter_context(pytest.MonkeyPatch.context())
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY)))
        small_chunks(self.patch)
        self.committed = 0
        self.alive = True

    @initialize()
    def create(self) -> None:
        self.born += 1
        self.run = Run(self.folder / f"{self.born}.zarr", self.born)
        self.reader = open_trace(self.run.path)
        self.early = self.reader.root()
        self.committed = 1

    @precondition(lambda self: not self.alive)
    @rule()
    def record_another(self) -> None:
        self.alive = True
        self.create()

    @precondition(lambda self: self.alive)
    @rule(
        count=st.integers(1, 6),
        slots=st.integers(1, 6),
        micros=st.integers(0, 3),
        groups=st.integers(1, 3),
        width=st.none() | st.integers(1, 4),
        buffer=st.booleans(),
    )
    def append(
        self, count: int, slots: int, micros: int, groups: int, width: int | None, buffer: bool
    ) -> None:
        for _ in range(count):
            self.run.append(slots=slots, micros=micros, groups=groups, width=width, buffer=buffer)
            self.run.add_state()

    @precondition(lambda self: self.alive)
    @rule(count=st.integers(1, 5), length=st.integers(1, 5))
    def add_examples(self, count: int, length: int) -> None:
        self.run.add_examples(count, length)

    @precondition(lambda self: self.alive)
    @rule()
    def project(self) -> None:
        self.run.project()

    @precondition(lambda self: self.alive)
    @rule()
    def commit(self) -> None:
        self.run.writer.commit()
        self.committed = len(self.run.model.rows)

    @precondition(lambda self: self.alive)
    @rule(operation=st.integers(0, 60), torn=st.sampled_from([0.0, 0.5, 1.0]))
    def die_while_committing(self, operation: int, torn: float) -> None:
        with killed_at(operation, self.patch, torn=torn):
            self.run.writer.commit()
            self.committed = len(self.run.model.rows)
            return
        self.alive = False

    @precondition(lambda self: self.alive)
    @rule(status=st.sampled_from(["complete", "interrupted"]))
    def close(self, status: str) -> None:
        assert self.run.writer.close(status, "why")  # type: ignore[arg-type]
        self.committed = len(self.run.model.rows)
        self.alive = False
        assert open_trace(self.run.path).status == status

    @invariant()
    def every_committed_row_is_right(self) -> None:
        trace = open_trace(self.run.path)
        assert trace.root().rows >= self.committed
        check(trace.root(), self.run.model)

    @invariant()
    def a_reader_follows_and_an_old_one_keeps_what_it_saw(self) -> None:
        self.reader.refresh()
        check(self.reader.root(), self.run.model)
        assert self.early.rows == 1
        check(self.early, self.run.model)

    def teardown(self) -> None:
        if hasattr(self, "run"):
            report = verify(self.run.path)
            assert report.ok, report.problems
        self.stack.close()


Recorder.TestCase.settings = settings(
    max_examples=30, stateful_step_count=15, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_any_sequence_of_appends_commits_and_deaths = Recorder.TestCase
