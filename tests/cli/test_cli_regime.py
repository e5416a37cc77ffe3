"""`tscope analyze --metric regime`: movements, the table of modes, the chart and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from cli_runner import Runner
from torch import nn, optim

from tests.analyses.test_regime_runs import linear, trained
from tests.optimizers.recorded import data, train
from tscope.trace import Trace


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return trained(tmp_path_factory.mktemp("regime") / "run.zarr", linear(), 0.01, 200)


def test_movements_and_modes_are_told(tscope: Runner, run: Trace) -> None:
    outcome = tscope("analyze", run.path, "--metric", "regime", "--no-save")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[1].split()[:4] == ["step", "parameters", "kernel", "features"]
    start = lines.index("modes")
    heads = ["mode", "target", "s", "D", "start", "end", "Λ/s", "half", "at", "step", "balanced", "with", "Λ"]
    assert lines[start + 1].split() == heads
    rows = [[float(word) for word in line.split()[:3]] for line in lines[start + 2 : start + 5]]
    assert rows == [[0, 4, 1], [1, 2, 1], [2, 1, 1]]
    words = " ".join(outcome.out.split())
    assert "modes of the network and their closed forms" in words
    assert "The modes follow their closed forms up to 0.0" in words
    assert "a lazy run moves its kernel little" in words


def test_parts_and_rows_reach_the_metric_and_a_nonlinear_net_is_refused(
    tscope: Runner, run: Trace, tmp_path: Path
) -> None:
    outcome = tscope(
        *("analyze", run.path, "-m", "regime", "--parts", "features", "--at", "last", "--no-save", "--json")
    )
    found = json.loads(outcome.out)
    assert found["arrays"]["step"]["data"] == [0, 200]
    assert "strength" not in found["arrays"]
    assert tscope("analyze", run.path, "-m", "regime", "--parts", "x").code == 2
    torch.manual_seed(0)
    x, y = data(3)
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    trace = train(tmp_path / "t.zarr", module, optimizer, [(x, y)] * 3, nn.functional.mse_loss)
    outcome = tscope("analyze", trace.path, "-m", "regime", "--parts", "modes")
    assert outcome.code == 1
    assert "the model is not a linear network: it holds aten.relu.default" in outcome.err
    outcome = tscope("analyze", trace.path, "-m", "regime", "--no-save")
    assert outcome.code == 0
    assert "modes" not in outcome.out.splitlines()
