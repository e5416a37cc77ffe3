"""Facts that are added to a trace after its recording has ended."""

from __future__ import annotations

from pathlib import Path

import pytest
from format_run import Run, check
from tscope_format import RecordError, open_trace, verify
from tscope_format.amendment import amend


@pytest.fixture
def run(tmp_path: Path) -> Run:
    recorded = Run(tmp_path / "run.zarr")
    for _ in range(3):
        recorded.append()
    recorded.writer.close("complete")
    return recorded


def test_facts_are_added_and_nothing_else_changes(run: Run) -> None:
    before = open_trace(run.path)
    amend(run.path, {"fork": {"step": 4}, "name": "mine"})
    after = open_trace(run.path)
    assert after.facts == {**before.facts, "fork": {"step": 4}, "name": "mine"}
    assert after.fingerprint == before.fingerprint
    check(after.root(), run.model)
    assert not verify(run.path).problems


def test_what_is_no_finished_trace_is_left_alone(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"no\.zarr: facts cannot be added: No such file"):
        amend(tmp_path / "no.zarr", {})
    amend(run.path, {"status": "recording"})
    before = (run.path / "zarr.json").read_bytes()
    with pytest.raises(RecordError, match=r"run\.zarr is still being recorded"):
        amend(run.path, {"name": "other"})
    assert (run.path / "zarr.json").read_bytes() == before
    (run.path / "zarr.json").write_text("[]")
    with pytest.raises(RecordError, match="is not a trace whose facts can be added to"):
        amend(run.path, {})
