"""Averages between runs against the module loaded with the averaged state_dict; float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.analyses.averaging_runs import COMMON, Runs, make_runs, mean_state
from tests.reference import jacobians

KINDS = {
    "classes": {"loss": "cross_entropy", "outputs": 3},
    "signs": {"loss": "mse", "outputs": 1, "rate": 0.1},
    "binary": {"loss": "bce", "outputs": 3},
}
CLOSE = {"rtol": 1e-12, "atol": 1e-13}


@pytest.fixture(scope="module", params=list(KINDS))
def runs(request, tmp_path_factory) -> Runs:
    return make_runs(tmp_path_factory.mktemp(request.param), **KINDS[request.param])


@pytest.fixture(scope="module")
def found(runs):
    return runs.analysed(points=5)


def test_every_average_is_the_module_with_the_averaged_state_dict(runs, found):
    states = [runs.state(0), runs.state(1)]
    for name in ("train", "test"):
        f = [runs.outputs(state, name) for state in states]
        own = [runs.value(value, name) for value in f]
        right = [runs.accuracy(value, name) for value in f]
        for k, alpha in enumerate(found.arrays["alpha"].data):
            weights = (alpha, 1 - alpha)
            average = runs.outputs(mean_state(states, weights), name)
            ensemble = alpha * f[0] + (1 - alpha) * f[1]
            expected = {
                "loss_average": runs.value(average, name),
                "loss_ensemble": runs.value(ensemble, name),
                "loss_line": alpha * own[0] + (1 - alpha) * own[1],
                "accuracy_average": runs.accuracy(average, name),
                "accuracy_ensemble": runs.accuracy(ensemble, name),
                "accuracy_line": alpha * right[0] + (1 - alpha) * right[1],
                "difference": float((average - ensemble).square().mean().sqrt()),
            }
            for series, value in expected.items():
                np.testing.assert_allclose(found.arrays[f"{series}_{name}"].data[k], value, **CLOSE)
        excess = found.arrays[f"loss_average_{name}"].data - found.arrays[f"loss_line_{name}"].data
        np.testing.assert_allclose(found.arrays[f"loss_excess_{name}"].data, excess, **CLOSE)
        deficit = found.arrays[f"accuracy_line_{name}"].data - found.arrays[f"accuracy_average_{name}"].data
        np.testing.assert_allclose(found.arrays[f"accuracy_deficit_{name}"].data, deficit, **CLOSE)
        assert found.scalars[f"barrier_accuracy_{name}"] == deficit.max()
        assert found.scalars[f"loss_a_{name}"] == pytest.approx(own[0], rel=1e-12)
        assert found.scalars[f"accuracy_b_{name}"] == pytest.approx(right[1], rel=1e-12)


def test_the_barrier_is_the_highest_excess_along_alpha(runs, found):
    """Against 301 places: half of 1/300 beside its maximum an excess falls by some 1e-5 of it."""
    states = [runs.state(0), runs.state(1)]
    for name in ("train", "test"):
        ends = [runs.value(runs.outputs(state, name), name) for state in states]
        dense = {}
        for alpha in np.linspace(0, 1, 301):
            loss = runs.value(runs.outputs(mean_state(states, (alpha, 1 - alpha)), name), name)
            dense[alpha] = loss - (alpha * ends[0] + (1 - alpha) * ends[1])
        top = max(dense, key=dense.__getitem__)
        barrier = found.scalars[f"barrier_loss_{name}"]
        assert barrier == pytest.approx(dense[top], rel=1e-4, abs=1e-12)
        assert found.scalars[f"barrier_loss_{name}_alpha"] == pytest.approx(top, abs=4e-3)
        assert barrier == found.arrays[f"loss_excess_{name}"].data.max()


def test_the_curvature_terms_are_what_explicit_jacobians_leave(runs, found):
    assert found.scalars["fork_step"] == COMMON
    origin = runs.state(0, COMMON)
    assert all(torch.equal(value, runs.state(1, COMMON)[name]) for name, value in origin.items())
    for name in ("train", "test"):
        runs.module.load_state_dict(origin)
        x = runs.sets[name][0]
        J = jacobians.jacobian(runs.module, [x])
        f0 = runs.outputs(origin, name)

        def term(state, J=J, f0=f0, name=name):
            f = runs.outputs(state, name)
            moved = sum(J[key].reshape(*f.shape, -1) @ (state[key] - origin[key]).reshape(-1) for key in J)
            return f - f0 - moved

        states = [runs.state(0), runs.state(1)]
        c = [term(state) for state in states]
        f = [runs.outputs(state, name) for state in states]
        for k, alpha in enumerate(found.arrays["alpha"].data):
            average = mean_state(states, (alpha, 1 - alpha))
            own, members = term(average), alpha * c[0] + (1 - alpha) * c[1]
            d = {key: states[0][key] - states[1][key] for key in origin}
            ends = [{key: value + sign * d[key] for key, value in origin.items()} for sign in (1, -1)]
            bend = (runs.outputs(ends[0], name) + runs.outputs(ends[1], name)) / 2 - f0
            predicted = {
                "explained": -alpha * (1 - alpha) * bend,
                "explained_alone": -alpha * (1 - alpha) * (c[0] + c[1]),
            }
            apart = runs.outputs(average, name) - (alpha * f[0] + (1 - alpha) * f[1])
            torch.testing.assert_close(apart, own - members, rtol=0, atol=1e-12)
            for series, value in (("average", own), ("members", members)):
                rms = float(value.square().mean().sqrt())
                np.testing.assert_allclose(
                    found.arrays[f"curvature_{series}_{name}"].data[k], rms, rtol=1e-10, atol=1e-13
                )
            size = float(apart.square().sum())
            if alpha in (0, 1):
                assert np.isnan(found.arrays[f"explained_{name}"].data[k])
                continue
            for series, value in predicted.items():
                expected = 1 - float((apart - value).square().sum()) / size
                np.testing.assert_allclose(found.arrays[f"{series}_{name}"].data[k], expected, rtol=1e-9)
            parts = [found.arrays[f"share_{kind}_{name}"].data[k] for kind in ("average", "members")]
            np.testing.assert_allclose(parts[1], -float((members * apart).sum()) / size, rtol=1e-9)
            assert sum(parts) == pytest.approx(1, abs=1e-9)
        assert found.scalars[f"identity_error_{name}"] < 1e-13
        relative = float((c[0].square().mean() / (f[0] - f0).square().mean()).sqrt())
        assert found.scalars[f"curvature_relative_a_{name}"] == pytest.approx(relative, rel=1e-10)


def test_layers_alone_are_averaged_within_either_model(runs, found):
    states = [runs.state(0), runs.state(1)]
    assert found.provenance["layers"] == ["0", "2"]
    for name in ("train", "test"):
        for base in range(2):
            own, other = states[base], states[1 - base]
            for place, layer in enumerate(("0", "2")):
                losses = []
                for share in (0, 0.25, 0.5, 0.75, 1):
                    mixed = {
                        key: (1 - share) * value + share * other[key] if key.startswith(layer) else value
                        for key, value in own.items()
                    }
                    losses.append(runs.value(runs.outputs(mixed, name), name))
                line = np.linspace(losses[0], losses[-1], 5)
                barrier = found.arrays[f"layer_barrier_{name}"].data[base, place]
                np.testing.assert_allclose(barrier, max(np.array(losses) - line), **CLOSE)
                rise = found.arrays[f"layer_rise_{name}"].data[base, place]
                np.testing.assert_allclose(rise, losses[2] - losses[0], rtol=1e-10, atol=1e-13)


def test_steps_of_one_run_are_averaged_too(runs):
    found = runs.analysed(against=(), at="2,last", layers=False, points=3)
    assert found.scalars["fork_step"] == 2
    assert found.scalars["curvature_a_test"] == 0
    average = mean_state([runs.state(0, 2), runs.state(0)], (0.5, 0.5))
    expected = runs.value(runs.outputs(average, "test"), "test")
    assert found.scalars["loss_average_test"] == pytest.approx(expected, rel=1e-12)
    assert [member["step"] for member in found.provenance["members"]] == [2, int(runs.traces[0].steps[-1])]


def test_of_several_models_the_first_1_2_3_are_averaged(tmp_path):
    runs = make_runs(tmp_path, runs=3)
    found = runs.analysed(against=(1, 2))
    states = [runs.state(place) for place in range(3)]
    f = [runs.outputs(state, "test") for state in states]
    own = [runs.value(value, "test") for value in f]
    assert found.arrays["models"].data.tolist() == [1, 2, 3]
    for count in (1, 2, 3):
        weights = [1 / count] * count
        average = runs.outputs(mean_state(states[:count], weights), "test")
        ensemble = sum(f[:count]) / count
        for series, value in (
            ("loss_average", runs.value(average, "test")),
            ("loss_ensemble", runs.value(ensemble, "test")),
            ("loss_line", sum(own[:count]) / count),
        ):
            np.testing.assert_allclose(found.arrays[f"{series}_test"].data[count - 1], value, **CLOSE)
    pairs = found.arrays["barrier_pair_test"].data
    half = runs.value(runs.outputs(mean_state([states[0], states[2]], (0.5, 0.5)), "test"), "test")
    assert pairs[0, 2] == pairs[2, 0] == pytest.approx(half - (own[0] + own[2]) / 2, rel=1e-10)
    assert (np.diag(pairs) == 0).all()
    assert found.scalars["fork_step"] == COMMON
    assert found.scalars["identity_error_test"] < 1e-13


def linear() -> nn.Module:
    torch.manual_seed(4)
    return nn.Linear(4, 2).double()


def targets(count: int):
    random = torch.Generator().manual_seed(5)
    x = torch.randn(count, 4, generator=random, dtype=torch.float64)
    return x, torch.randn(count, 2, generator=random, dtype=torch.float64)


def test_a_linear_regression_has_no_barrier_and_its_average_is_the_ensemble(tmp_path):
    runs = make_runs(tmp_path, "mse", 2, make=linear, examples=targets, rate=0.3)
    found = runs.analysed()
    for name in ("train", "test"):
        assert found.scalars[f"barrier_loss_{name}"] <= 1e-12
        assert found.arrays[f"loss_excess_{name}"].data[1:-1].max() < -1e-6  # strictly convex
        assert found.arrays[f"difference_{name}"].data.max() <= 1e-12
        assert found.scalars[f"curvature_a_{name}"] <= 1e-12
        assert np.isnan(found.arrays[f"explained_{name}"].data).all()
        assert f"accuracy_average_{name}" not in found.arrays
    assert "the labels are values, not classes: there is no accuracy" in found.notes
