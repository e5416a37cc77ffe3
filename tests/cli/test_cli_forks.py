"""`tscope forks`, and what `tscope info` says of forks."""

from __future__ import annotations

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib
import pytest
from cli_runner import Runner
from tscope_cli.sweep import read_forks
from tscope_format import load_result, open_trace, save_result
from tscope_format.amendment import amend

from tests.analyses.averaging_runs import COMMON, make_runs
from tscope.analyses.gradients import rows as gradient_rows
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
    computed = tscope("forks", base, "--compute", "--no-gradients", "--json")
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
        assert row["changes"] == {}
    again = tscope("forks", base)
    assert "barrier train" in again.out.splitlines()[0]
    assert "--compute" in again.out.splitlines()[-1]  # gradients are missing still


@pytest.fixture(scope="module")
def computed(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, with averages and changes of gradients saved for each fork."""
    folder = tmp_path_factory.mktemp("computed") / "runs"
    shutil.copytree(recorded, folder)
    for found in read_forks(folder / "run0.zarr", compute=True, gradients=True):
        assert set(found.changes) == {"base", "fork"}
    return folder / "run0.zarr"


def test_gradient_changes_are_those_of_the_metric_from_the_fork_on(tscope: Runner, computed: Path) -> None:
    outcome = tscope("forks", computed, "--json")
    rows = json.loads(outcome.out)["forks"]
    for row, seed in zip(rows, (1, 2), strict=True):
        for run, name in (("base", "run0.zarr"), ("fork", f"run{seed}.zarr")):
            asked = ("--since", COMMON, "--at", "last", "--json", "--no-save", "--quiet")
            single = tscope("analyze", computed.with_name(name), "--metric", "gradients", *asked)
            document = json.loads(single.out)
            found = row["changes"][run]
            assert found["values"]["train"] == pytest.approx(document["scalars"]["change_train"], rel=1e-12)
            layers = document["arrays"]["change_end_layer_train"]["data"][0]
            assert list(found["layers"]["train"].values()) == pytest.approx(layers, rel=1e-12)
            assert list(found["layers"]["train"]) == document["provenance"]["layers"]
    text = tscope("forks", computed).out
    assert text.splitlines()[0].split()[-2:] == ["gradients", "train"]
    assert "--compute" not in text


def test_the_table_is_written_as_csv_with_the_mean_of_both_runs(
    tscope: Runner, computed: Path, tmp_path: Path
) -> None:
    path = tmp_path / "sweep.csv"
    outcome = tscope("forks", computed, "--json", "--csv", path)
    rows = json.loads(outcome.out)["forks"]
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["seed"] for line in lines] == ["1", "2"]
    for line, row in zip(lines, rows, strict=True):
        assert float(line["barrier_loss_train"]) == row["values"]["barrier_loss_train"]
        changes = [row["changes"][run] for run in ("base", "fork")]
        assert float(line["change_train"]) == sum(own["values"]["train"] for own in changes) / 2
        for layer in changes[0]["layers"]["train"]:
            mean = sum(own["layers"]["train"][layer] for own in changes) / 2
            assert float(line[f"change_train:{layer}"]) == mean
    refused = tscope("forks", computed, "--csv", tmp_path / "no" / "sweep.csv")
    assert refused.code == 2
    assert "cannot be written: No such file" in refused.err


def test_sweeps_of_several_runs_are_drawn_over_each_other(
    tscope: Runner, computed: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other" / "run0.zarr"
    shutil.copytree(computed.parent, other.parent)
    path = tmp_path / "sweep.svg"
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        outcome = tscope("forks", computed, other, "--plot", path)
    assert outcome.code == 0
    assert f"wrote {path}" in outcome.err
    drawn = path.read_text(encoding="utf-8")
    for words in (
        "runs/run0",
        "other/run0",
        "barrier of the loss, training examples",
        "change of gradients from t' to the end, training examples",
        "change by layer of other/run0",
    ):
        assert words in drawn
    assert "2 seeds, mean and range" in drawn
    assert [line.split()[0] for line in outcome.out.splitlines()[1:5]] == ["runs/run0"] * 2 + [
        "other/run0"
    ] * 2


def test_where_gradients_cannot_be_computed_the_way_out_is_told(
    tscope: Runner, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient_rows, "_WORKING", 1e9)
    outcome = tscope("forks", base, "--compute")
    assert outcome.code == 1
    assert "allowed (`--max-memory MB`)" in outcome.err
    assert "(`--no-gradients` leaves gradients out)" in outcome.err
    assert tscope("forks", base, "--compute", "--no-gradients").code == 0


def test_gradients_are_not_compared_along_steps(tscope: Runner, computed: Path) -> None:
    outcome = tscope("compare", computed, computed.with_name("run1.zarr"), "--metric", "gradients")
    assert outcome.code == 2
    assert "gradients has no values along the steps to compare: its values are along step t'" in outcome.err
    assert "or at all forks of a run with `tscope forks`" in outcome.err


def test_a_figure_needs_something_to_draw_and_traces_are_given_once(
    tscope: Runner, base: Path, tmp_path: Path
) -> None:
    outcome = tscope("forks", base, "--plot", tmp_path / "sweep.svg")
    assert outcome.code == 4
    assert "no result is saved for any of these forks; add `--compute`" in outcome.err
    outcome = tscope("forks", base, "--plot", tmp_path / "sweep.txt")
    assert outcome.code == 2
    assert "the name must end in .svg, .png or .pdf" in outcome.err
    outcome = tscope("forks", base, base)
    assert outcome.code == 2
    assert "a trace was given twice" in outcome.err


def test_results_of_other_steps_are_not_taken_and_other_options_are_told(tscope: Runner, base: Path) -> None:
    fork = base.with_name("run1.zarr")
    gradients = ("--metric", "gradients", "--quiet")
    for asked in (("--since", 0), ("--since", COMMON, "--at", COMMON + 1)):
        assert tscope("analyze", fork, *gradients, *asked).code == 0
        assert json.loads(tscope("forks", base, "--json").out)["forks"][0]["changes"] == {}
    assert tscope("analyze", fork, *gradients, "--since", COMMON, "--train", 3).code == 0
    assert tscope("analyze", base, *gradients, "--since", COMMON).code == 0
    outcome = tscope("forks", base)
    assert "note: results of gradients were computed with different train" in outcome.out


def test_a_run_that_diverged_has_no_changes_at_its_end(computed: Path, tmp_path: Path) -> None:
    shutil.copytree(computed.parent, tmp_path / "runs")
    base = tmp_path / "runs" / "run0.zarr"
    fork = base.with_name("run1.zarr")
    found = load_result(fork, "gradients")
    save_result(fork, replace(found, scalars={**found.scalars, "steps": COMMON + 1, "stopped": 9}), "model")
    first, second = read_forks(base, compute=True, gradients=True)
    assert math.isnan(first.change("train"))
    assert first.changes["fork"].values == {}
    assert math.isfinite(second.change("train"))


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
