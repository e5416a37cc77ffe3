"""What can be asked of the metric after a run, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import tscope
from tests import models
from tests.reference.telescoping import reference
from tests.traces import Probe, train
from tscope.analyses import metrics


def record(path, probes=None, program=True):
    torch.manual_seed(2)
    module = models.mlp(3)
    x, y = models.classes(16)
    given = {"held": Probe((x[:5],), y[:5])} if probes is None else probes
    sgd = torch.optim.SGD(module.parameters(), 0.05)
    return train(path, module, sgd, [(x, y)] * 4, nn.functional.cross_entropy, given, program=program)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return record(tmp_path_factory.mktemp("requests") / "run.zarr")


def save(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def test_a_new_probe_set_is_followed_after_the_run(run, tmp_path):
    x, y = models.classes(9)
    file = save(tmp_path / "other.npz", x=x.numpy(), y=y.numpy())
    result = tscope.analyze(run.path, "telescoping", probe=file, dtype="float64", save=False)
    expected = reference(models.mlp(3), run.thetas, run.buffers, (x,))
    assert result.scalars["probe"] == "other"
    assert result.scalars["source"] == "replay"
    assert np.abs(result.arrays["telescoped"].data - expected.telescoped.detach().numpy()).max() < 1e-10
    assert "accuracy_actual" in result.arrays


def test_a_file_with_the_name_of_a_recorded_probe_set_is_another_one(run, tmp_path):
    x, y = models.classes(9)
    file = save(tmp_path / "held.npz", x=x.numpy(), y=y.numpy())
    result = tscope.analyze(run.path, "telescoping", probe=file, save=False)
    assert result.scalars["source"] == "replay"
    assert result.arrays["actual"].data.shape[1] == 9


def test_another_functional_of_a_recorded_probe_set_is_replayed(run):
    result = tscope.analyze(run.path, "telescoping", probe="held", probe_output="loss", save=False)
    assert result.scalars["source"] == "replay"
    assert result.arrays["actual"].data.shape == (5, 5, 1)


def test_a_new_probe_set_may_follow_another_functional(run, tmp_path):
    x, y = models.classes(9)
    file = save(tmp_path / "other.npz", x=x.numpy(), y=y.numpy())
    result = tscope.analyze(run.path, "telescoping", probe=file, probe_output="logprob", save=False)
    assert result.arrays["actual"].data.shape == (5, 9, 1)
    assert result.provenance["functional"] == "logprob"
    assert "agreement_lazy" not in result.arrays


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((2, 5), np.float32)}, r"has shape \(5,\), but the model was trained on \(4,\)"),
        ({"x": np.zeros((2, 4))}, "has dtype float64, but the model was trained on float32"),
        ({"x": np.full((2, 4), np.nan, np.float32)}, "NaN or infinite"),
        ({"inputs": np.zeros((2, 4), np.float32)}, "it holds inputs"),
    ],
)
def test_a_bad_probe_file_is_refused(run, tmp_path, arrays, message):
    with pytest.raises(tscope.UsageError, match=message):
        tscope.analyze(run.path, "telescoping", probe=save(tmp_path / "bad.npz", **arrays))


def test_a_missing_probe_file_is_refused(run, tmp_path):
    with pytest.raises(tscope.UsageError, match="does not exist"):
        tscope.analyze(run.path, "telescoping", probe=str(tmp_path / "none.npz"))


def test_an_unknown_probe_name_lists_those_there_are(run):
    with pytest.raises(
        tscope.UsageError, match="no probe set 'test'; the trace has held, and a file must be named"
    ):
        tscope.analyze(run.path, "telescoping", probe="test")


def test_an_unknown_metric_lists_those_there_are(run):
    known = "there is " + ", ".join(sorted(metric.name for metric in metrics()))
    with pytest.raises(tscope.UsageError, match=f"unknown metric 'smoothing'; {known}"):
        tscope.analyze(run.path, "smoothing")


def test_an_unknown_option_lists_those_there_are(run):
    with pytest.raises(
        tscope.UsageError, match="telescoping has no option rules; it has dtype, every, layers"
    ):
        tscope.analyze(run.path, "telescoping", rules="left")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "right"}, "unknown rule 'right'; there is left, midpoint, simpson, gauss3"),
        ({"dtype": "float16"}, "unknown dtype 'float16'; there is float32, float64"),
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"max_memory_mb": 0}, "max_memory_mb must be positive, got 0"),
        ({"layers": False, "per_layer_full": True}, "per_layer_full needs layers"),
    ],
)
def test_options_out_of_range_are_refused(run, options, message):
    with pytest.raises(tscope.UsageError, match=message):
        tscope.analyze(run.path, "telescoping", **options)


def test_without_probes_the_option_is_named(tmp_path):
    path = record(tmp_path / "run.zarr", probes={}).path
    with pytest.raises(
        tscope.MissingDataError, match=r"lacks what telescoping needs: .*tscope record --probe"
    ) as error:
        tscope.analyze(path, "telescoping")
    assert error.value.exit_code == 4


def test_without_program_recorded_projections_suffice_but_replay_needs_the_model(tmp_path):
    path = record(tmp_path / "run.zarr", probes={"held": Probe((torch.zeros(2, 4),))}, program=False).path
    with pytest.raises(tscope.MissingDataError, match="--model module:factory"):
        tscope.analyze(path, "telescoping")


def test_the_users_own_model_stands_in_for_the_program(run, tmp_path):
    bare = record(tmp_path / "run.zarr", program=False)
    result = tscope.analyze(
        bare.path, "telescoping", model=lambda: models.mlp(3), dtype="float64", save=False
    )
    exact = tscope.analyze(run.path, "telescoping", dtype="float64", save=False)
    assert result.provenance["model"] == "user"
    for name in ("actual", "telescoped", "lazy", "contribution"):
        assert np.abs(result.arrays[name].data - exact.arrays[name].data).max() < 1e-12, name


def test_every_metric_lists_what_it_is_and_needs():
    listed = {metric.name: metric for metric in metrics()}
    assert {"telescoping", "effective-params", "kernel", "updates"} <= set(listed)
    assert all(metric.summary.endswith(".") and metric.needs for metric in listed.values())
    assert listed["telescoping"].needs == (
        "recorded projections of a probe set, or the model as data (program) and the parameters at every row "
        "and a probe set"
    )


def test_a_metric_says_what_a_trace_lacks(run, tmp_path):
    metric = next(found for found in metrics() if found.name == "telescoping")
    assert metric.missing(tscope.open(run.path)) == ()
    empty = tscope.open(record(tmp_path / "run.zarr", probes={}).path)
    assert [need.name for need in metric.missing(empty)] == ["a probe set"]
