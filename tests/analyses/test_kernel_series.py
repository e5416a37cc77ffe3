"""The series of `kernel` against dense float64 matrices of explicit Jacobians (tests/reference/kernel.py)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn, optim

import tscope
from tests.analyses.effective_runs import Run, make_run
from tests.analyses.kernel_runs import blocks, explicit, held_file, labels
from tests.optimizers.recorded import Recorder, data, mlp, train
from tests.reference import kernel as reference
from tscope.analyses.kernel import states

RUNS = {
    "sgd": {"optimizer": "sgd", "outputs": 1, "loss": "mse"},
    "classes": {"optimizer": "momentum", "outputs": 3, "loss": "cross_entropy"},
    "adam": {"optimizer": "adam", "outputs": 3, "loss": "mse"},
    "centered": {"optimizer": "rmsprop centered", "outputs": 1, "loss": "bce"},
}
CLOSE = {"rtol": 1e-9, "atol": 1e-11}


def targets(run: Run) -> np.ndarray:
    """Labels of the held-out examples, of the training labels' kind."""
    outputs, count = run.labels.shape[1], len(run.points) - run.train
    if run.loss == "cross_entropy":
        return np.arange(count) % outputs
    return np.random.default_rng(3).normal(size=(count, outputs))


def held_labels(run: Run) -> np.ndarray:
    y = targets(run)
    return np.eye(run.labels.shape[1])[y] if y.ndim == 1 else y


def analysed(run: Run, **options):
    probe = held_file(run, targets(run))
    return tscope.analyze(run.trace, "kernel", save=False, probe=probe, **options)


@pytest.fixture(scope="module", params=list(RUNS))
def run(request, tmp_path_factory) -> Run:
    return make_run(tmp_path_factory.mktemp(request.param), **RUNS[request.param])


