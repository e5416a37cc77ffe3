"""`tscope analyze --metric weight-averaging`: tables, words, figures, JSON, CSV, and refusals."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from cli_runner import Runner

from tests.analyses.averaging_runs import Runs, make_runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return make_runs(tmp_path_factory.mktemp("averaging"), runs=3)


def analyze(tscope: Runner, runs: Runs, *arguments: object):
    trace = runs.traces[0].path
    return tscope("analyze", trace, "--metric", "weight-averaging", "--probe", runs.held, *arguments)


def against(runs: Runs, *places: int) -> tuple[str, str]:
    return "--against", ",".join(str(runs.traces[place].path) for place in places)


def test_two_runs_are_told_along_alpha(tscope: Runner, runs: Runs) -> None:
    outcome = analyze(tscope, runs, *against(runs, 1), "--points", 3, "--no-save")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[1].split()[:4] == ["α", "train", "avg", "ensemble"]
    places = [line.split()[0] for line in lines[2:] if line.startswith(("  0.", "  1."))]
    assert {"0.000", "0.500", "1.000"} <= set(places)
    assert places == sorted(places)
    assert "loss on held-out examples" in outcome.out
    words = " ".join(outcome.out.split())
    assert "On held-out examples the average in equal parts has the loss" in words
    assert "the barrier is" in words
    assert "Curvature at the fork, to second order, predicts" in words
    assert "With a single layer averaged half-way the loss on held-out examples changes most for" in words
    assert "averages between two: step 22 of run0.zarr, step 22 of run1.zarr" in outcome.err


def test_several_runs_are_told_by_their_number(tscope: Runner, runs: Runs) -> None:
    outcome = analyze(tscope, runs, *against(runs, 1, 2), "--no-save")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[1].split()[0] == "models"
    assert [line.split()[0] for line in lines[2:5]] == ["1", "2", "3"]
    assert "the barrier is" in " ".join(outcome.out.split())


def test_one_run_is_searched_for_averages_along_it(tscope: Runner, runs: Runs, tmp_path: Path) -> None:
    outcome = analyze(
        *(tscope, runs, "--starts", "0.5", "--decays", "0.5,0.9", "--counts", "2", "--every", 4),
        *("--csv", tmp_path, "--no-save"),
    )
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[1].split()[:6] == ["step", "run", "tail", "SWA", "EMA", "LAWA"]
    assert lines[2].split()[2] == "-"  # the tail begins later
    words = " ".join(outcome.out.split())
    assert "Chosen on half of the held-out examples: " in words
    assert "note: averages were chosen by their loss on 3 of the held-out examples" in words
    assert "5 averages along 22 rows, checkpoints every 4 rows" in outcome.err
    with (tmp_path / "weight-averaging_candidate.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    assert float(rows[2]["candidate_value"]) == 0.5


def test_the_options_reach_the_metric(tscope: Runner, runs: Runs) -> None:
    outcome = analyze(
        *(tscope, runs, *against(runs, 1), "--at", "8,last", "--points", 4, "--match", "--no-recalibrate"),
        *("--no-layers", "--train", 6, "--test", 5, "--seed", 3, "--no-save", "--json", "--quiet"),
    )
    assert outcome.code == 0
    found = json.loads(outcome.out)
    options = found["provenance"]["options"]
    assert (options["match"], options["recalibrate"], options["layers"]) == (True, False, False)
    assert (found["scalars"]["examples_train"], found["scalars"]["examples_test"]) == (6, 5)
    assert [member["step"] for member in found["provenance"]["members"]] == [8, 22]
    assert {0, 1 / 3, 2 / 3, 1} <= set(found["arrays"]["alpha"]["data"])
    assert "layer_rise_test" not in found["arrays"]
    assert found["scalars"]["units"] == 6


def test_the_figure_is_over_alpha_and_shows_single_layers(tscope: Runner, runs: Runs, tmp_path: Path) -> None:
    figure = tmp_path / "averaging.svg"
    assert analyze(tscope, runs, *against(runs, 1), "--no-save", "--plot", figure).code == 0
    text = figure.read_text()
    assert "<!-- α, the first model's weight -->" in text
    assert "<!-- step -->" not in text
    assert "rise of the loss with one layer averaged" in text


def test_a_saved_result_is_found_again(tscope: Runner, runs: Runs) -> None:
    assert analyze(tscope, runs, "--decays", "0.9", "--counts", "2", "--quiet").code == 0
    other = tscope("analyze", runs.traces[1].path, "--metric", "weight-averaging", "--probe", runs.held)
    assert other.code == 0
    outcome = tscope("compare", *(trace.path for trace in runs.traces[:2]), "--metric", "weight-averaging")
    assert outcome.code == 0
    assert outcome.out.splitlines()[0].split()[:2] == ["trace", "differs"]
    assert "weight-averaging" in tscope("info", runs.traces[0].path).out


def test_refusals_are_one_line_with_their_exit_code(tscope: Runner, runs: Runs, tmp_path: Path) -> None:
    outcome = analyze(tscope, runs, "--match")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert analyze(tscope, runs, "--against", tmp_path).code == 3
    assert tscope("analyze", runs.traces[0].path, "--metric", "weight-averaging", "--test", 3).code == 4
    outcome = analyze(tscope, runs, *against(runs, 1), "--points", 1)
    assert outcome.err == "tscope: points must be at least 3, got 1: both ends and one between\n"
