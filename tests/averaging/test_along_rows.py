"""Averages along a run as weights of its rows, against torch's own averaged models and plain sums."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.models import Conv, batches, images
from tests.traces import Run, train, write
from tscope import open as open_trace
from tscope.averaging import Schedule, combine, ema, lawa, swa, tail

STEPS = 9


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A float32 run of convolutions with BatchNorm, whose buffers move."""
    torch.manual_seed(0)
    module = Conv()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    path = tmp_path_factory.mktemp("along") / "run.zarr"
    return train(path, module, optimizer, batches(images, STEPS), nn.functional.cross_entropy)


def rows_of(run: Run, name: str) -> np.ndarray:
    return np.stack([state[name].double().numpy() for state in run.states])


def averaged(run: Run, *weights: np.ndarray, memory: float = 1e9):
    return list(combine(open_trace(run.path), weights, torch.float64, memory))


def test_an_ema_is_that_of_torch(run):
    decay = 0.9
    model = copy.deepcopy(run.module).double()
    mean = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    for state in run.states[1:]:
        model.load_state_dict(state)
        mean.update_parameters(model)
    (found,) = averaged(run, ema(STEPS, decay))
    for name, value in mean.module.named_parameters():
        torch.testing.assert_close(found.theta[name], value.detach(), rtol=1e-13, atol=1e-15)


def test_swa_is_that_of_torch(run):
    model = copy.deepcopy(run.module).double()
    mean = AveragedModel(model)
    for row in (4, 6, 8):  # checkpoints every 2 rows, from row 3 on
        model.load_state_dict(run.states[row])
        mean.update_parameters(model)
    (found,) = averaged(run, swa(STEPS, 3, 2))
    for name, value in mean.module.named_parameters():
        torch.testing.assert_close(found.theta[name], value.detach(), rtol=1e-13, atol=1e-15)


def test_tails_and_latest_checkpoints_are_plain_means(run):
    found = averaged(run, tail(STEPS, 7), lawa(STEPS, 3, 2), lawa(5, 2, 2))
    for state, rows in zip(found, ([7, 8, 9], [4, 6, 8], [2, 4]), strict=True):
        for name in ("conv.weight", "head.bias", "norm.running_var"):
            held = state.theta if name in state.theta else state.buffers
            expected = rows_of(run, name)[rows].mean(0)
            np.testing.assert_allclose(held[name].numpy(), expected, rtol=1e-14)
        last = rows[-1]
        counted = state.buffers["norm.num_batches_tracked"]
        assert torch.equal(counted, run.states[last]["norm.num_batches_tracked"])


def test_one_row_is_itself_bit_for_bit_and_memory_changes_nothing(run):
    alone = np.zeros(6)
    alone[5] = 1
    trace = open_trace(run.path)
    (state,) = combine(trace, [alone], torch.float32, 1e9)
    assert all(torch.equal(value, run.states[5][name]) for name, value in state.theta.items())
    weights = [tail(STEPS, 2), ema(STEPS, 0.5), alone]
    for whole, piece in zip(averaged(run, *weights), averaged(run, *weights, memory=1), strict=True):
        assert all(torch.equal(value, piece.theta[name]) for name, value in whole.theta.items())


def test_every_average_has_weights_that_sum_to_one_or_none():
    for schedule in (
        Schedule("tail", 4),
        Schedule("swa", 4, 3),
        Schedule("ema", 0.7),
        Schedule("lawa", 2, 3),
    ):
        for row in range(1, 12):
            weights = schedule.weights(row)
            if weights is not None:
                assert len(weights) == row + 1
                assert weights.sum() == pytest.approx(1, abs=1e-15)
                assert weights[0] == 0
    assert tail(3, 4) is None
    assert swa(5, 4, 3) is None  # the first checkpoint from row 4 on is row 6
    assert lawa(5, 2, 3) is None
    assert ema(0, 0.9) is None


def test_rows_without_a_weight_may_be_anything(tmp_path):
    """A run that diverged later still has its averages before."""
    torch.manual_seed(0)
    module = nn.Linear(2, 1)
    run = Run(tmp_path / "run.zarr", module)
    run.remember()
    for value in (1.0, 2.0, float("nan")):
        with torch.no_grad():
            module.weight.fill_(value)
        run.remember()
    write(run, (torch.zeros(2, 2),), {})
    good, bad = np.array([0, 0.5, 0.5, 0.0]), np.array([0, 0.5, 0.0, 0.5])
    (found,) = averaged(run, good)
    assert found.theta["weight"].tolist() == [[1.5, 1.5]]
    beside, diverged = averaged(run, good, bad)
    assert beside.theta["weight"].tolist() == [[1.5, 1.5]]
    assert diverged.theta["weight"].isnan().all()
    assert torch.equal(diverged.theta["bias"], run.states[0]["bias"].double())  # it stayed as it was
