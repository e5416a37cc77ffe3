"""A smoother that does not belong to the run is refused, however well its predictions fit."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch
from tscope_format.errors import AnalysisError

import tscope
from tests.analyses.effective_runs import make_run
from tscope.analyses.effective import analysis


def tampered(monkeypatch, **changes):
    """Let the analysis see other steps, or another loss, than the trace holds."""
    prepare = analysis.prepare

    def prepared(trace, options):
        setup = prepare(trace, options)
        problem = setup.problem
        if "step" in changes:
            steps = problem.steps
            problem = replace(problem, steps=lambda: map(changes["step"], steps()))
        if "loss" in changes:
            problem = replace(problem, loss=changes["loss"](problem.loss))
        return replace(setup, problem=problem)

    monkeypatch.setattr(analysis, "prepare", prepared)


def with_update(**changes):
    """Return a function that changes the fields of a step's optimizer row, each given as a function."""

    def change(step):
        fields = {name: function(step) for name, function in changes.items()}
        return replace(step, update=replace(step.update, **fields))

    return change


def analysed(run, **options):
    return tscope.analyze(run.trace, "effective-params", probe=str(run.held), save=False, **options)


def refused(run, **options) -> str:
    with pytest.raises(AnalysisError) as caught:
        analysed(run, **options)
    return str(caught.value)


def test_a_fitted_diagonal_is_refused(tmp_path, monkeypatch):
    run = make_run(tmp_path, optimizer="momentum", clip=None)

    def fitted(step):
        return {n: -(step.after[n] - step.theta[n]) / step.gradient[n] for n in step.gradient}

    nothing, ones = (
        lambda step: dict.fromkeys(step.update.mu, 0.0),
        lambda step: dict.fromkeys(step.update.mu, 1.0),
    )
    tampered(
        monkeypatch,
        step=with_update(
            d_out=fitted, mu=nothing, nu=ones, a=ones, b=nothing, coupled=nothing, decoupled=nothing
        ),
    )
    message = refused(run)
    assert "the preconditioner of 0.weight is negative or NaN" in message
    assert "must come from the optimizer's state" in message


def test_a_wrong_learning_rate_is_refused(tmp_path, monkeypatch):
    run = make_run(tmp_path, optimizer="adamw")
    # As if read after scheduler.step(): off by a factor of 0.9.
    tampered(
        monkeypatch,
        step=with_update(a=lambda step: {name: 0.9 * a for name, a in step.update.a.items()}),
    )
    message = refused(run)
    assert "at step 1 the optimizer's rule does not give the recorded steps" in message
    assert "learning rate or decay is not what was recorded" in message


@pytest.mark.parametrize(("optimizer", "term"), [("sgd decay", "coupled"), ("adamw", "decoupled")])
def test_a_missing_decay_is_refused(tmp_path, monkeypatch, optimizer, term):
    run = make_run(tmp_path, optimizer=optimizer)
    tampered(monkeypatch, step=with_update(**{term: lambda step: dict.fromkeys(step.update.mu, 0.0)}))
    assert "does not give the recorded steps" in refused(run)


def test_a_wrong_clip_factor_is_refused(tmp_path, monkeypatch):
    run = make_run(tmp_path, optimizer="momentum")
    tampered(monkeypatch, step=with_update(rho=lambda step: dict.fromkeys(step.update.mu, 1.0)))
    assert "does not give the recorded steps" in refused(run)


