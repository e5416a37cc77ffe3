"""Every series of the metric `gradients` against explicit float64 Jacobians."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn, optim

import tscope
from tests.analyses.layer_runs import Run, deep, make_run
from tests.optimizers.recorded import data, epochs, train
from tests.reference.jacobians import jacobian
from tscope.analyses.gradients import rows

LAYERS = ("0", "2", "4")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return make_run(tmp_path_factory.mktemp("gradients"), lambda p: optim.Adam(p, lr=0.05), deep(nn.Tanh()))


def analysed(run: Run, **options):
    options = {"probe": str(run.held), **options}
    return tscope.analyze(run.trace, "gradients", save=False, **options)


def explicit(run: Run, points: torch.Tensor) -> list[list[np.ndarray]]:
    """J of each row and layer as vectors (row, layer), each of all examples and outputs."""
    found = []
    for theta in run.thetas:
        run.module.load_state_dict(theta)
        J = jacobian(run.module, [points])
        found.append(
            [
                np.concatenate([J[f"{layer}.{n}"].numpy().ravel() for n in ("weight", "bias")])
                for layer in LAYERS
            ]
        )
    return found


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-13) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("together", [8, 3])
def test_change_and_cosine_of_each_layer_from_each_step(run, monkeypatch, together):
    monkeypatch.setattr(rows, "_TOGETHER", together)
    found = analysed(run, since="2,0,5", every=1).arrays
    assert found["since"].data.tolist() == [0, 2, 5]
    assert found["step"].data.tolist() == list(range(10))
    x = run.trace["examples/input/0"]
    for name, points in (("train", torch.from_numpy(x)), ("test", run.points)):
        J = explicit(run, points)
        whole = [np.concatenate(list(row)) for row in J]
        size = [[float(part @ part) / len(points) for part in row] for row in J]
        close(found[f"size_{name}"].data, np.array(size))
        for place, start in enumerate((0, 2, 5)):
            assert np.isnan(found[f"change_{name}"].data[place, :start]).all()
            assert np.isnan(found[f"cosine_layer_{name}"].data[place, :start]).all()
            for row in range(start, 10):

                def apart(a, b):
                    return float((b - a) @ (b - a) / (a @ a))

                def cosine(a, b):
                    return float(a @ b / np.sqrt((a @ a) * (b @ b)))

                for layer in range(3):
                    pair = J[start][layer], J[row][layer]
                    close(found[f"change_layer_{name}"].data[place, row, layer], np.array(apart(*pair)))
                    close(found[f"cosine_layer_{name}"].data[place, row, layer], np.array(cosine(*pair)))
                pair = whole[start], whole[row]
                close(found[f"change_{name}"].data[place, row], np.array(apart(*pair)))
                close(found[f"cosine_{name}"].data[place, row], np.array(cosine(*pair)))
        ends = found[f"change_layer_{name}"].data[:, -1]
        assert np.array_equal(found[f"change_end_layer_{name}"].data, ends)
        assert np.array_equal(found[f"cosine_end_{name}"].data, found[f"cosine_{name}"].data[:, -1])
        largest = np.nanmax(found[f"change_layer_{name}"].data, 1)
        assert np.array_equal(found[f"change_max_layer_{name}"].data, largest)


def test_the_step_from_which_gradients_are_stable(run):
    every = ",".join(map(str, range(9)))
    first = analysed(run, since=every, every=1)
    change = first.arrays["change_train"].data
    largest = np.nanmax(change, 1)
    for stable in (largest.min() / 2, np.sort(largest)[4] * 1.0001, largest.max() * 2):
        found = analysed(run, since=every, every=1, stable=float(stable))
        good = np.flatnonzero(largest <= stable)
        assert found.scalars["stabilised_train"] == (int(good[0]) if len(good) else None)
        by_layer = np.nanmax(first.arrays["change_layer_train"].data, 1)
        expected = [
            np.flatnonzero(column <= stable)[0] if (column <= stable).any() else np.nan
            for column in by_layer.T
        ]
        np.testing.assert_array_equal(found.arrays["stabilised_layer_train"].data, expected)


def test_the_last_row_is_never_a_step_of_stability(run):
    found = analysed(run, since="0,last", every=1, stable=1e-9)
    assert found.arrays["change_train"].data[1, -1] == 0
    assert found.scalars["stabilised_train"] is None


def test_gradients_of_a_linear_model_do_not_move(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 3)).double()
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    trace = train(tmp_path / "t.zarr", module, optimizer, epochs(*data(3), 4, 2), nn.functional.mse_loss)
    found = tscope.analyze(trace, "gradients", save=False)
    assert not found.arrays["change_layer_train"].data[0].any()
    assert np.abs(found.arrays["cosine_train"].data[0] - 1).max() <= 1e-15
    assert found.scalars["stabilised_train"] == 0


def test_of_two_linear_layers_the_first_changes_with_the_second(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Linear(5, 1, bias=False)).double()
    optimizer = optim.SGD(module.parameters(), lr=0.2)
    trace = train(tmp_path / "t.zarr", module, optimizer, epochs(*data(1), 4, 2), nn.functional.mse_loss)
    found = tscope.analyze(trace, "gradients", save=False, since="0", at="last").arrays
    start, end = trace.theta(0), trace.theta(6)
    x = torch.from_numpy(trace["examples/input/0"])
    # ∂f/∂W₁ = W₂ᵀxᵀ: of any x the change is that of W₂; ∂f/∂W₂ = W₁x.
    second = (end["1.weight"] - start["1.weight"]).square().sum() / start["1.weight"].square().sum()
    hidden = [x @ theta["0.weight"].T for theta in (start, end)]
    first = (hidden[1] - hidden[0]).square().sum() / hidden[0].square().sum()
    close(found["change_layer_train"].data[0, -1], np.array([float(second), float(first)]))


def test_chosen_outputs_and_frozen_layers(run, tmp_path):
    whole = explicit(run, run.points)
    found = analysed(run, probe_output="1", since="0", at="last").arrays
    outputs = [part.reshape(-1) for part in whole[0]]
    assert outputs[0].size == 5 * 3 * 30  # of each example, output and parameter
    parts = [
        [
            np.concatenate([J[f"{layer}.{n}"].numpy()[:, 1].ravel() for n in ("weight", "bias")])
            for layer in LAYERS
        ]
        for J in (_dense(run, 0), _dense(run, 9))
    ]
    expected = [float((b - a) @ (b - a) / (a @ a)) for a, b in zip(*parts, strict=True)]
    close(found["change_layer_test"].data[0, -1], np.array(expected))
    module = deep(nn.Tanh())
    module[0].requires_grad_(False)
    optimizer = optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
    trace = train(tmp_path / "t.zarr", module, optimizer, epochs(*data(3), 4, 1), nn.functional.mse_loss)
    assert tscope.analyze(trace, "gradients", save=False).provenance["layers"] == ["2", "4"]


def _dense(run: Run, row: int):
    run.module.load_state_dict(run.thetas[row])
    return jacobian(run.module, [run.points])
