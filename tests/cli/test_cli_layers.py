"""`tscope analyze --metric layers`: tables of steps, layers, matrices and pairs, words, files, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_runner import Runner
from tscope_cli import layered, views
from tscope_format import Result
from tscope_format.results import Array

from tests.analyses.layer_runs import Run, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("layers"))


def analyze(tscope: Runner, run: Run, *arguments: object):
    return tscope("analyze", run.trace.path, "--metric", "layers", "--probe", run.held, *arguments)


def test_layers_matrices_and_pairs_have_tables_of_their_own(tscope: Runner, run: Run) -> None:
    outcome = analyze(tscope, run, "--no-save")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[1].split()[:4] == ["step", "‖θ‖", "‖Δθ‖", "‖g‖"]
    layer = lines.index("each layer, at the last step and over all steps")
    assert [line.split()[0] for line in lines[layer + 2 : layer + 5]] == ["0", "1", "3"]
    shares = [float(line.split()[4]) for line in lines[layer + 2 : layer + 5]]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    matrix = lines.index("each matrix, at the last step and at the first")
    assert lines[matrix + 2].split()[0] == "0.weight"
    pair = lines.index("balancedness of consecutive linear layers")
    assert lines[pair + 2].strip().startswith("0 → 1")
    words = " ".join(outcome.out.split())
    assert "movement from the start, ‖θ − θ₀‖/‖θ₀‖" in words
    assert "At step 9 " in words
    assert "The loss on the probe set changed by " in words
    assert "Balancedness follows the identity of gradient descent up to " in words


def test_options_reach_the_metric_and_files_are_written(tscope: Runner, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "csv"
    outcome = analyze(
        *(tscope, run, "--parts", "norms,spectra,balance", "--singular-values", 2, "--every", 3),
        *("--no-save", "--json", "--csv", folder),
    )
    assert outcome.code == 0
    found = json.loads(outcome.out)
    assert found["arrays"]["step"]["data"] == [0, 3, 6, 9]
    assert found["arrays"]["singular_values"]["shape"] == [4, 3, 2]
    assert found["provenance"]["pairs"] == ["0 → 1", "1 → 3"]
    assert "contribution" not in found["arrays"]
    panels = {panel.title: panel.curves for panel in views.view_of(Result.from_dict(found)).panels}
    assert [curve.title for curve in panels["balancedness ‖Q‖ of consecutive layers"]] == ["0 → 1", "1 → 3"]
    assert [curve.title for curve in panels["effective rank"]] == ["0.weight", "1.weight", "3.weight"]
    assert any("balance" in path.read_text().splitlines()[0] for path in folder.iterdir())


def test_a_part_that_cannot_be_computed_and_was_asked_for_is_an_error(tscope: Runner, run: Run) -> None:
    outcome = tscope("analyze", run.trace.path, "--metric", "layers", "--parts", "contributions")
    assert (outcome.code, outcome.out) == (4, "")
    assert "holds no probe set" in outcome.err
    assert analyze(tscope, run, "--parts", "weights").code == 2


def test_many_layers_are_cut_and_the_largest_are_drawn() -> None:
    values = np.arange(90.0).reshape(3, 30) * (np.arange(30) % 5 == 0)
    arrays = {"step": Array(("step",), np.arange(3)), "movement": Array(("step", "layer"), values)}
    names = [f"l{index}" for index in range(30)]
    result = Result("layers", {"steps": 2}, arrays, {"layers": names}, ())
    ((_, lines),) = layered.tables(result)
    assert len(lines) == 1 + 24 + 1
    assert lines[-1] == "and 6 more"
    drawn = views.view_of(result).panels[0].curves
    assert [curve.title for curve in drawn] == ["l0", "l5", "l10", "l15", "l20", "l25"]
    assert views.drawn(result, views.view_of(result).panels[0], drawn[1]).tolist() == [5.0, 35.0, 65.0]
    assert views.view_of(result).reading(result)[0].startswith("At step 2 l25 has moved furthest")
