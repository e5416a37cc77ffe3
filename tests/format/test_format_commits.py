"""When the writer commits, and what a full disk leaves."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from format_run import Run, check, committed, small_chunks
from tscope_format import (
    RecordError,
    TraceWriter,
    disk,
    open_trace,
    verify,
    writer,
)
from tscope_format.tree import Tree


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)


def test_the_open_block_is_committed_when_its_time_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("tscope_format.writer.clock.monotonic", lambda: now[0])
    run = Run(tmp_path / "t.zarr", flush_seconds=2.0)
    run.append()
    now[0] += 1.9
    run.writer.maybe_flush()
    assert committed(run).rows == 1
    now[0] += 0.2
    run.writer.maybe_flush()
    assert committed(run).rows == 2


@pytest.mark.parametrize(
    ("taken", "pause"),
    [(0.0, 2.0), (0.1, 1.8), (0.5, 1.0), (3.0, 6.0)],
    ids=["none", "short", "half", "long"],
)
def test_a_row_that_comes_during_a_commit_is_committed_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: float, pause: float
) -> None:
    """Unless commits take most of that time: then they take half of it."""
    now = [100.0]
    monkeypatch.setattr("tscope_format.writer.clock.monotonic", lambda: now[0])
    run = Run(tmp_path / "t.zarr", flush_seconds=2.0)
    plain = Tree.commit

    def slow(*arguments: Any) -> None:
        plain(*arguments)
        now[0] += taken

    monkeypatch.setattr(Tree, "commit", slow)
    run.writer.commit()
    run.append()
    now[0] += pause - taken - 0.01
    run.writer.maybe_flush()
    assert committed(run).rows == 1
    now[0] += 0.02
    run.writer.maybe_flush()
    assert committed(run).rows == 2
    assert now[0] <= 102.02 or taken > 2 / 3


def test_a_commit_without_news_shows_that_the_recorder_lives(tmp_path: Path) -> None:
    run = Run(tmp_path / "t.zarr")
    run.writer.commit()
    record = run.path / "zarr.json"
    before = record.read_bytes()
    os.utime(record, (1, 1))
    run.writer.commit()
    assert record.stat().st_mtime > 1
    assert record.read_bytes() == before


def test_facts_and_attributes_are_written_at_the_next_commit(tmp_path: Path) -> None:
    run = Run(tmp_path / "t.zarr")
    run.writer.facts["host"] = "here"
    run.root.attributes["late"] = [1]
    run.writer.commit()
    trace = open_trace(run.path)
    assert trace.facts["host"] == "here"
    assert trace.root().attributes["late"] == [1]
    fingerprint = trace.fingerprint
    run.writer.close("interrupted", "Ctrl-C")
    assert trace.refresh()
    assert not trace.refresh()
    assert (trace.status, trace.facts["reason"]) == ("interrupted", "Ctrl-C")
    assert trace.fingerprint == fingerprint


def test_after_close_nothing_can_be_added(tmp_path: Path) -> None:
    run = Run(tmp_path / "t.zarr")
    assert run.writer.close("complete")
    assert run.writer.close("failed")
    with pytest.raises(RecordError, match=r"t\.zarr is closed"):
        run.append()
    assert open_trace(run.path).status == "complete"
    assert not (run.path / ".reserve").exists()


class FullDisk:
    """Refuses writes beyond a number of bytes, as a full disk does: what is there can be replaced."""

    def __init__(self, patch: pytest.MonkeyPatch, space: int) -> None:
        self.space = space
        fill = disk.Disk._fill

        def filling(target: disk.Disk, path: str, parts: Sequence[bytes]) -> None:
            size = sum(map(len, parts))
            if size > self.space:
                fill(target, path, [b"".join(parts)[: self.space]])
                raise OSError(errno.ENOSPC, "No space left on device")
            self.space -= size
            fill(target, path, parts)

        patch.setattr(disk.Disk, "_fill", filling)


@pytest.mark.parametrize("space", [0, 1, 300, 2000, 10_000, 40_000])
def test_a_full_disk_is_told_once_and_the_trace_ends_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: None, space: int
) -> None:
    run = Run(tmp_path / "t.zarr")
    for _ in range(4):
        run.append()
    run.writer.commit()
    with monkeypatch.context() as patch:
        full = FullDisk(patch, space)
        raised = []
        for _ in range(12):
            try:
                run.append()
                run.writer.commit()
            except RecordError as error:
                raised.append(str(error))
        assert len(raised) == 1
        assert "t.zarr: no space left on device; the trace stays as it was committed last" in raised[0]
        assert run.writer.failed is not None
        full.space = writer._RESERVE_BYTES  # what the reserve gives back
        assert run.writer.close("failed", "disk full")
    trace = open_trace(run.path)
    assert (trace.status, trace.facts["reason"]) == ("failed", "disk full")
    assert trace.root().rows >= 5
    check(trace.root(), run.model)
    assert verify(run.path).ok
    assert not list(run.path.rglob("*.partial"))


def test_a_disk_that_does_not_even_take_the_status_keeps_the_last_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "t.zarr")
    run.append()
    FullDisk(monkeypatch, 0)
    with pytest.raises(RecordError, match="no space left on device"):
        run.writer.close("complete")
    assert not run.writer.close("failed")
    assert open_trace(run.path).status == "recording"
    assert committed(run).rows == 1


def test_the_record_is_strict_enough_for_stock_readers(tmp_path: Path) -> None:
    run = Run(tmp_path / "t.zarr")
    run.writer.commit()
    record = json.loads((run.path / "zarr.json").read_text())
    assert record["zarr_format"] == 3
    assert record["attributes"]["tscope"]["format"] == 1
    assert record["consolidated_metadata"]["metadata"]["model/loss"]["dimension_names"] == ["step"]


def test_durable_syncs_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr("tscope_format.disk.os.fsync", synced.append)
    TraceWriter.create(tmp_path / "t.zarr", facts={}, durable=True).close("complete")
    assert len(synced) >= 4
