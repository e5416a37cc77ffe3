"""`regime` on runs in float64: modes, movements, and what it refuses."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn, optim
from tscope_format.errors import AnalysisError, MissingDataError, TscopeError, UsageError

import tscope
from tests.analyses.layer_runs import deep
from tests.optimizers.recorded import Recorder, data, epochs, train
from tests.traces import train as plain_train
from tscope import analyses
from tscope.trace import Trace

S = torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)


def orthogonal(rows: int, columns: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(rows, columns, generator=random, dtype=torch.float64))[0]


def whitened() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return X with XᵀX/n = I, Y with YᵀX/n = U S Vᵀ, and U, V."""
    x = orthogonal(40, 5, 0) * 40**0.5
    U, V = orthogonal(3, 3, 1), orthogonal(5, 3, 2)
    return x, x @ (V * S) @ U.T, U, V


def linear(start: float = 0.2, widths: tuple[int, ...] = (5, 6, 3)) -> nn.Sequential:
    """Return a linear network; of two layers a balanced one, aligned with the data."""
    torch.manual_seed(3)
    module = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in pairwise(widths))).double()
    if len(widths) == 3:
        _, _, U, V = whitened()
        R = orthogonal(6, 3, 4)
        with torch.no_grad():
            module[0].weight.copy_(start * R @ V.T)
            module[1].weight.copy_(start * U @ R.T)
    return module


def trained(path: Path, module: nn.Module, rate: float, steps: int, **settings) -> Trace:
    x, y, _, _ = whitened()
    optimizer = optim.SGD(module.parameters(), lr=rate * 3 / 2, **settings)
    return train(path, module, optimizer, [(x, y)] * steps, nn.functional.mse_loss)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Trace:
    return trained(tmp_path_factory.mktemp("regime") / "run.zarr", linear(), 0.01, 300)


def analysed(trace, **options):
    return tscope.analyze(trace, "regime", save=False, **options)


def refused(trace, kind: type[TscopeError], **options) -> str:
    with pytest.raises(kind) as caught:
        analysed(trace, **options)
    return str(caught.value)


def test_modes_are_those_of_the_product_of_the_weights(run):
    found = analysed(run, parts="modes", every=50)
    np.testing.assert_allclose(found.arrays["target"].data, S, rtol=1e-12)
    _, _, U, V = whitened()
    for row, step in enumerate(found.arrays["step"].data):
        theta = run.theta(int(step))
        W = theta["1.weight"] @ theta["0.weight"]
        expected = (U.T @ W @ V).diagonal()
        np.testing.assert_allclose(found.arrays["strength"].data[row], expected, rtol=1e-10)
    np.testing.assert_allclose(found.arrays["index"].data[0], 0, atol=1e-12)
    assert found.scalars["whiteness"] < 1e-12
    assert found.scalars["depth"] == 2
    assert "movement" in found.arrays
    assert "kernel_movement_train" not in found.arrays


@pytest.mark.slow
def test_modes_follow_saxes_closed_form_to_first_order_in_the_learning_rate(run, tmp_path):
    coarse = analysed(run, parts="modes", every=1)
    # t = c·Σγ with c = 2/3 of mse_loss over 3 outputs.
    np.testing.assert_allclose(coarse.arrays["time"].data, 0.01 * np.arange(301), rtol=1e-12)
    fine_run = trained(tmp_path / "fine.zarr", linear(), 0.005, 600)
    fine = analysed(fine_run, parts="modes", every=2)
    assert coarse.scalars["closed_off"] < 0.03
    assert coarse.scalars["closed_off"] / fine.scalars["closed_off"] == pytest.approx(2, rel=0.1)
    apart = (fine.arrays["half_step"].data - fine.arrays["half_step_closed"].data) * 0.005
    wide = (coarse.arrays["half_step"].data - coarse.arrays["half_step_closed"].data) * 0.01
    np.testing.assert_allclose(wide / apart, 2, rtol=0.2)
    np.testing.assert_allclose(
        coarse.arrays["strength_unbalanced"].data, coarse.arrays["strength_closed"].data, atol=1e-7
    )
    assert coarse.scalars["closed_off"] == pytest.approx(
        np.abs((coarse.arrays["strength"].data - coarse.arrays["strength_closed"].data) / S.numpy()).max()
    )


