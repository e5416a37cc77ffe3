"""`tscope analyze --metric kernel` on a small recorded run: its table, words, figure, JSON, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_runner import Runner

from tests.analyses.effective_runs import Run, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = make_run(tmp_path_factory.mktemp("kernel"), optimizer="adam")
    np.savez(made.held, x=np.load(made.held)["x"], y=np.linspace(-1, 1, 5)[:, None])
    return made


def analyze(tscope: Runner, run: Run, *arguments: object):
    return tscope("analyze", run.trace.path, "--metric", "kernel", "--probe", run.held, *arguments)


def test_the_kernel_is_told_as_a_table_a_chart_shares_and_words(tscope: Runner, run: Run) -> None:
    outcome = analyze(tscope, run, "--every", "3", "--no-save")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[1].split()[:6] == ["step", "trace", "eff.", "rank", "align", "align"]
    assert [line.split()[0] for line in lines[2:6]] == ["0", "3", "6", "9"]
    assert "movement of the kernel, relative to its start" in outcome.out
    assert "share of the kernel's trace at the last step, by layer" in outcome.out
    words = " ".join(outcome.out.split())
    assert "At step 9 the tangent kernel of the training examples has moved by" in words
    assert "Its alignment with the labels went from" in words
    assert "times those of a training example." in words
    assert "exact kernels at 4 rows, of 10 training and 5 held-out examples with C = 1" in outcome.err


def test_the_options_reach_the_metric(tscope: Runner, run: Run) -> None:
    outcome = analyze(
        *(tscope, run, "--at", "2,last", "--preconditioned", "--train", 4, "--test", 3, "--eigenvalues", 2),
        *("--matrix", "last", "--no-layers", "--no-save", "--json", "--quiet"),
    )
    assert outcome.code == 0
    found = json.loads(outcome.out)
    assert found["metric"] == "kernel"
    assert found["arrays"]["step"]["data"] == [0, 2, 8]
    assert found["arrays"]["eigenvalues_train"]["shape"] == [3, 2]
    assert found["arrays"]["kernel"]["shape"] == [1, 7, 1, 7, 1]
    assert found["arrays"]["velocity_train"]["data"][0] is None
    assert found["scalars"]["preconditioned"] is True
    assert found["provenance"]["options"]["train"] == 4


def test_the_figure_shows_series_spectrum_and_matrix(tscope: Runner, run: Run, tmp_path: Path) -> None:
    figure = tmp_path / "kernel.svg"
    outcome = analyze(tscope, run, "--at", "3,last", "--matrix", "last", "--no-save", "--plot", figure)
    assert outcome.code == 0
    text = figure.read_text()
    for title in ("alignment with the labels", "spectrum", "K at step 9, mean over outputs"):
        assert f"<!-- {title} -->" in text
    assert "<image" in text


def test_a_request_that_cannot_be_met_is_one_line(tscope: Runner, run: Run) -> None:
    outcome = analyze(tscope, run, "--train", "11")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "tscope: --train 11: there are 10 training examples\n"
    outcome = analyze(tscope, run, "--max-memory", "0.001")
    assert outcome.code == 1
    assert "take fewer: `--train N`, `--test N`" in outcome.err


def test_a_result_is_saved_where_the_browser_finds_it(tscope: Runner, run: Run) -> None:
    outcome = analyze(tscope, run, "--at", "last", "--quiet")
    assert outcome.code == 0
    assert list((run.trace.path / "analysis" / "kernel").iterdir())