def test_a_wrong_loss_factor_is_refused(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    tampered(monkeypatch, loss=lambda loss: replace(loss, factor=loss.factor / 2))
    message = refused(run)
    assert "at step 1 the loss and labels do not give the recorded output gradients" in message
    assert "`--loss` and `--labels`" in message


def test_wrong_labels_are_refused(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    tampered(monkeypatch, loss=lambda loss: replace(loss, labels=loss.labels.roll(1, 0)))
    assert "do not give the recorded output gradients" in refused(run)


def test_a_wrong_reduction_is_refused(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    tampered(monkeypatch, loss=lambda loss: replace(loss, reduction="sum", factor=loss.factor / 4))
    assert "do not give the recorded output gradients" in refused(run)


def test_a_smoother_that_labels_do_not_obey_is_refused(tmp_path, monkeypatch):
    """Second derivatives that are not the loss's own: gradients, and so predictions, are still right."""
    run = make_run(tmp_path, outputs=3, loss="cross_entropy")

    class Frozen(type(run_loss(run))):
        def hessian(self, output, sizes):
            return super().hessian(output.detach() * 0, sizes)

    def frozen(loss):
        fields = {field.name: getattr(loss, field.name) for field in dataclasses.fields(loss)}
        return Frozen(**fields)

    tampered(monkeypatch, loss=frozen)
    message = refused(run, loss="cross_entropy")
    assert "perturbed labels change the rolled-out predictions by" in message


def run_loss(run):
    from tscope.optimizers.inference import infer_loss

    return infer_loss(run.trace, kind="cross_entropy")


def test_a_wrong_kernel_is_refused(tmp_path, monkeypatch):
    from tscope.analyses.effective import setup

    run = make_run(tmp_path)

    class Wrong(setup.KernelJacobian):
        def block(self, rows, columns, preconditioner=None):
            return super().block(rows, columns, preconditioner) * (1 + 1e-6)

    monkeypatch.setattr(setup, "KernelJacobian", Wrong)
    assert "the kernel gives another step than the Jacobian" in refused(run)
    assert analysed(run, form="parameter").scalars["kernel_residual"] < 1e-12


def test_a_single_wrong_step_late_in_the_run_is_looked_at(tmp_path, monkeypatch):
    run = make_run(tmp_path, optimizer="sgd", count=10)
    monkeypatch.setattr("tscope.analyses.effective.checks._LOOKS", 1)

    def late(step):
        factor = 1.5 if step.row == 25 else 1.0
        return replace(
            step, update=replace(step.update, a={name: factor * a for name, a in step.update.a.items()})
        )

    tampered(monkeypatch, step=late)
    assert "at step 25 the optimizer's rule does not give the recorded steps" in refused(run)


def test_float32_runs_are_judged_by_what_rounding_allows(tmp_path):
    """The rounding of stored parameters is measured in function space, and allowed for."""
    from tests.optimizers.recorded import data, epochs, train

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1))
    x, y = data(1, dtype=torch.float32)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-5)
    trace = train(tmp_path / "run.zarr", module, optimizer, epochs(x, y, 4, 4), torch.nn.functional.mse_loss)
    # So short a way does not tell the factor of the loss from its labels.
    np.savez(tmp_path / "labels.npz", x=x.numpy(), y=y.numpy())
    result = tscope.analyze(
        trace,
        "effective-params",
        dtype="float64",
        loss="mse",
        labels=str(tmp_path / "labels.npz"),
        save=False,
    )
    assert 1e-4 < result.scalars["adapter_residual"] < 4 * result.scalars["adapter_rounding"] + 2e-3


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=1e-3),
        lambda p: torch.optim.Adam(p, lr=1e-3),
        lambda p: torch.optim.NAdam(p, lr=1e-3, weight_decay=0.02),
        lambda p: torch.optim.RMSprop(p, lr=1e-4, momentum=0.5, centered=True),
    ],
    ids=["sgd", "adam", "nadam", "rmsprop"],
)
def test_float32_and_float64_analyses_of_the_papers_network_agree(tmp_path, make):
    """D of parameters whose gradients nearly cancel is the run's own, not that of the analysis."""
    from tests.optimizers.recorded import epochs, train

    torch.manual_seed(0)
    sizes = [(784, 200), (200, 200), (200, 1)]
    layers = [part for a, b in sizes for part in (torch.nn.Linear(a, b), torch.nn.ReLU())]
    module = torch.nn.Sequential(*layers[:-1])
    x, y = torch.rand(24, 784), torch.randn(24, 1).sign()
    optimizer = make(module.parameters())
    trace = train(tmp_path / "run.zarr", module, optimizer, epochs(x, y, 8, 3), torch.nn.functional.mse_loss)
    np.savez(tmp_path / "labels.npz", x=x.numpy(), y=y.numpy())
    single, double = (
        tscope.analyze(
            trace,
            "effective-params",
            dtype=dtype,
            loss="mse",
            labels=str(tmp_path / "labels.npz"),
            save=False,
        )
        for dtype in ("float32", "float64")
    )
    assert single.arrays["p_train"].data[1:] == pytest.approx(double.arrays["p_train"].data[1:], rel=1e-4)
    assert double.scalars["label_residual"] < 1e-10
