"""Averages of models with hidden units to match and with BatchNorm; and of float32 models."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn
from tscope_format.errors import AnalysisError

import tscope
from tests.analyses.averaging_runs import Runs, make_runs, mean_state
from tests.models import Conv
from tests.optimizers.recorded import Recorder, mlp
from tscope.analyses.averaging import Options, between
from tscope.analyses.averaging.stage import prepare
from tscope.averaging import Matching, State, find_units


def pictures(count: int):
    random = torch.Generator().manual_seed(6)
    x = torch.randn(count, 1, 4, 4, generator=random, dtype=torch.float64)
    return x, (x.mean((1, 2, 3)) > 0).long()


@pytest.fixture(scope="module")
def normed(tmp_path_factory) -> Runs:
    folder = tmp_path_factory.mktemp("normed")
    return make_runs(folder, make=lambda: Conv().double(), examples=pictures, rate=0.1, count=3)


def test_statistics_are_recalibrated_as_update_bn_does(normed):
    """On the training examples in the trace's order, in batches of the run's largest: 4, 4 and 2."""
    found = normed.analysed(points=3, layers=False)
    states = [normed.state(0), normed.state(1)]
    x = normed.sets["train"][0]
    batches = [x[:4], x[4:8], x[8:]]
    f = {}
    for alpha in (0.0, 0.5, 1.0):
        state = mean_state(states, (alpha, 1 - alpha))
        normed.module.load_state_dict(state)
        update_bn(batches, normed.module)
        recalibrated = {name: value.clone() for name, value in normed.module.state_dict().items()}
        f[alpha] = normed.outputs(recalibrated, "test")
        place = int(np.flatnonzero(found.arrays["alpha"].data == alpha)[0])
        expected = normed.value(f[alpha], "test")
        np.testing.assert_allclose(found.arrays["loss_average_test"].data[place], expected, rtol=1e-12)
    apart = f[0.5] - (f[0.0] + f[1.0]) / 2
    assert found.scalars["difference_test"] == pytest.approx(float(apart.square().mean().sqrt()), rel=1e-11)
    assert found.provenance["batch_of_recalibration"] == 4
    assert found.scalars["identity_error_test"] < 1e-13
    assert any(note.startswith("BatchNorm's statistics of every model") for note in found.notes)
    assert "buffers change too: what they do to the outputs counts as curvature" in found.notes


def test_single_layers_are_averaged_with_statistics_of_their_own(normed):
    found = normed.analysed(points=3)
    x = normed.sets["train"][0]

    def loss(state) -> float:
        normed.module.load_state_dict(state)
        update_bn([x[:4], x[4:8], x[8:]], normed.module)
        settled = {name: value.clone() for name, value in normed.module.state_dict().items()}
        return normed.value(normed.outputs(settled, "test"), "test")

    for base in range(2):
        own, other = normed.state(base), normed.state(1 - base)
        for place, layer in enumerate(found.provenance["layers"]):
            mixed = {
                name: (value + other[name]) / 2 if name.startswith(f"{layer}.") else value
                for name, value in own.items()
                if value.is_floating_point()
            }
            rise = loss({**own, **mixed}) - loss(own)
            assert abs(rise) > 1e-6
            assert found.arrays["layer_rise_test"].data[base, place] == pytest.approx(rise, rel=1e-9)


def test_without_recalibration_the_recorded_statistics_are_averaged(normed):
    found = normed.analysed(points=3, recalibrate=False)
    average = mean_state([normed.state(0), normed.state(1)], (0.5, 0.5))
    expected = normed.value(normed.outputs(average, "test"), "test")
    assert found.scalars["loss_average_test"] == pytest.approx(expected, rel=1e-12)
    assert found.scalars["recalibrated"] is False
    own, other = normed.state(0), normed.state(1)
    mixed = {
        k: (v + other[k]) / 2 if k.startswith("norm.") and v.is_floating_point() else v
        for k, v in own.items()
    }
    rise = normed.value(normed.outputs(mixed, "test"), "test") - found.scalars["loss_a_test"]
    place = found.provenance["layers"].index("norm")
    assert found.arrays["layer_rise_test"].data[0, place] == pytest.approx(rise, rel=1e-9)


def shuffled_copy(runs: Runs, path, seed: int = 1):
    """The first run's last model with its hidden units in another order, as the last row of a trace."""
    trace = runs.traces[0]
    units = find_units(trace.program())
    random = torch.Generator().manual_seed(seed)
    orders = {layer: torch.randperm(size, generator=random) for layer, size in units.sizes.items()}
    step = int(trace.steps[-1])
    state = Matching(orders, 0, 0).apply(units, State(trace.theta(step), trace.buffers(step)))
    module = runs.module
    module.load_state_dict({**state.theta, **state.buffers})
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)
    x, y = runs.sets["train"]
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.0  # a step that leaves everything as it is; only training knows it
    recorder = Recorder(path, module.train(), optimizer, x)
    nn.functional.cross_entropy(recorder.forward(x), y).backward()
    recorder.step()
    return recorder.close()


