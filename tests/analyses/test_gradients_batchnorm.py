"""Gradients of a network with BatchNorm, with the statistics of each row's parameters or those recorded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn, optim

import tscope
from tests.analyses.layer_runs import Run, make_run
from tests.reference.jacobians import jacobian


def normalised() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6, momentum=0.3), nn.Tanh(), nn.Linear(6, 3)
    ).double()


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Run, dict[str, torch.Tensor]]:
    """A run, and the statistics that its module ended with."""
    folder = tmp_path_factory.mktemp("gradients-batchnorm")
    run = make_run(folder, lambda p: optim.SGD(p, lr=0.05, momentum=0.9), normalised())
    return run, {name: value.clone() for name, value in run.module.named_buffers()}


@pytest.fixture
def run(trained) -> Run:
    return trained[0]


def explicit(run: Run, points: torch.Tensor) -> np.ndarray:
    """J of all parameters as one vector, of the module in evaluation mode."""
    J = jacobian(run.module.eval(), [points])
    return np.concatenate([value.numpy().ravel() for value in J.values()])


def change(run: Run, statistics) -> tuple[float, float]:
    """Change and cosine of held-out gradients from row 0 to the last, with the statistics that are set."""
    found = []
    for row in (0, len(run.thetas) - 1):
        run.module.load_state_dict(run.thetas[row], strict=False)
        statistics(row)
        found.append(explicit(run, run.points))
    a, b = found
    return float((b - a) @ (b - a) / (a @ a)), float(a @ b / np.sqrt((a @ a) * (b @ b)))


def analysed(run: Run, **options):
    return tscope.analyze(
        run.trace, "gradients", save=False, probe=str(run.held), since="0", at="last", **options
    )


def test_statistics_are_those_of_each_rows_parameters_as_update_bn_computes_them(run: Run):
    x = torch.from_numpy(run.trace["examples/input/0"])

    def update(row: int) -> None:
        torch.optim.swa_utils.update_bn(x.split(4), run.module)

    found = analysed(run)
    expected = change(run, update)
    assert found.scalars["change_test"] == pytest.approx(expected[0], rel=1e-12)
    assert found.scalars["cosine_test"] == pytest.approx(expected[1], rel=1e-12)
    assert found.scalars["recalibrated"] is True
    assert found.notes == (
        "BatchNorm's statistics of every row are those of 10 training examples in batches of 4 "
        "(`--no-recalibrate`: the recorded ones)",
    )


def test_recorded_statistics_are_taken_when_they_are_asked_for(run: Run, trained):
    first = {"1.running_mean": torch.zeros(6), "1.running_var": torch.ones(6)}

    def restore(row: int) -> None:
        run.module.load_state_dict(trained[1] if row else first, strict=False)

    found = analysed(run, recalibrate=False)
    expected = change(run, restore)
    assert found.scalars["change_test"] == pytest.approx(expected[0], rel=1e-12)
    assert found.scalars["recalibrated"] is False
    assert found.notes == (
        "gradients are those of the model in evaluation mode, with the buffers of each row",
    )
    assert abs(found.scalars["change_test"] / analysed(run).scalars["change_test"] - 1) > 0.05
