"""Every series of the metric `layers` against float64 oracles that know nothing of tscope."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn, optim

from tests.analyses.layer_runs import Run, deep, make_run
from tests.reference.telescoping import apply, jacobian, outputs

LAYERS = ("0", "1", "3")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return make_run(tmp_path_factory.mktemp("layers"), clip=0.5)


@pytest.fixture(scope="module")
def result(run: Run):
    return run.analysed(every=1, singular_values=4)


def of_layer(tensors: dict[str, Tensor], layer: str) -> Tensor:
    return torch.cat([tensors[f"{layer}.{name}"].reshape(-1) for name in ("weight", "bias")])


def by_layer(rows: list[dict[str, Tensor]]) -> np.ndarray:
    return np.array([[float(of_layer(row, layer).norm()) for layer in LAYERS] for row in rows])


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-13) -> None:
    found = np.asarray(found)
    assert found.shape == np.asarray(expected).shape
    assert np.abs(found - expected).max() <= tolerance * max(1.0, np.abs(expected).max())


def test_norms_and_movement_of_each_layer(run, result):
    thetas, arrays = run.thetas, result.arrays
    close(arrays["theta_norm"].data, by_layer(thetas))
    changes = [{n: b[n] - a[n] for n in a} for a, b in zip(thetas[:1] + thetas, thetas, strict=False)]
    close(arrays["update_norm"].data, by_layer(changes))
    moved = by_layer([{n: theta[n] - thetas[0][n] for n in theta} for theta in thetas])
    close(arrays["movement"].data, moved / by_layer(thetas[:1]))
    whole = np.sqrt(np.square(by_layer(thetas)).sum(1))
    close(arrays["theta_norm_all"].data, whole)
    close(arrays["movement_all"].data, np.sqrt(np.square(moved).sum(1)) / whole[0])
    assert result.provenance["layers"] == list(LAYERS)


def test_gradients_are_those_that_the_optimizer_got_after_clipping(run, result):
    found = result.arrays["gradient_norm"].data
    assert np.isnan(found[0]).all()
    close(found[1:], by_layer([seen.used for seen in run.steps]))
    raw = by_layer([seen.raw for seen in run.steps])
    assert np.square(raw).sum(1).max() > 4 * np.square(found[1:]).sum(1).max()  # the clip was at work


def test_spectra_of_each_matrix(run, result):
    names = [f"{layer}.weight" for layer in LAYERS]
    assert result.provenance["matrices"] == names
    for row, theta in enumerate(run.thetas):
        for place, name in enumerate(names):
            sigma = np.linalg.svd(theta[name].numpy(), compute_uv=False)
            kept = result.arrays["singular_values"].data[row, place]
            close(kept[: len(sigma)], sigma[:4])
            assert np.isnan(kept[len(sigma) :]).all()
            p = sigma / sigma.sum()
            close(result.arrays["effective_rank"].data[row, place], np.exp(-(p * np.log(p)).sum()))
            stable = np.square(theta[name].numpy()).sum() / sigma[0] ** 2
            close(result.arrays["stable_rank"].data[row, place], stable)


def test_contributions_to_the_predictions_and_the_loss_of_the_probe(run, result):
    thetas, arrays = run.thetas, result.arrays
    for row in range(1, len(thetas)):
        before, after = thetas[row - 1], thetas[row]
        parts = apply(
            jacobian(run.module, before, {}, (run.points,)), {n: after[n] - before[n] for n in after}
        )
        by = np.stack(
            [(parts[f"{layer}.weight"] + parts[f"{layer}.bias"]).detach().numpy() for layer in LAYERS]
        )
        f = [outputs(run.module, theta, {}, (run.points,)).detach() for theta in (before, after)]
        change = (f[1] - f[0]).numpy()
        close(arrays["contribution"].data[row], np.sqrt(np.square(by).sum((1, 2))))
        share = (by * change).sum((1, 2)) / np.square(change).sum()
        close(arrays["contribution_signed"].data[row], share, 1e-12)
        rest = np.linalg.norm(change - by.sum(0)) / np.linalg.norm(change)
        close(arrays["residual_relative"].data[row], rest, 1e-12)
        losses = [nn.functional.mse_loss(value, run.targets) for value in f]
        close(arrays["loss_change"].data[row], float(losses[1] - losses[0]))
        slope = (2 * (f[0] - run.targets) / f[0].numel()).numpy()
        close(arrays["loss_contribution"].data[row], (by * slope).sum((1, 2)))
        off = float(losses[1] - losses[0]) - (by * slope).sum()
        close(arrays["loss_residual"].data[row], off)
    assert result.scalars["loss_change"] == pytest.approx(arrays["loss_change"].data.sum(), rel=1e-15)


def test_what_the_steps_did_to_the_losses_of_their_batches(run, result):
    expected = [
        [float(of_layer(seen.raw, layer) @ of_layer(seen.change, layer)) for layer in LAYERS]
        for seen in run.steps
    ]
    close(result.arrays["batch_loss_contribution"].data[1:], expected)


def test_intervals_of_several_rows_have_whole_differences_and_sums(run, result):
    found = run.analysed(every=4)
    assert found.arrays["step"].data.tolist() == [0, 4, 8, 9]
    thetas = run.thetas
    moved = by_layer([{n: thetas[b][n] - thetas[a][n] for n in thetas[0]} for a, b in ((0, 4), (4, 8))])
    close(found.arrays["update_norm"].data[1:3], moved)
    batches = result.arrays["batch_loss_contribution"].data
    close(found.arrays["batch_loss_contribution"].data[1], batches[1:5].sum(0))
    J = jacobian(run.module, thetas[4], {}, (run.points,))
    parts = apply(J, {n: thetas[8][n] - thetas[4][n] for n in thetas[0]})
    expected = [float((parts[f"{layer}.weight"] + parts[f"{layer}.bias"]).norm()) for layer in LAYERS]
    close(found.arrays["contribution"].data[2], expected)
    assert any(note.startswith("4 rows are taken together") for note in found.notes)


def explicit_balance(theta: dict[str, Tensor], below: str, above: str) -> np.ndarray:
    W1, b1, W2 = (theta[f"{below}.weight"], theta[f"{below}.bias"], theta[f"{above}.weight"])
    augmented = torch.cat([W1, b1[:, None]], 1)
    return (W2.T @ W2 - augmented @ augmented.T).numpy()


def test_balancedness_and_its_identity(run, result):
    assert result.provenance["pairs"] == ["0 → 1", "1 → 3"]
    assert result.provenance["linear_pairs"] == [True, False]
    flow = 1.0
    for pair, (below, above, kept) in enumerate((("0", "1", slice(None)), ("1", "3", np.diag_indices(5)))):
        start = explicit_balance(run.thetas[0], below, above)[kept]
        Q = start
        for row, seen in enumerate(run.steps, 1):
            here = explicit_balance(run.thetas[row], below, above)[kept]
            close(result.arrays["balance"].data[row, pair], np.linalg.norm(here))
            close(result.arrays["balance_drift"].data[row, pair], np.linalg.norm(here - start))
            # By the identity, from gradients that autograd left and the optimizer clipped.
            Q = (1 - 0.05 * 0.1) ** 2 * Q + 0.05**2 * explicit_balance(seen.used, below, above)[kept]
            assert np.abs(here - Q).max() <= 1e-13
            flow = np.exp(-2 * row * 0.05 * 0.1)
            close(result.arrays["balance_flow"].data[row, pair], flow * np.linalg.norm(start))
    assert 0 < result.scalars["balance_check"] <= 1e-14
    assert result.arrays["balance_off"].data.max() <= 1e-12


def test_without_decay_balance_moves_by_second_order_only_and_with_it_as_flow_says(tmp_path):
    drifts = []
    for rate in (0.02, 0.01):
        folder = tmp_path / str(rate)
        folder.mkdir()
        found = make_run(folder, lambda p, rate=rate: optim.SGD(p, lr=rate)).analysed(parts="balance")
        drifts.append(found.arrays["balance_drift"].data[-1])
        assert np.array_equal(
            found.arrays["balance_flow"].data, found.arrays["balance"].data[[0]].repeat(10, 0)
        )
    # η² a step, and as many steps: a half of the rate is a quarter of the drift.
    assert np.abs(drifts[0] / drifts[1] / 4 - 1).max() < 0.1
    folder = tmp_path / "decay"
    folder.mkdir()
    decayed = make_run(folder, lambda p: optim.SGD(p, lr=0.001, weight_decay=50.0)).analysed(parts="balance")
    ratio = decayed.arrays["balance"].data[-1] / decayed.arrays["balance_flow"].data[-1]
    # (1 − x)² against e^{−2x} at x = 0.05, nine times: 9·0.05² of it, and the steps' own η².
    assert np.abs(ratio - 1 + 9 * 0.05**2).max() < 0.003


def test_a_leaky_activation_keeps_the_diagonal_and_another_ties_nothing(tmp_path):
    for name, activation, pairs in (
        ("leaky", nn.LeakyReLU(0.2), ["0 → 2", "2 → 4"]),
        ("tanh", nn.Tanh(), ["2 → 4"]),
    ):
        folder = tmp_path / name
        folder.mkdir()
        found = make_run(folder, lambda p: optim.SGD(p, lr=0.05), deep(activation)).analysed(parts="balance")
        assert found.provenance["pairs"] == pairs
        assert found.scalars["balance_check"] <= 1e-14


@pytest.mark.parametrize(
    ("optimizer", "reason"),
    [
        (lambda p: optim.SGD(p, lr=0.05, momentum=0.9), "the optimizer has a memory of earlier gradients"),
        (lambda p: optim.Adam(p, lr=0.01), "the optimizer has a preconditioner"),
        (
            lambda p: optim.SGD([{"params": [next(p), next(p)]}, {"params": p, "lr": 0.2}], lr=0.1),
            "its parameters have different learning rates, clips or decays",
        ),
    ],
)
def test_where_the_identity_does_not_hold_it_is_not_checked(tmp_path, optimizer, reason):
    found = make_run(tmp_path, optimizer).analysed(parts="balance")
    assert any(reason in note for note in found.notes)
    assert np.isnan(found.arrays["balance_off"].data[2:, 0]).all()  # a first step has no memory yet
    assert np.isfinite(found.arrays["balance"].data).all()
    # The rows before the break, of which row 0 is 0 by definition, are no check of the pair.
    off, size = found.arrays["balance_off"].data, found.arrays["balance_size"].data
    if np.isnan(off[-1]).all():
        assert found.scalars["balance_check"] is None
    else:
        assert found.scalars["balance_check"] == (off[:, 1] / size[:, 1]).max() > 0
