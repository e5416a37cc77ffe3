"""`tscope analyze --metric boosting`: table, words, figure, JSON, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runner import Runner
from tscope_cli import views
from tscope_format import Result
from tscope_format.results import load_result

from tests.analyses.boosting_pairs import Pair, make_pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("boosting"))


def analyze(tscope: Runner, pair: Pair, *arguments: object):
    return tscope("analyze", pair.net.path, "--metric", "boosting", "--against", pair.trees.path, *arguments)


def test_the_comparison_is_told_by_shares_as_a_table_a_chart_and_words(tscope: Runner, pair: Pair) -> None:
    outcome = analyze(tscope, pair, "--shares", "0,0.5,1", "--irregular", "0.2")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[1].split()[:3] == ["irregular", "weights,", "net"]
    assert [line.split("%")[0].strip() for line in lines[2:5]] == ["0", "50.0", "100"]
    assert "largest kernel weights, relative to those of training examples" in outcome.out
    words = " ".join(outcome.out.split())
    assert "From 0 % to 100 % irregular test examples the network's largest kernel weights go from" in words
    assert "note: irregularity is along the first principal component" in words
    assert "kernels at 6 rows, of 30 training and 20 test examples, against 6 trees; 4 test" in outcome.err
    (saved,) = (pair.net.path / "analysis" / "boosting").iterdir()
    found = load_result(pair.net.path, "boosting", saved.name)
    assert views.view_of(found).reading(found)[1].startswith("The network's squared error is ")


def test_the_options_reach_the_metric(tscope: Runner, pair: Pair) -> None:
    outcome = analyze(
        *(tscope, pair, "--against-root", "model", "--irregularity", "mahalanobis", "--irregular", "0.25"),
        *("--shares", "1,0", "--draws", 3, "--seed", 7, "--train", 9, "--every", 4, "--no-save", "--json"),
    )
    assert outcome.code == 0
    found = json.loads(outcome.out)
    assert found["arrays"]["share"]["data"] == [0, 1]
    assert found["arrays"]["step_net"]["data"] == [0, 4]
    assert found["scalars"]["examples_irregular"] == 5
    assert found["scalars"]["examples_train"] == 9
    options = found["provenance"]["options"]
    assert (options["draws"], options["seed"], options["against_root"]) == (3, 7, "model")


def test_the_figure_is_over_shares(tscope: Runner, pair: Pair, tmp_path: Path) -> None:
    figure = tmp_path / "boosting.svg"
    outcome = analyze(tscope, pair, "--draws", 2, "--no-save", "--plot", figure)
    assert outcome.code == 0
    text = figure.read_text()
    assert "<!-- share of irregular test examples -->" in text
    assert "<!-- step -->" not in text


def test_refusals_are_one_line_with_their_exit_code(tscope: Runner, pair: Pair) -> None:
    outcome = tscope("analyze", pair.net.path, "--metric", "boosting")
    assert (outcome.code, outcome.out) == (4, "")
    assert outcome.err.endswith(
        "lacks what boosting needs: an ensemble of trees to compare with. Name its trace: `--against "
        "TREES.zarr`\n"
    )
    assert analyze(tscope, pair, "--draws", 0).code == 2
    outcome = tscope("analyze", pair.net.path, "--metric", "boosting", "--against", pair.net.path)
    assert (outcome.code, outcome.out) == (4, "")
    outcome = tscope("analyze", pair.net.path, "--metric", "boosting", "--against", pair.net.path / "theta")
    assert (outcome.code, outcome.out) == (3, "")


def test_what_is_not_along_steps_cannot_be_compared_by_steps(
    tscope: Runner, pair: Pair, tmp_path: Path
) -> None:
    copies = []
    for name in ("a", "b"):
        other = make_pair(tmp_path / name)
        assert analyze(tscope, other, "--draws", 2, "--quiet").code == 0
        copies.append(other.net.path)
    outcome = tscope("compare", *copies, "--metric", "boosting")
    assert outcome.code == 2
    assert (
        "boosting has no values along the steps to compare: its values are along share of irr" in outcome.err
    )


def test_a_comparison_with_a_hole_is_not_put_in_words() -> None:
    empty = Result("boosting", {"norm_net_first": None}, {}, {}, ())
    assert views.view_of(empty).reading(empty) == (
        "The two cannot be compared: an error or a norm is not finite.",
    )