@pytest.mark.slow
def test_two_unequal_factors_follow_the_form_with_their_imbalance(tmp_path):
    module = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        module[0].weight.fill_(0.1)
        module[1].weight.fill_(1.5)
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    optimizer = optim.SGD(module.parameters(), lr=0.001)
    trace = train(tmp_path / "run.zarr", module, optimizer, [(x, 2 * x)] * 400, nn.functional.mse_loss)
    found = analysed(trace, parts="modes")
    assert found.scalars["index"] == pytest.approx((1.5**2 - 0.1**2) / 2, rel=1e-12)
    strength = found.arrays["strength"].data
    np.testing.assert_allclose(strength, found.arrays["strength_unbalanced"].data, atol=0.01)
    assert found.scalars["closed_off"] > 0.1


def test_factors_that_are_not_parallel_follow_the_form_of_what_they_keep(tmp_path):
    module = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False)).double()
    a, b = torch.tensor([0.5, 0.0], dtype=torch.float64), torch.tensor([0.02, 0.5], dtype=torch.float64)
    with torch.no_grad():
        module[0].weight.copy_(a[:, None])
        module[1].weight.copy_(b[None])
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    optimizer = optim.SGD(module.parameters(), lr=0.002)
    trace = train(tmp_path / "run.zarr", module, optimizer, [(x, 2 * x)] * 200, nn.functional.mse_loss)
    found = analysed(trace, parts="modes", every=1)
    assert abs(found.scalars["index"]) < 1e-3
    # The flow of the factors themselves, in steps a hundred times smaller: t = 2·lr·steps.
    courses = [float(a @ b)]
    for _ in range(200):
        for _ in range(100):
            off = 0.004 / 100 * (2 - a @ b)
            a, b = a + off * b, b + off * a
        courses.append(float(a @ b))
    guided, strength = (found.arrays[name].data[:, 0] for name in ("strength_unbalanced", "strength"))
    np.testing.assert_allclose(guided, courses, atol=1e-4)
    assert np.abs(strength - guided).max() < 0.01
    assert found.scalars["unbalanced_off"] == pytest.approx(np.abs(strength - guided).max() / 2)
    # Saxe's form, and that of Λ alone, begin at u_0 = 0.01 and are far behind.
    assert found.scalars["closed_off"] > 0.3
    half = found.arrays["half_step_unbalanced"].data[0]
    assert half == pytest.approx(np.interp(1.0, courses, np.arange(201)), abs=0.05)


def test_movements_are_those_of_parameters_kernel_and_features(run):
    found = analysed(run, at="0,100,last")
    kernels = tscope.analyze(run, "kernel", save=False, at="0,100,last")
    for name in ("movement", "distance", "alignment"):
        np.testing.assert_allclose(
            found.arrays[f"kernel_{name}_train"].data, kernels.arrays[f"{name}_train"].data, rtol=1e-12
        )
    x, _, _, _ = whitened()
    start, end = run.theta(0), run.theta(300)
    whole = [torch.cat([values[name].reshape(-1) for name in sorted(values)]) for values in (start, end)]
    assert found.scalars["movement"] == pytest.approx(float((whole[1] - whole[0]).norm() / whole[0].norm()))
    h = [x @ values["0.weight"].T for values in (start, end)]
    moved = float((h[1] - h[0]).norm() / h[0].norm())
    assert found.scalars["feature_movement_train"] == pytest.approx(moved)
    assert found.provenance["features"] == "1"
    assert any("no held-out examples" in note for note in found.notes)


def test_a_net_with_a_nonlinearity_or_biases_has_movements_but_no_modes(tmp_path):
    x, y = data(3)
    for module, reason in (
        (
            nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 3, bias=False)).double(),
            "the model is not a linear network: it holds aten.tanh.default; singular modes and their closed "
            "forms are those of f(x) = W_L … W_1 x",
        ),
        (
            nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3, bias=False)).double(),
            "the model is not a chain of weight matrices: it also uses 0.bias; singular modes and their "
            "closed forms are those of f(x) = W_L … W_1 x, without biases",
        ),
    ):
        optimizer = optim.SGD(module.parameters(), lr=0.1)
        path = tmp_path / f"{len(list(module.parameters()))}.zarr"
        trace = train(path, module, optimizer, epochs(x, y, 5, 3), nn.functional.mse_loss)
        message = refused(trace, AnalysisError, parts="modes")
        assert message == f"{reason} (without `--parts` there is what can be computed)"
        found = analysed(trace, train=4)
        assert f"no modes: {reason}" in found.notes
        assert {"movement", "feature_movement_train", "kernel_movement_train"} <= set(found.arrays)
        assert "strength" not in found.arrays


