"""`tscope analyze --metric gradients`: the table over t', that of layers, words, the figure and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runner import Runner
from tscope_cli import views
from tscope_format import Result

from tests.analyses.layer_runs import Run, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("gradients"))


def analyze(tscope: Runner, run: Run, *arguments: object):
    return tscope("analyze", run.trace.path, "--metric", "gradients", "--probe", run.held, *arguments)


def test_changes_are_told_by_t_and_by_layer(tscope: Runner, run: Run) -> None:
    outcome = analyze(tscope, run, "--no-save", "--since", "0,4")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[1].split()[:5] == ["t'", "change", "to", "the", "end"]
    assert [line.split()[0] for line in lines[2:4]] == ["0", "4"]
    start = lines.index("gradients of each layer, from the first t' to the last step")
    assert [line.split()[0] for line in lines[start + 2 : start + 5]] == ["0", "1", "3"]
    words = " ".join(outcome.out.split())
    assert "change of gradients from t' to the last step" in words
    assert "From step 0 to 9 the gradients of training examples changed by " in words
    assert "the gradients of held-out examples changed by " in words
    assert "rows against 2 of them, of 10 training and 5 held-out examples" in outcome.err


def test_options_reach_the_metric_and_the_figure_is_over_t(tscope: Runner, run: Run, tmp_path: Path) -> None:
    figure = tmp_path / "gradients.svg"
    outcome = analyze(
        *(tscope, run, "--since", "2,0", "--every", 3, "--stable", 0.5, "--train", 4, "--test", 3),
        *("--seed", 5, "--no-save", "--json", "--plot", figure),
    )
    assert outcome.code == 0
    found = json.loads(outcome.out)
    assert found["arrays"]["since"]["data"] == [0, 2]
    assert found["arrays"]["step"]["data"] == [0, 2, 3, 6, 9]
    scalars = found["scalars"]
    assert (scalars["stable"], scalars["examples_train"], scalars["examples_test"]) == (0.5, 4, 3)
    text = figure.read_text()
    assert "<!-- step t' that the last step is compared with -->" in text
    assert "<!-- step -->" not in text


def test_refusals_have_their_exit_codes(tscope: Runner, run: Run) -> None:
    assert analyze(tscope, run, "--since", "x").code == 2
    assert analyze(tscope, run, "--max-memory", "0.001").code == 1


def test_the_reading_says_where_gradients_are_stable_or_that_they_are_not(run: Run, tscope: Runner) -> None:
    folder = run.trace.path.with_name("results")
    assert analyze(tscope, run, "--save-to", folder, "--stable", 1e-9, "--quiet").code == 0
    from tscope_format.results import load_result

    found = load_result(folder, "gradients")
    assert (
        views.view_of(found)
        .reading(found)[0]
        .endswith("; from none of the steps compared did they stay within 0.00 %.")
    )
    assert views.view_of(Result("gradients", {}, {}, {}, ())).reading(Result("gradients", {}, {}, {})) == ()