@pytest.mark.parametrize("preconditioned", [False, True])
def test_every_series_is_that_of_the_explicit_kernels(run, preconditioned):
    result = analysed(run, every=2, preconditioned=preconditioned, eigenvalues=4)
    steps = result.arrays["step"].data.tolist()
    assert steps == ([0, 2, 4, 6, 8] if preconditioned else [0, 2, 4, 6, 8, 9])
    walked = run.steps()
    matrices = []
    for step in steps:
        D = diagonal(walked[step].update, walked[step].theta) if preconditioned else None
        matrices.append(sum(explicit(run, step, D).values()))
    for place, (name, y) in {0: ("train", labels(run)), 2: ("test", held_labels(run))}.items():
        first = blocks(run, matrices[0])[place]
        for k, matrix in enumerate(matrices):
            K = blocks(run, matrix)[place]
            for series, value in reference.series(K, first, y).items():
                np.testing.assert_allclose(result.arrays[f"{series}_{name}"].data[k], value, **CLOSE)
            top = reference.eigenvalues(K)[:4]
            np.testing.assert_allclose(
                result.arrays[f"eigenvalues_{name}"].data[k], top, rtol=1e-9, atol=1e-12 * top[0]
            )
        velocity = result.arrays[f"velocity_{name}"].data
        assert np.isnan(velocity[0])
        pairs = zip(matrices[1:], matrices, np.diff(steps), strict=False)
        expected = [
            reference.distance(blocks(run, a)[place], blocks(run, b)[place]) / gap for a, b, gap in pairs
        ]
        np.testing.assert_allclose(velocity[1:], expected, **CLOSE)
    for place, name in ((0, "train"), (1, "test")):
        c = run.labels.shape[1]
        rows = [blocks(run, matrix)[place] for matrix in matrices]
        norms = np.stack([np.linalg.norm(K.reshape(len(K) // c, -1), axis=1) for K in rows])
        np.testing.assert_allclose(result.arrays[f"weight_norm_{name}"].data, norms, **CLOSE)
        np.testing.assert_allclose(result.arrays[f"weight_norm_max_{name}"].data, norms.max(1), **CLOSE)
        np.testing.assert_allclose(result.arrays[f"weight_norm_mean_{name}"].data, norms.mean(1), **CLOSE)


def diagonal(update, theta):
    """D of a step, as the optimizer's adapter names it (tests/optimizers holds it against torch)."""
    found = {name: torch.ones_like(value) for name, value in theta.items()}
    for part in (update.d_in, update.d_out):
        for name, value in (part or {}).items():
            found[name] = found[name] * value
    return found


def test_the_preconditioner_is_that_of_adam_written_out(tmp_path):
    """D of row t is 1/(√(v/(1 − β2^(t+1))) + ε), with v after step t + 1, from a loop of its own."""
    torch.manual_seed(1)
    module, (x, y) = mlp(1), data(1)
    optimizer = optim.Adam(module.parameters(), lr=0.01, betas=(0.9, 0.99), eps=1e-6)
    trace = train(tmp_path / "run.zarr", module, optimizer, [(x, y)] * 5, nn.functional.mse_loss)
    v = {name: torch.zeros_like(value) for name, value in module.named_parameters()}
    for step in range(5):
        module.load_state_dict(trace.state_dict(step))
        module.zero_grad()
        nn.functional.mse_loss(module(x), y).backward()
        v = {n: 0.99 * v[n] + 0.01 * p.grad.square() for n, p in module.named_parameters()}
    D = {name: 1 / ((value / (1 - 0.99**5)).sqrt() + 1e-6) for name, value in v.items()}
    order = torch.from_numpy(trace["examples/input/0"])
    run = Run(trace, module, tmp_path / "held.npz", order, torch.zeros(10, 1), "mse")
    result = tscope.analyze(trace, "kernel", save=False, preconditioned=True, at="last", matrix="last")
    assert result.arrays["matrix_step"].data.tolist() == [4]
    expected = sum(explicit(run, 4, D).values())
    found = result.arrays["kernel"].data.reshape(expected.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


def test_layers_share_every_series(run):
    result = analysed(run, at="3,9", eigenvalues=3)
    assert result.provenance["layers"] == ["0", "2"]
    parts = {step: list(explicit(run, step).values()) for step in (0, 3, 9)}
    for place, (name, y) in {0: ("train", labels(run)), 2: ("test", held_labels(run))}.items():

        def of(step, place=place):
            return [blocks(run, part)[place] for part in parts[step]]

        for k, step in enumerate((0, 3, 9)):
            for series, expected in reference.shares(of(step), of(0), y, 3).items():
                found = result.arrays[f"share_{series}_{name}"].data[k]
                np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)
                np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-9)
    K = [blocks(run, part)[1] for part in parts[9]]
    expected = [(part * sum(K)).sum() / (sum(K) ** 2).sum() for part in K]
    np.testing.assert_allclose(result.arrays["share_weight_norm_test"].data[-1], expected, **CLOSE)


def test_without_layers_the_series_are_the_same_and_there_are_no_shares(run):
    whole, layered = analysed(run, at="5", layers=False), analysed(run, at="5")
    assert not [name for name in whole.arrays if name.startswith("share_")]
    for name, array in whole.arrays.items():
        np.testing.assert_allclose(array.data, layered.arrays[name].data, rtol=1e-9, atol=1e-11)


def test_the_matrix_has_the_training_examples_first(run):
    result = analysed(run, at="3,last", matrix="0,last")
    assert result.arrays["matrix_step"].data.tolist() == [0, 9]
    assert result.arrays["kernel"].dims == (
        "matrix_step",
        "point",
        "output",
        "point_column",
        "output_column",
    )
    for k, step in enumerate((0, 9)):
        expected = sum(explicit(run, step).values())
        found = result.arrays["kernel"].data[k].reshape(expected.shape)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_allclose(result.arrays["label_train"].data, labels(run), atol=1e-9)
    np.testing.assert_allclose(result.arrays["label_test"].data, held_labels(run), atol=1e-9)


def test_drawn_examples_and_outputs_are_a_part_of_the_matrix(tmp_path):
    run = make_run(tmp_path, outputs=3)
    result = analysed(run, at="last", matrix="last", train=6, test=2, probe_output="0,2", seed=4)
    train, test = result.arrays["train"].data, result.arrays["test"].data
    assert (len(train), len(test), result.scalars["outputs"]) == (6, 2, 2)
    points = np.concatenate([train, run.train + test])
    whole = sum(explicit(run, 9).values()).reshape(15, 3, 15, 3)
    expected = whole[points][:, [0, 2]][:, :, points][:, :, :, [0, 2]]
    np.testing.assert_allclose(result.arrays["kernel"].data[0], expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(result.arrays["label_train"].data, labels(run)[train][:, [0, 2]], atol=1e-9)


def test_a_linear_models_kernel_never_moves(tmp_path):
    torch.manual_seed(0)
    run = make_run(tmp_path, module=nn.Linear(4, 3).double(), outputs=3, optimizer="adam")
    result = analysed(run)
    assert result.scalars["steps"] == 9
    for name in ("train", "test"):
        for series in ("movement", "distance"):
            assert not result.arrays[f"{series}_{name}"].data.any()
        assert not result.arrays[f"velocity_{name}"].data[1:].any()


def test_frozen_parameters_are_not_in_the_kernel(tmp_path):
    run = make_run(tmp_path, optimizer="head only")
    result = analysed(run, at="last", matrix="last")
    expected = explicit(run, 9)["2"]
    np.testing.assert_allclose(result.arrays["kernel"].data[0].reshape(expected.shape), expected, rtol=1e-10)
    np.testing.assert_allclose(result.arrays["share_trace_train"].data, [[0, 1], [0, 1]])


def test_a_skipped_step_takes_the_preconditioner_of_the_next(tmp_path):
    torch.manual_seed(0)
    module, (x, y) = mlp(1), data(1)
    optimizer = optim.RMSprop(module.parameters(), lr=0.01)
    recorder = Recorder(tmp_path / "run.zarr", module, optimizer, x)
    for step in range(1, 6):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(recorder.forward(x), y)
        loss.backward()
        recorder.step(loss.item(), skipped=step in (3, 4))
    trace = recorder.close()
    result = tscope.analyze(trace, "kernel", save=False, preconditioned=True, every=1, matrix="2,3,4")
    K = result.arrays["kernel"].data
    assert result.arrays["step"].data.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(K[0], K[1])
    np.testing.assert_array_equal(K[0], K[2])
    assert result.arrays["trace_train"].data[1] != result.arrays["trace_train"].data[2]


def test_a_walk_that_starts_anew_gives_the_same_preconditioners(tmp_path, monkeypatch):
    run = make_run(tmp_path, optimizer="adam")
    options = {"preconditioned": True, "at": "1,2,7,8", "train": 4}
    walked = analysed(run, **options)
    monkeypatch.setattr(states, "_ANCHOR_ROWS", 3)
    starts = []
    begin = states.training_steps

    def counted(*arguments, **rows):
        starts.append(rows["start_row"])
        return begin(*arguments, **rows)

    monkeypatch.setattr(states, "training_steps", counted)
    anew = analysed(run, **options)
    assert starts == [1, 8]
    for name in ("trace_train", "eigenvalues_train"):
        np.testing.assert_array_equal(anew.arrays[name].data, walked.arrays[name].data)
