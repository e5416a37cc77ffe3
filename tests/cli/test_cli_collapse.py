"""`tscope analyze --metric neural-collapse`: table, words, figure, JSON, CSV and refusals."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_runner import Runner
from torch import nn, optim
from tscope_cli import views
from tscope_format import Result

from tests.optimizers.recorded import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collapse")
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    y = torch.arange(12) % 3
    x = torch.randn(12, 4, dtype=torch.float64) + y[:, None]
    np.savez(folder / "held.npz", x=(x[:9] + 0.1).numpy(), y=y[:9].numpy())
    optimizer = optim.SGD(module.parameters(), lr=0.5)
    train(folder / "run.zarr", module, optimizer, [(x, y)] * 6, nn.functional.cross_entropy)
    return folder


def analyze(tscope: Runner, run: Path, *arguments: object):
    return tscope("analyze", run / "run.zarr", "--metric", "neural-collapse", *arguments)


def test_the_four_numbers_are_a_table_and_words(tscope: Runner, run: Path) -> None:
    outcome = analyze(tscope, run, "--probe", run / "held.npz", "--no-save")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[1].split()[:5] == ["step", "NC1", "held-out", "NC2", "norms"]
    assert [line.split()[0] for line in lines[2:9]] == [str(step) for step in range(7)]
    words = " ".join(outcome.out.split())
    assert "NC1: spread within classes, relative to that between" in words
    assert "At step 6, features that 2 reads of training examples: NC1, " in words
    assert "features that 2 reads of held-out examples" in words
    assert "(NC4)." in words


def test_options_reach_the_metric_and_files_are_written(tscope: Runner, run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "csv"
    outcome = analyze(
        *(tscope, run, "--at", "2,last", "--train", 11, "--seed", 1, "--loss", "cross_entropy"),
        *("--no-save", "--json", "--csv", folder),
    )
    assert outcome.code == 0
    found = json.loads(outcome.out)
    assert found["arrays"]["step"]["data"] == [0, 2, 6]
    assert found["scalars"]["examples_train"] == 11
    assert found["provenance"]["pinv_rtol"] == 1e-6
    titles = [panel.title for panel in views.view_of(Result.from_dict(found)).panels]
    assert "NC3: class means against the classifier" in titles
    tables = [list(csv.reader(path.read_text().splitlines())) for path in folder.iterdir()]
    (series,) = [table for table in tables if "nc1_train" in table[0]]
    place = series[0].index("nc1_train")
    assert [float(row[place]) for row in series[1:]] == found["arrays"]["nc1_train"]["data"]


def test_refusals_are_one_line_with_their_exit_code(tscope: Runner, run: Path) -> None:
    outcome = analyze(tscope, run, "--train", 3, "--seed", 2)
    assert (outcome.code, outcome.out) == (1, "")
    assert "neural collapse needs two of each of the model's classes at least" in outcome.err
    assert analyze(tscope, run, "--at", "x").code == 2


def test_a_result_without_numbers_has_no_words() -> None:
    empty = Result("neural-collapse", {"nc1_train": None}, {}, {}, ())
    assert views.view_of(empty).reading(empty) == ()
