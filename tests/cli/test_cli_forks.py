"""`tscope forks`, and what `tscope info` says of forks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_runner import Runner
from tscope_format import open_trace
from tscope_format.amendment import amend

from tests.analyses.averaging_runs import COMMON, make_runs
from tscope.record.fork import Fork


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and two others that part from it after `COMMON` steps, as `record --fork-at` leaves them."""
    folder = tmp_path_factory.mktemp("forks")
    make_runs(folder, runs=3)
    base = folder / "run0.zarr"
    listed = []
    for seed in (1, 2):
        fork = Fork(COMMON, seed, False, base.name, open_trace(base).facts["id"])
        found = {"verified": True, "problem": None, "same_until": COMMON, "batches_from": COMMON + seed}
        amend(folder / f"run{seed}.zarr", {"fork": {**fork.facts(), **found}})
        listed.append(
            {"trace": f"run{seed}.zarr", "step": COMMON, "seed": seed, "same_until": COMMON, "problem": None}
        )
    amend(base, {"forks": listed[::-1]})
    return folder


@pytest.fixture
def base(recorded: Path, tmp_path: Path) -> Path:
    shutil.copytree(recorded, tmp_path / "runs")
    return tmp_path / "runs" / "run0.zarr"


def test_forks_are_listed_and_averaged_with_their_run(tscope: Runner, base: Path) -> None:
    outcome = tscope("forks", base)
    assert outcome.code == 0
    assert [line.split() for line in outcome.out.splitlines()[:3]] == [
        ["fork", "at", "step", "seed", "same", "until", "batches", "from"],
        ["run1", str(COMMON), "1", str(COMMON), str(COMMON + 1)],
        ["run2", str(COMMON), "2", str(COMMON), str(COMMON + 2)],
    ]
    assert "--compute" in outcome.out.splitlines()[-1]
    computed = tscope("forks", base, "--compute", "--json")
    assert computed.code == 0
    rows = json.loads(computed.out)["forks"]
    for row, seed in zip(rows, (1, 2), strict=True):
        path = base.with_name(f"run{seed}.zarr")
        single = tscope(
            "analyze", path, "--against", base, "--metric", "weight-averaging", "--json", "--no-save"
        )
        scalars = json.loads(single.out)["scalars"]
        assert scalars["fork_step"] == row["same_until"] == COMMON
        assert row["values"]["barrier_loss_train"] == scalars["barrier_loss_train"]
        assert row["result"] is not None
    again = tscope("forks", base)
    assert "barrier train" in again.out.splitlines()[0]
    assert "--compute" not in again.out


def test_info_tells_forks_and_their_run(tscope: Runner, base: Path) -> None:
    words = " ".join(tscope("info", base).out.split())
    assert f"forks run2.zarr at step {COMMON}, the same up to step {COMMON}" in words
    fork = base.with_name("run1.zarr")
    words = " ".join(tscope("info", fork).out.split())
    assert f"fork of run0.zarr at step {COMMON} with seed 1; the same up to step {COMMON}" in words
    assert json.loads(tscope("info", fork, "--json").out)["fork"]["base"] == "run0.zarr"
    amend(fork, {"fork": {**open_trace(fork).facts["fork"], "verified": False, "problem": "it ignores it"}})
    assert f"fork of run0.zarr at step {COMMON} with seed 1 it ignores it" in " ".join(
        tscope("info", fork).out.split()
    )


def test_a_run_without_forks_and_a_fork_are_refused(tscope: Runner, base: Path) -> None:
    fork = base.with_name("run1.zarr")
    outcome = tscope("forks", fork)
    assert outcome.code == 2
    assert "run1.zarr is a fork itself: tscope forks " in outcome.err
    amend(base, {"forks": []})
    outcome = tscope("forks", base)
    assert outcome.code == 4
    assert "has no forks; record some: tscope record --fork-at STEP" in outcome.err


def test_a_fork_that_is_gone_or_another_trace_is_told(tscope: Runner, base: Path) -> None:
    fork = base.with_name("run1.zarr")
    amend(fork, {"fork": {**open_trace(fork).facts["fork"], "base_id": "other"}})
    outcome = tscope("forks", base)
    assert outcome.code == 2
    assert "run1.zarr is another trace than the fork of" in outcome.err
    shutil.rmtree(fork)
    assert tscope("forks", base).code == 3