@pytest.mark.slow
def test_without_plain_gradient_descent_of_two_layers_there_are_modes_and_no_closed_forms(tmp_path):
    for name, module, settings, reason in (
        ("deep", linear(widths=(5, 4, 4, 3)), {}, "one or two layers, and there are 3"),
        ("heavy", linear(), {"momentum": 0.9}, "with one learning rate, and the optimizer is SGD"),
    ):
        found = analysed(trained(tmp_path / f"{name}.zarr", module, 0.01, 20, **settings), parts="modes")
        assert any(note.startswith("no closed forms: ") and reason in note for note in found.notes)
        assert "strength" in found.arrays
        assert "strength_closed" not in found.arrays


@pytest.mark.slow
def test_one_layer_and_inputs_that_are_not_whitened(tmp_path):
    module = linear(widths=(5, 3))
    found = analysed(trained(tmp_path / "one.zarr", module, 0.001, 200))
    assert found.scalars["closed_off"] < 1e-3
    assert "index" not in found.arrays
    assert any(
        note.startswith("no features: the last linear layer, 0, reads the inputs") for note in found.notes
    )
    x, y = data(3, count=30)
    module = nn.Linear(4, 3, bias=False).double()
    optimizer = optim.SGD(module.parameters(), lr=0.01)
    trace = train(tmp_path / "raw.zarr", module, optimizer, [(x, y)] * 20, nn.functional.mse_loss)
    assert any(
        note.startswith("the inputs correlate the modes") for note in analysed(trace, parts="modes").notes
    )


def test_the_plan_is_what_kernels_cost(run):
    said = analyses.plan(run, "regime", at="last")
    assert said is not None
    assert said.startswith(
        "exact kernels at 2 rows, of 40 training and 0 held-out examples with C = 3: about "
    )
    assert analyses.plan(run, "regime", parts="modes,features") is None


def test_bad_requests_and_traces_are_refused_in_one_line(run, tmp_path):
    assert refused(run, UsageError, parts="mode") == (
        "unknown part 'mode' in parts; there is kernel, features, modes"
    )
    assert refused(run, UsageError, every=0) == "every must be at least 1, got 0"
    assert refused(run, UsageError, at="1", every=2) == (
        "at and every both choose the rows; leave out one of the two"
    )
    module, (x, y) = deep(), data(3)
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    plain_train(tmp_path / "t.zarr", module, optimizer, [(x, y)], nn.functional.mse_loss, program=False)
    message = refused(tscope.open(tmp_path / "t.zarr"), MissingDataError)
    assert "the model as data (program) and the training examples" in message


def test_without_updates_the_rows_that_were_kept_can_be_named(tmp_path):
    x, y, _, _ = whitened()
    module = linear()
    optimizer = optim.SGD(module.parameters(), lr=0.01)
    recorder = Recorder(tmp_path / "t.zarr", module, optimizer, x, updates=False)
    for _ in range(6):
        optimizer.zero_grad()
        nn.functional.mse_loss(recorder.forward(x), y).backward()
        recorder.step()
    trace = recorder.close()
    assert "the parameters at the rows that are asked for" in refused(trace, MissingDataError)
    found = analysed(trace, at="0,last", parts="modes")
    assert found.arrays["step"].data.tolist() == [0, 6]
    W = module[1].weight @ module[0].weight
    _, _, U, V = whitened()
    np.testing.assert_allclose(
        found.arrays["strength"].data[1], (U.T @ W @ V).diagonal().detach(), rtol=1e-10
    )


def test_a_run_that_diverges_ends_before(tmp_path):
    x, y = data(3)
    module = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Linear(5, 3, bias=False)).double()
    optimizer = optim.SGD(module.parameters(), lr=1e40)
    trace = train(tmp_path / "t.zarr", module, optimizer, [(x, y)] * 12, nn.functional.mse_loss)
    found = analysed(trace, every=1, parts="features")
    stopped = found.scalars["stopped"]
    assert found.arrays["step"].data[-1] == stopped - 1
    assert f"the run is not finite at step {stopped}; figures end before" in found.notes
