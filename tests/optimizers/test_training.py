"""Training steps by replay: what a step holds, and where a walk may start."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recorded import Recorder, data, epochs, mlp, train
from torch import nn, optim
from walks import mse, one_step, simple, started, walk

import tscope
from tests import models


def test_a_step_holds_the_batch_and_the_gradient_of_its_loss(tmp_path):
    x, y = data(1)
    trace = train(
        tmp_path / "run.zarr",
        module := mlp(1),
        optim.SGD(module.parameters(), lr=0.1),
        [(x, y)] * 3,
        mse,
        micro=5,
    )
    module = mlp(1)
    for step in walk(trace):
        for name, value in module.named_parameters():
            assert torch.allclose(value, step.theta[name], atol=1e-14)
        gradient = torch.autograd.grad(mse(module(x), y), list(module.parameters()))
        for name, expected in zip(step.gradient, gradient, strict=True):
            assert torch.allclose(step.gradient[name], expected, atol=1e-14)
        assert step.sizes == (2, 2, 2, 2, 2)
        assert step.scales == (1.0,) * 5
        assert sorted(step.examples.tolist()) == list(range(10))
        assert torch.equal(step.inputs[0], x)
        assert step.residual.output < 1e-14
        with torch.no_grad():
            for value, part in zip(module.parameters(), gradient, strict=True):
                value -= 0.1 * part
        for name, value in module.named_parameters():
            assert torch.allclose(value, step.after[name], atol=1e-14)
            assert torch.equal(step.change[name], step.after[name] - step.theta[name])


def test_the_linear_map_gives_the_update(tmp_path):
    """Of the table's recursion with the labels' column: that is what S and c are made of."""
    trace = simple(tmp_path, make=lambda p: optim.NAdam(p, lr=0.02, weight_decay=0.1))
    moments = {}
    for step in walk(trace):
        u = step.update
        for name, theta in step.theta.items():
            gradient = u.rho[name] * step.gradient[name] + u.coupled[name] * theta
            inner = gradient if u.d_in is None else u.d_in[name] * gradient
            before = moments.get(name, torch.zeros_like(theta))
            moments[name] = u.mu[name] * before + u.nu[name] * inner
            delta = -(u.a[name] * moments[name] + u.b[name] * gradient)
            delta = (delta if u.d_out is None else u.d_out[name] * delta) - u.decoupled[name] * theta
            assert torch.allclose(delta, step.change[name], atol=1e-15)


def test_groups_have_their_own_rates_and_decay_and_frozen_parameters_stay(tmp_path):
    module = mlp(3)
    module[0].bias.requires_grad_(False)
    groups = [
        {"params": [module[0].weight], "lr": 0.02, "weight_decay": 0.0},
        {"params": [module[2].weight], "betas": (0.5, 0.7)},
        {"params": [module[2].bias], "amsgrad": True},
    ]
    optimizer = optim.AdamW(groups, lr=0.01, weight_decay=0.2)
    scheduler = optim.lr_scheduler.LambdaLR(optimizer, [lambda t: 1.0, lambda t: 0.5**t, lambda t: 1 + t])
    trace = train(tmp_path / "run.zarr", module, optimizer, epochs(*data(3), 4, 2), mse, scheduler=scheduler)
    for t, step in enumerate(walk(trace)):
        assert step.residual.relative < 1e-12
        assert set(step.update.a) == {"0.weight", "2.weight", "2.bias"}
        decays = step.update.decoupled
        assert decays["0.weight"] == 0
        assert decays["2.weight"] == pytest.approx(0.01 * 0.5**t * 0.2)
        assert decays["2.bias"] == pytest.approx(0.01 * (1 + t) * 0.2)


class Branches(nn.Module):
    """A model of which a part has no gradient in some steps, and a parameter that is a single number."""

    def __init__(self):
        super().__init__()
        self.main, self.other = mlp(1), nn.Linear(4, 1).double()
        self.scale = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

    def forward(self, x):
        return self.scale * (self.main(x) + self.other(x))


@pytest.mark.parametrize("start", [1, 5, 9, 12, 17])
def test_a_parameter_without_gradient_stays_with_its_state_and_a_walk_may_start_anywhere(tmp_path, start):
    x, y = data(1)
    recorder = started(tmp_path, lambda p: optim.RAdam(p, lr=0.05, weight_decay=0.1), Branches())
    for number in range(19):
        recorder.module.other.requires_grad_(number % 3 != 0)
        recorder.module.zero_grad()
        mse(recorder.forward(x[number % 4 : 8]), y[number % 4 : 8]).backward()
        recorder.step()
    trace = recorder.close()
    steps = list(walk(trace, start_row=start, stop_row=19))
    assert [step.row for step in steps] == list(range(start, 19))
    for step in steps:
        assert step.residual.relative < 1e-12
        assert ("other.weight" in step.update.a) == ((step.row - 1) % 3 != 0)


def test_a_run_without_state_starts_anywhere_without_a_walk(tmp_path):
    trace = simple(tmp_path, 7, lambda p: optim.SGD(p, lr=0.1))
    (step,) = walk(trace, start_row=7)
    assert step.row == 7
    assert step.residual.relative < 1e-12


def test_hyper_parameters_that_change_on_the_way(tmp_path):
    recorder = started(tmp_path, lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1))
    for number in range(12):
        group = recorder.optimizer.param_groups[0]
        group["momentum"] = [0.9, 0.5, 0.0][number // 2 % 3]
        group["weight_decay"] = 0.1 * (number > 4)
        one_step(recorder)
    trace = recorder.close()
    steps = list(walk(trace))
    assert max(step.residual.relative for step in steps) < 1e-12
    assert [step.update.coupled["0.bias"] for step in steps] == [0.0] * 5 + [0.1] * 7


def test_a_skipped_step_moves_nothing_and_counts_for_nothing(tmp_path):
    recorder = started(tmp_path, lambda p: optim.Adam(p, lr=0.01))
    recorder.scale = 64.0
    x, y = data(1)
    for number in range(10):
        recorder.module.zero_grad()
        skipped = number in (2, 7)  # the second at an anchor
        ((float("inf") if skipped else 64.0) * mse(recorder.forward(x), y)).backward()
        for p in recorder.module.parameters():
            p.grad /= 64.0
        recorder.step(skipped=skipped)
    steps = list(walk(recorder.close()))
    assert [step.step for step in steps if step.update is None] == [3, 8]
    assert all(step.residual.relative < 1e-12 for step in steps)
    assert steps[0].scales == (64.0,)
    # The gradient is that of the loss itself, not of the scaled one.
    module = mlp(1)
    expected = torch.autograd.grad(mse(module(x), y), list(module.parameters()))
    for value, other in zip(steps[0].gradient.values(), expected, strict=True):
        assert torch.allclose(value, other, atol=1e-14)


def test_a_float32_run_is_followed_to_rounding(tmp_path):
    x, y = data(1, dtype=torch.float32)
    module = mlp(1, torch.float32)
    optimizer = optim.AdamW(module.parameters(), lr=0.01)
    trace = train(tmp_path / "run.zarr", module, optimizer, epochs(x, y, 4, 6), mse, clip=0.5)
    for dtype in (torch.float32, torch.float64):
        steps = list(walk(trace, dtype))
        assert max(step.residual.relative for step in steps) < 1e-5
        assert all(step.theta["0.bias"].dtype == step.gradient["0.bias"].dtype == dtype for step in steps)
        assert all(off < 1e-6 for step in steps for off in step.residual.state.values())
        clipped = [next(iter(step.update.rho.values())) for step in steps]
        assert min(clipped) < 0.9
        assert {rho for rho in clipped if abs(rho - 1) < 1e-5} <= {1.0}


def test_a_run_is_followed_in_its_own_precision_whatever_is_asked_for(tmp_path):
    """D is made of gradients; where these nearly cancel another precision would give another D."""
    x, y = data(1, dtype=torch.float32)
    module = mlp(1, torch.float32)
    optimizer = optim.Adam(module.parameters(), lr=0.01)
    single = train(tmp_path / "single.zarr", module, optimizer, epochs(x, y, 4, 3), mse)
    for trace in (single, simple(tmp_path)):
        lower, higher = (list(walk(trace, dtype)) for dtype in (torch.float32, torch.float64))
        for a, b in zip(lower, higher, strict=True):
            assert a.theta["0.bias"].dtype == a.update.d_out["0.bias"].dtype == torch.float32
            for name, scale in a.update.d_out.items():
                assert torch.equal(scale, b.update.d_out[name].float())
                assert torch.equal(a.gradient[name], b.gradient[name].float())
    assert max(step.residual.relative for step in lower) < 1e-12


def test_a_run_that_diverges_ends_there(tmp_path):
    recorder = started(tmp_path)
    for number in range(6):
        if number == 4:
            recorder.optimizer.param_groups[0]["lr"] = float("inf")
        one_step(recorder, loss=float("nan") if number > 4 else 1.0)
    trace = recorder.close()
    steps = walk(trace)
    assert [step.step for step in steps] == [1, 2, 3, 4]
    assert steps.stopped == 5


def test_a_run_whose_gradient_norms_overflow_ends_there(tmp_path):
    recorder = started(tmp_path)
    for number in range(4):
        one_step(recorder, **({"grad_norm": np.full(4, np.inf)} if number == 2 else {}))
    steps = walk(recorder.close())
    assert [step.step for step in steps] == [1, 2]
    assert steps.stopped == 3


def test_a_damaged_description_of_the_optimizer_is_a_damaged_trace(tmp_path):
    optimizers = [{"class": "SGD", "columns": [0], "groups": [{"tensors": [99], "hyper": {}}]}]
    trace = simple(tmp_path, 1, attributes={"optimizers": optimizers})
    with pytest.raises(tscope.TraceError, match="the optimizer's description is damaged"):
        walk(trace)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rounding_errors_of_gradients_that_cancel_out_are_no_clip(tmp_path, dtype):
    x, y = data(1, dtype=dtype)
    module = nn.Linear(4, 1, bias=False).to(dtype)
    optimizer = optim.SGD(module.parameters(), lr=0.2)
    trace = train(tmp_path / "run.zarr", module, optimizer, [(x, y)] * 400, mse)
    steps = list(walk(trace))
    assert steps[-1].gradient["weight"].norm() < 1e-6 < steps[-1].output_grad.norm()
    assert {step.update.rho["weight"] for step in steps} == {1.0}


@pytest.mark.parametrize(
    ("module", "batch"),
    [
        (models.Attention, models.tokens),  # with a tied weight
        (models.Recurrent, models.sequences),
        (lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.GELU(), nn.Flatten(), nn.Linear(12, 2)), models.images),
    ],
)
def test_models_of_every_kind_are_followed(tmp_path, module, batch):
    torch.manual_seed(0)
    module = module().double()
    batches = [(x.double() if x.is_floating_point() else x, y) for x, y in models.batches(batch, 9)]
    batches.append((batches[0][0][:1], batches[0][1][:1]))  # a batch of one
    optimizer = optim.Adam(module.parameters(), lr=0.01)
    trace = train(tmp_path / "run.zarr", module, optimizer, batches, nn.functional.cross_entropy, clip=1.0)
    steps = list(walk(trace))
    assert len(steps[-1].examples) == 1
    # Adam divides what is nearly zero by what is nearly zero: rounding is all that is left of it there.
    assert max(step.residual.relative for step in steps) < 1e-9


def test_a_layer_that_is_left_out_of_the_optimizer_may_gather_gradients(tmp_path):
    """The optimizer's zero_grad does not reach it, so its recorded norm is that of a sum over steps."""
    x, y = data(1)
    module = mlp(1)
    optimizer = optim.SGD(module[2].parameters(), lr=0.1)
    recorder = Recorder(tmp_path / "run.zarr", module, optimizer, x)
    for _ in range(6):
        optimizer.zero_grad()
        mse(recorder.forward(x), y).backward()
        nn.utils.clip_grad_norm_(module[2].parameters(), 0.1)
        recorder.step()
    trace = recorder.close()
    norms = trace["grad_norm"][1:]
    assert norms[-1, 0] > 3 * norms[0, 0]
    steps = list(walk(trace))
    assert max(step.residual.relative for step in steps) < 1e-12
    assert all(set(step.update.rho) == {"2.weight", "2.bias"} for step in steps)
    assert steps[0].update.rho["2.bias"] < 0.9


def test_the_first_step_of_an_optimizer_with_a_state_is_marked(tmp_path):
    for make, expected in (
        (lambda p: optim.SGD(p, lr=0.1), [False] * 3),
        (lambda p: optim.SGD(p, lr=0.1, momentum=0.5), [True, False, False]),
        (lambda p: optim.Adam(p, lr=0.1), [True, False, False]),
    ):
        path = tmp_path / str(len(list(tmp_path.iterdir())))
        assert [step.residual.fresh for step in walk(simple(path, 3, make))] == expected
