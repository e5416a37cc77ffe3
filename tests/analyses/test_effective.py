"""Effective parameters against autograd through the unrolled training, for every optimizer and loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tscope
from tests.analyses.effective_runs import KERNEL, OPTIMIZERS, Run, make_run
from tscope.analyses.effective.directions import Directions


def analysed(run: Run, **options: object):
    return tscope.analyze(run.trace, "effective-params", probe=str(run.held), save=False, **options)


def check(result, reference, run: Run, tangent=None) -> None:
    n, N = run.train, len(run.points)
    for name, start, stop in (("train", 0, n), ("test", n, N)):
        expected = reference.p(start, stop, tangent)
        assert result.scalars[f"p_{name}"] == pytest.approx(expected, rel=1e-12)
        assert result.scalars[f"p_{name}_se"] == 0
        S = reference.smoother[start:stop] if tangent is None else reference.smoother[start:stop] @ tangent
        norms = S.square().sum((1, 2, 3)).numpy()
        assert np.abs(result.arrays[f"norms_{name}"].data[-1] - norms).max() < 1e-12 * norms.max()
    assert result.scalars["gap"] == result.scalars["p_test"] - result.scalars["p_train"]
    for check in ("adapter_residual", "kernel_residual", "loss_residual", "label_residual", "adapter_state"):
        assert result.scalars[check] < 1e-12, check


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_agrees_with_unrolled_training(tmp_path, optimizer, outputs):
    run = make_run(tmp_path, optimizer=optimizer, outputs=outputs)
    reference = run.reference()
    result = analysed(run, form="parameter")
    assert result.scalars["form"] == "parameter"
    check(result, reference, run)
    if optimizer in KERNEL:
        kernel = analysed(run)
        assert kernel.scalars["form"] == "kernel"
        check(kernel, reference, run)


@pytest.mark.parametrize("optimizer", ["sgd decay", "adamw", "momentum"])
def test_frozen_decay_agrees_with_unrolled_training(tmp_path, optimizer):
    run = make_run(tmp_path, optimizer=optimizer)
    reference = run.reference(frozen=True)
    result = analysed(run, decay="frozen")
    assert result.scalars["decay"] == "frozen"
    assert result.scalars["form"] == ("kernel" if optimizer == "sgd decay" else "parameter")
    check(result, reference, run)
    check(analysed(run, decay="frozen", form="parameter"), reference, run)
    assert abs(analysed(run).scalars["p_train"] / result.scalars["p_train"] - 1) > 1e-4


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(("loss", "outputs"), [("bce", 1), ("bce", 3), ("cross_entropy", 3)])
def test_label_sensitivity_agrees_with_unrolled_training(tmp_path, loss, outputs, optimizer):
    run = make_run(tmp_path, optimizer=optimizer, outputs=outputs, loss=loss)
    result = analysed(run, loss=loss)
    tangent = None
    if loss == "cross_entropy":
        centre = torch.eye(3, dtype=torch.float64) - 1 / 3
        tangent = torch.linalg.svd(centre)[0][:, :2]
    assert result.scalars["loss"] == loss
    check(result, run.reference(), run, tangent)
    assert any("our extension" in note for note in result.notes)
    assert 0 < result.scalars["p_train_probability"] < result.scalars["p_train"]


def test_probabilities_are_moved_by_the_derivative_of_the_mean(tmp_path):
    run = make_run(tmp_path, outputs=3, loss="cross_entropy")
    result = analysed(run, loss="cross_entropy")
    reference = run.reference()
    last = run.trace.theta(int(run.trace.steps[-1]))
    f = torch.func.functional_call(run.module, last, (run.points,)).detach()
    p = torch.softmax(f, 1)
    D = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    S = torch.einsum("xab,xbnl->xanl", D, reference.smoother - reference.smoother.mean(3, keepdim=True))
    expected = float(S[: run.train].square().sum()) / 3
    assert result.scalars["p_train_probability"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss", ["mse", "mse sum"])
def test_micro_batches_and_reductions_agree_with_unrolled_training(tmp_path, loss):
    run = make_run(tmp_path, outputs=3, loss=loss, micro=2, clip=0.2)
    check(analysed(run), run.reference(), run)


def test_the_rollouts_are_the_telescoped_predictions(tmp_path):
    run = make_run(tmp_path, optimizer="nesterov", outputs=3)
    reference = run.reference()
    setup, kept = last_kept(run)
    rollouts, anchored = kept.state.rollouts[..., 0], kept.state.anchored
    assert float((rollouts - reference.predictions).abs().max()) < 1e-12
    assert float((anchored - reference.real).abs().max()) < 1e-12
    S = reference.smoother.flatten(2).flatten(0, 1)
    ours = kept.state.smoother.flatten(0, 1)
    assert float((ours - S).abs().max()) < 1e-12
    assert setup.size.directions == ours.shape[1] == 30


def last_kept(run: Run):
    from tscope.analyses.effective import Options
    from tscope.analyses.effective.recursion import Choice, roll
    from tscope.analyses.effective.setup import prepare

    setup = prepare(run.trace, Options(probe=str(run.held)))
    perturbation = setup.directions.perturbation(torch.Generator().manual_seed(0))
    W = setup.directions.basis()
    found = roll(setup.problem, W, Choice("parameter", block=7), perturbation, None, lambda row: None)
    *_, kept = found
    return setup, kept


def test_every_row_is_that_of_a_shorter_run(tmp_path):
    long = make_run(tmp_path / "long", optimizer="adamw", count=3)
    short = make_run(tmp_path / "short", optimizer="adamw", count=2)
    a, b = analysed(long), analysed(short)
    steps = len(b.arrays["step"].data)
    assert a.arrays["step"].data[:steps].tolist() == b.arrays["step"].data.tolist() == list(range(7))
    for name in ("p_train", "p_test", "norms_train", "discrepancy_telescoped"):
        assert np.allclose(a.arrays[name].data[:steps], b.arrays[name].data, rtol=1e-9, atol=1e-14), name
    assert a.arrays["p_train"].data[0] == 0


def test_the_zero_sum_directions_are_orthonormal():
    from tscope.optimizers import Loss

    loss = Loss("cross_entropy", 1.0, "mean", torch.zeros(4, 5))
    directions = Directions.of(loss, 4, 5, torch.float64)
    basis = directions.basis().reshape(20, 16)
    assert directions.count == 16
    assert float((basis.T @ basis - torch.eye(16)).abs().max()) < 1e-15
    assert float(directions.basis().sum(1).abs().max()) < 1e-15
