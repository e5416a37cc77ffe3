"""Interrupted analyses go on where they stopped, with the same bits; stale or damaged parts are not used."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from tscope_format import verify
from tscope_format.errors import AnalysisError

import tscope
from tests.analyses.effective_runs import Run, make_run
from tscope.analyses.effective import partial
from tscope.analyses.effective.partial import Lease, Partial, Place
from tscope.analyses.effective.snapshot import pack, restore

KILLED = """
import os, signal, sys
import tscope
from tscope.analyses.effective import partial

partial.INTERVAL = partial._SHARE = 0.0

def progress(done, total):
    if done == 6:
        os.kill(os.getpid(), signal.SIGKILL)

tscope.analyze(sys.argv[1], "effective-params", probe=sys.argv[2], save=False, progress=progress)
"""


class Interrupted(Exception):
    """What stands for Ctrl-C."""


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """Keep a partial result after every step."""
    monkeypatch.setattr(partial, "INTERVAL", 0.0)
    monkeypatch.setattr(partial, "_SHARE", 0.0)


def analysed(run: Run, *, stop: int | None = None, said: list[str] | None = None, **options: object):
    def progress(done: int, total: int) -> None:
        if done == stop:
            raise Interrupted

    return tscope.analyze(
        run.trace,
        "effective-params",
        probe=str(run.held),
        save=False,
        progress=progress,
        say=None if said is None else said.append,
        **options,
    )


def folders(run: Run) -> list[Path]:
    return list((run.trace.path / "analysis" / "effective-params").glob(".partial-*"))


def same(a, b) -> None:
    assert a.arrays.keys() == b.arrays.keys()
    for name, array in a.arrays.items():
        assert np.array_equal(b.arrays[name].data, array.data), name
    assert a.scalars == b.scalars
    assert a.notes == b.notes


def continuing(said: list[str]) -> list[str]:
    return [text for text in said if text.startswith("continuing")]


def test_an_analysis_that_was_killed_goes_on_with_the_same_bits(tmp_path):
    run = make_run(tmp_path)
    whole = analysed(run)
    assert folders(run) == []
    command = [sys.executable, "-c", KILLED, str(run.trace.path), str(run.held)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    assert subprocess.run(command, env=environment, check=False).returncode == -9
    (folder,) = folders(run)
    assert tscope.open(run.trace.path).results() == []
    assert verify(run.trace.path).ok
    said: list[str] = []
    found = analysed(run, said=said)
    assert continuing(said) == ["continuing after row 5 of 9 (pass-1-part-1-of-1), where it was interrupted"]
    same(whole, found)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("stop", "at", "options"),
    [
        (4, "row 3 of 9 (pass-1-part-1-of-1)", {"form": "parameter", "smoother": "2,9"}),
        (14, "row 4 of 9 (pass-2-part-1-of-1)", {"form": "probes", "rtol": 0.05, "decay": "frozen"}),
        (13, "row 3 of 9 (pass-2-part-1-of-1)", {"form": "parameter", "max_memory_mb": 0.032}),
    ],
)
def test_every_form_goes_on_with_the_same_bits(tmp_path, stop, at, options):
    run = make_run(tmp_path, optimizer="adamw", outputs=3, loss="cross_entropy")
    whole = analysed(run, **options)
    with pytest.raises(Interrupted):
        analysed(run, stop=stop, **options)
    said: list[str] = []
    found = analysed(run, said=said, **options)
    assert continuing(said) == [f"continuing after {at}, where it was interrupted"]
    same(whole, found)
    assert folders(run) == []


@pytest.mark.slow  # four processes start torch
def test_several_processes_go_on_where_each_stopped(tmp_path):
    run = make_run(tmp_path, optimizer="momentum")
    options = {"form": "parameter", "workers": 2}
    whole = analysed(run, **options)
    with pytest.raises(Interrupted):
        analysed(run, stop=4, **options)
    said: list[str] = []
    found = analysed(run, said=said, **options)
    assert any("pass-1-part-1-of-2" in text for text in continuing(said))
    same(whole, found)


def test_a_partial_result_of_something_else_is_not_used(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    with pytest.raises(Interrupted):
        analysed(run, stop=5)
    said: list[str] = []
    analysed(run, said=said, every=2)
    other = run.held.with_name("other.npz")
    np.savez(other, x=np.load(run.held)["x"] + 1)
    tscope.analyze(run.trace, "effective-params", probe=str(other), save=False, say=said.append)
    # The same name with other content.
    content = run.held.read_bytes()
    run.held.write_bytes(other.read_bytes())
    analysed(run, said=said)
    run.held.write_bytes(content)
    with monkeypatch.context() as context:
        context.setattr(tscope, "__version__", "another")
        analysed(run, said=said)
    assert continuing(said) == []
    analysed(run, said=said)
    assert len(continuing(said)) == 1


@pytest.mark.parametrize("how", ["changed", "cut", "missing", "record"])
def test_a_damaged_partial_result_is_said_and_not_used(tmp_path, how):
    run = make_run(tmp_path)
    whole = analysed(run)
    with pytest.raises(Interrupted):
        analysed(run, stop=5)
    (folder,) = folders(run)
    (file,) = folder.glob("*.pt")
    (record,) = folder.glob("*.json")
    content = bytearray(file.read_bytes())
    if how == "changed":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif how == "cut":
        file.write_bytes(content[:-7])
    elif how == "missing":
        file.unlink()
    else:
        record.write_text("{")
    said: list[str] = []
    same(whole, analysed(run, said=said))
    assert continuing(said) == []
    assert sum("a partial result is damaged and not used" in text for text in said) == 1


def test_what_an_analysis_that_failed_had_kept_is_removed(tmp_path, monkeypatch):
    from tscope.analyses.effective.checks import Checks

    def failing(checks: Checks, row: int, *_: object) -> None:
        if row == 4:
            raise AnalysisError("not valid")

    run = make_run(tmp_path)
    monkeypatch.setattr(Checks, "require_labels", failing)
    with pytest.raises(AnalysisError):
        analysed(run)
    assert folders(run) == []


def test_a_short_analysis_writes_nothing(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    monkeypatch.setattr(partial, "INTERVAL", 15.0)
    monkeypatch.setattr(Partial, "save", None)
    analysed(run)
    assert folders(run) == []


def test_a_trace_that_cannot_be_written_is_analysed(tmp_path):
    run = make_run(tmp_path)
    whole = analysed(run)
    results = run.trace.path / "analysis"
    (results / "effective-params").rmdir()
    results.rmdir()
    results.write_text("in the way")
    said: list[str] = []
    same(whole, analysed(run, said=said))
    assert sum(text.startswith("partial results cannot be kept: ") for text in said) == 1


def test_two_analyses_at_once_do_not_share_partial_results(tmp_path):
    said: list[str] = []
    with Lease(tmp_path, "m", "key", said.append) as first:
        assert first.place is not None
        with Lease(tmp_path, "m", "key", said.append) as second:
            assert second.place is None
    assert said == ["another process computes the same: partial results are not kept here"]
    with Lease(tmp_path, "m", "key", said.append) as third:
        assert third.place is not None


def test_partial_results_that_nobody_came_back_to_are_removed(tmp_path):
    old, young = (tmp_path / "analysis" / "m" / f".partial-{name}" for name in ("old", "young"))
    for folder in (old, young):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    with Lease(tmp_path, "m", "key", print):
        assert not old.exists()
        assert young.exists()


def test_writing_replaces_what_was_written_before(tmp_path):
    kept = Partial(Place(tmp_path / "here", 0.0), "walk", print, 0.0)
    for number in (1, 2):
        kept.save({"number": number, "values": torch.arange(3)})
    assert sorted(path.suffix for path in (tmp_path / "here").iterdir()) == [".json", ".pt"]
    again = Partial(Place(tmp_path / "here", 0.0), "walk", print, 0.0).load()
    assert again is not None
    assert again["number"] == 2
    assert torch.equal(again["values"], torch.arange(3))


@dataclass
class Figures:
    given: int
    count: int = 0
    values: list[float] = field(default_factory=list)
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(3))
    other: object = None


def test_what_was_gathered_is_packed_and_what_was_given_is_not():
    first, second = Figures(1, 2, [3.0]), Figures(5)
    torch.rand(3, generator=first.generator)
    restore(second, pack(first))
    assert (second.given, second.count, second.values) == (5, 2, [3.0])
    assert torch.equal(torch.rand(3, generator=first.generator), torch.rand(3, generator=second.generator))
    with pytest.raises(TypeError, match="a set cannot be kept in a partial result"):
        pack(Figures(1, other={1}))
    with pytest.raises(TypeError, match="no values of a Figures"):
        restore(first, None)
