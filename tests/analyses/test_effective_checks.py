"""At the limits of float32: what rounding does passes, and a fault that is slightly larger does not."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tscope_format.errors import AnalysisError

import tscope
from tests.optimizers.recorded import Recorder, data, epochs, mlp, train
from tscope.analyses.effective import analysis
from tscope.analyses.effective.checks import Tolerance
from tscope.analyses.effective.rollouts import Rollouts

MAKE = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=1e-4),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=1e-2),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, centered=True),
}


@pytest.fixture(scope="module", params=MAKE)
def run(request, tmp_path_factory):
    """A float32 run, as the recorder writes it."""
    x, y = data(1, count=40, dtype=torch.float32)
    module = mlp(1, torch.float32)
    optimizer = MAKE[request.param](module.parameters())
    path = tmp_path_factory.mktemp("run") / "run.zarr"
    return train(path, module, optimizer, epochs(x, y, 16, 5), torch.nn.functional.mse_loss, clip=2.0)


def analysed(trace, **options):
    return tscope.analyze(trace, "effective-params", loss="mse", save=False, **options)


def tampered(monkeypatch, step=None, loss=None):
    """Let the analysis see other steps, or another loss, than the trace holds."""
    prepare = analysis.prepare

    def prepared(*arguments):
        setup = prepare(*arguments)
        problem = setup.problem
        if step is not None:
            steps = problem.steps
            problem = replace(problem, steps=lambda: map(step, steps()))
        if loss is not None:
            problem = replace(problem, loss=loss(problem.loss))
        return replace(setup, problem=problem)

    monkeypatch.setattr(analysis, "prepare", prepared)


def scaled(name: str, factor: float):
    """Return what multiplies one of the numbers of each step."""

    def change(step):
        values = {key: factor * value for key, value in getattr(step.update, name).items()}
        return replace(step, update=replace(step.update, **{name: values}))

    return change


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounding_is_a_tenth_of_what_is_allowed(run, dtype):
    result = analysed(run, dtype=dtype)
    scalars, limits = result.scalars, result.provenance
    assert scalars["determinism_residual"] == 0
    assert scalars["adapter_residual"] < 1e-6 + 2 * scalars["adapter_rounding"]
    assert scalars["loss_residual"] < 0.1 * limits["tolerance_recorded"]
    for name in ("kernel_residual", "label_residual"):
        assert scalars[name] < 0.1 * limits["tolerance_replayed"], name


@pytest.mark.parametrize("factor", [1 + 1e-3, 1 - 5e-5])
def test_a_learning_rate_that_is_slightly_off_is_caught(run, monkeypatch, factor):
    tampered(monkeypatch, step=scaled("a", factor))
    with pytest.raises(AnalysisError, match="the optimizer's rule does not give the recorded steps"):
        analysed(run)


@pytest.mark.parametrize("run", ["sgd", "adamw"], indirect=True)
def test_a_small_decay_that_is_left_out_is_caught(run, monkeypatch):
    tampered(monkeypatch, step=lambda step: scaled("coupled", 0.0)(scaled("decoupled", 0.0)(step)))
    with pytest.raises(AnalysisError, match="the optimizer's rule does not give the recorded steps"):
        analysed(run)


def test_a_loss_factor_that_is_slightly_off_is_caught(run, monkeypatch):
    tampered(monkeypatch, loss=lambda loss: replace(loss, factor=loss.factor * (1 + 5e-5)))
    with pytest.raises(AnalysisError, match="the loss and labels do not give the recorded output gradients"):
        analysed(run)


def test_labels_that_are_slightly_off_are_caught(run, monkeypatch):
    tampered(monkeypatch, loss=lambda loss: replace(loss, labels=loss.labels * (1 + 5e-5)))
    with pytest.raises(AnalysisError, match="the loss and labels do not give the recorded output gradients"):
        analysed(run)


@pytest.mark.parametrize("run", ["momentum", "adamw"], indirect=True)
def test_a_fitted_diagonal_is_caught_even_without_its_signs(run, monkeypatch):
    def fitted(step):
        update = step.update
        ones, nothing = dict.fromkeys(update.mu, 1.0), dict.fromkeys(update.mu, 0.0)
        ratio = {
            name: torch.nan_to_num((step.after[name] - step.theta[name]) / gradient).abs()
            for name, gradient in step.gradient.items()
        }
        row = replace(
            update, mu=nothing, nu=ones, a=ones, b=nothing, coupled=nothing, decoupled=nothing, rho=ones
        )
        return replace(step, update=replace(row, d_in=None, d_out=ratio))

    tampered(monkeypatch, step=fitted)
    with pytest.raises(AnalysisError, match="the optimizer's rule does not give the recorded steps"):
        analysed(run)


def test_where_outputs_are_not_replayed_to_the_bit_ties_are_allowed_for(run, monkeypatch):
    """A replay on another machine: a few gradients differ, though the optimizer's rule is right."""

    def rounded(step):
        return replace(step, residual=replace(step.residual, output=1e-7))

    off = scaled("a", 1 + 1e-3)
    tampered(monkeypatch, step=lambda step: off(rounded(step)))
    assert 1e-4 < analysed(run).scalars["adapter_residual"] < 2e-3


def test_an_optimizer_that_went_on_from_a_checkpoint_is_named(tmp_path):
    x, y = data(1)
    module = mlp(1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    loss = torch.nn.functional.mse_loss
    loss(module(x), y).backward()
    optimizer.step()
    recorder = Recorder(tmp_path / "run.zarr", module, optimizer, x)
    for _ in range(4):
        module.zero_grad()
        loss(recorder.forward(x), y).backward()
        recorder.step()
    with pytest.raises(AnalysisError) as caught:
        analysed(recorder.close())
    assert "at step 1 the optimizer's rule does not give the recorded steps" in str(caught.value)
    assert "an optimizer that went on from a checkpoint has momentum or averages" in str(caught.value)
    assert "record from the run's beginning" in str(caught.value)


def test_rounding_of_float32_rollouts_adds_up_and_that_of_float64_does_not_matter():
    single, double = (Tolerance.of(dtype, dtype, dtype) for dtype in (torch.float32, torch.float64))
    assert single.labels(0) == single.replayed
    assert single.labels(1000) == pytest.approx(1.05e-3)
    assert single.labels(10**6) == 2e-3
    assert double.labels(10**6) == double.replayed
    assert single.labels(0, cancellation=3.0) == pytest.approx(1.5e-4)
    assert single.labels(0, cancellation=1e6) == 2e-3


def test_outputs_much_larger_than_the_labels_cancel_in_the_rollouts_difference():
    labels = torch.ones(4, 1)
    rollouts = Rollouts(SimpleNamespace(kind="mse"), labels, torch.full((4, 1), 0.5))
    predictions = torch.stack([torch.full((4, 1), 100.0), torch.full((4, 1), 101.0)], -1)
    change = rollouts.change(predictions)
    assert change.flatten().tolist() == [0.5] * 4  # 101 − 100, of labels changed by 1
    assert rollouts.cancellation(predictions, change) == pytest.approx(100.0)
    assert rollouts.cancellation(0 * predictions, change) == 1.0