@pytest.mark.parametrize("kind", ["mlp", "normed"])
def test_a_copy_in_another_order_has_no_barrier_after_matching(kind, normed, tmp_path):
    runs = normed if kind == "normed" else make_runs(tmp_path, runs=1, count=3)
    other = shuffled_copy(runs, tmp_path / "copy.zarr")
    options = {"against": str(other.path), "probe": str(runs.held), "save": False, "layers": False}
    plain = tscope.analyze(runs.traces[0], "weight-averaging", **options)
    matched = tscope.analyze(runs.traces[0], "weight-averaging", match=True, **options)
    for name in ("train", "test"):
        assert plain.scalars[f"barrier_loss_{name}"] > 1e-3
        assert np.abs(matched.arrays[f"loss_excess_{name}"].data).max() <= 1e-10
        assert matched.arrays[f"difference_{name}"].data.max() <= 1e-10
    assert matched.scalars["distance_after_b"] == 0
    assert matched.scalars["distance_before_b"] > 0.1
    assert matched.scalars["units_moved_b"] > 0
    assert matched.scalars["fork_step"] is None
    assert any(note.startswith("matched units are not where the runs parted") for note in matched.notes)


def test_a_barrier_between_two_places_of_the_grid_is_found(tmp_path):
    """Of a copy in another order it is half-way, or nearly: thirds miss it."""
    runs = make_runs(tmp_path, runs=1, count=3)
    other = shuffled_copy(runs, tmp_path / "copy.zarr")
    options = {"against": str(other.path), "probe": str(runs.held), "save": False, "layers": False}
    found = tscope.analyze(runs.traces[0], "weight-averaging", points=4, **options)
    states = [runs.state(0), other.state_dict(int(other.steps[-1]))]
    for name in ("train", "test"):
        ends = [runs.value(runs.outputs(state, name), name) for state in states]

        def excess(alpha, name=name, ends=ends) -> float:
            loss = runs.value(runs.outputs(mean_state(states, (alpha, 1 - alpha)), name), name)
            return loss - alpha * ends[0] - (1 - alpha) * ends[1]

        dense = {alpha: excess(alpha) for alpha in np.linspace(0, 1, 201)}
        top = max(dense, key=dense.__getitem__)
        barrier = found.scalars[f"barrier_loss_{name}"]
        assert max(excess(1 / 3), excess(2 / 3)) < 0.95 * barrier
        # Half of 1/200 beside its maximum the excess falls by some 1e-5 of it.
        assert barrier == pytest.approx(dense[top], rel=1e-4)
        place = found.scalars[f"barrier_loss_{name}_alpha"]
        assert place == pytest.approx(top, abs=4e-3)
        assert barrier == pytest.approx(excess(place), rel=1e-10)


def test_a_matching_that_changes_a_model_is_refused(normed, tmp_path, monkeypatch):
    """Units that were taken for free and are not: here the axes of one layer's weights are left out."""

    def wrong(program):
        units = find_units(program)
        axes = {name: found for name, found in units.axes.items() if name != "head.weight"}
        return type(units)(units.sizes, axes)

    monkeypatch.setattr(between, "find_units", wrong)
    other = shuffled_copy(normed, tmp_path / "copy.zarr")
    with pytest.raises(AnalysisError, match="predicts otherwise with its units in another order"):
        tscope.analyze(normed.traces[0], "weight-averaging", against=str(other.path), match=True, save=False)


def test_float32_models_are_averaged_to_float32_accuracy(tmp_path):
    def single(count: int):
        x = torch.randn(count, 4, generator=torch.Generator().manual_seed(5))
        return x, x[:, :3].argmax(1)

    runs = make_runs(tmp_path, make=lambda: mlp(3, torch.float32), examples=single)
    found = runs.analysed(points=3, layers=False)
    average = mean_state([runs.state(0), runs.state(1)], (0.5, 0.5))
    expected = runs.value(runs.outputs(average, "test"), "test")
    assert found.provenance["dtype"] == "float32"
    assert found.scalars["loss_average_test"] == pytest.approx(expected, rel=1e-7)
    precise = runs.analysed(points=3, layers=False, dtype="float64")
    assert precise.scalars["loss_average_test"] == pytest.approx(expected, rel=2e-7)
    assert precise.scalars["identity_error_test"] < 1e-13
    assert 1e-9 < found.scalars["identity_error_test"] < 6e-7


def test_batches_of_the_recalibration_fit_the_program(normed):
    stage = prepare(normed.traces[0], Options(probe=str(normed.held)))
    assert [len(part[0]) for part in stage.batches()] == [4, 4, 2]
    assert [len(part[0]) for part in replace(stage, batch=3).batches()] == [3, 3, 4]  # not a batch of one
    assert [len(part[0]) for part in replace(stage, batch=64).batches()] == [10]
    fixed = copy.copy(stage.program)
    fixed.batch = False
    assert [len(part[0]) for part in replace(stage, program=fixed).batches()] == [4, 4]
    whole = torch.cat([part[0] for part in stage.batches()])
    assert torch.equal(whole, normed.sets["train"][0])
