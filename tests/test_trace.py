"""The trace as a Python object."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

import tscope
from tests import models
from tests.traces import Probe, train
from tscope.program import ad_friendly


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.manual_seed(0)
    module = models.Attention()
    adam = torch.optim.Adam(module.parameters(), 0.01)
    x, y = models.tokens(4)
    path = tmp_path_factory.mktemp("trace") / "run.zarr"
    probes = {"held": Probe((x,), y), "seen": Probe((x,), None, in_sample=True)}
    return train(path, module, adam, models.batches(models.tokens, 5), nn.functional.cross_entropy, probes)


@pytest.fixture(scope="module")
def trace(run):
    return tscope.open(run.path)


@pytest.mark.parametrize("step", [0, 3, 5])
def test_state_dict_equals_the_scripts_own_bit_for_bit(run, trace, step):
    state = trace.state_dict(step)
    assert state.keys() == run.states[step].keys()
    assert "head.weight" in state
    for name, value in run.states[step].items():
        assert torch.equal(state[name], value), name
    fresh = models.Attention()
    fresh.load_state_dict(state)
    x, _ = models.tokens(3)
    run.module.load_state_dict(run.states[step])
    assert torch.equal(fresh.eval()(x), run.module.eval()(x))


def test_buffers_and_batch_norm_are_in_the_state_dict(tmp_path):
    torch.manual_seed(0)
    module = models.Conv()
    sgd = torch.optim.SGD(module.parameters(), 0.1)
    data = models.batches(models.images, 3)
    run = train(tmp_path / "run.zarr", module, sgd, data, nn.functional.cross_entropy)
    state = tscope.open(run.path).state_dict(3)
    assert state.keys() == module.state_dict().keys()
    for name, value in module.state_dict().items():
        assert torch.equal(state[name], value), name
        assert state[name].dtype == value.dtype
        assert state[name].shape == value.shape


def test_steps_arrays_and_probes(trace):
    assert trace.steps.tolist() == [0, 1, 2, 3, 4, 5]
    assert trace["loss"].shape == (6,)
    assert trace["probe/held/output"].shape == (6, 4, 7)
    assert set(trace.probes) == {"held", "seen"}
    assert trace.probes["held"].target is not None
    assert not trace.probes["held"].in_sample
    assert trace.probes["seen"].in_sample
    assert "in-sample" in repr(trace.probes["seen"])


def test_the_program_is_the_module(run, trace):
    x, _ = models.tokens(6)
    run.module.load_state_dict(run.states[2])
    with torch.no_grad(), ad_friendly():
        expected = run.module.eval()(x)
        assert torch.equal(trace.program()(trace.theta(2), trace.buffers(2), (x,)), expected)


def test_an_array_that_does_not_exist_lists_those_there_are(trace):
    with pytest.raises(tscope.UsageError, match=r"has no array 'losses' in root model; it has .*loss, "):
        trace["losses"]


@pytest.mark.parametrize("step", [-1, 6, 100])
def test_a_step_out_of_range_says_the_range(trace, step):
    with pytest.raises(tscope.UsageError, match=rf"step {step} is not in the trace; it holds steps 0 to 5"):
        trace.theta(step)


def test_a_step_between_rows_names_its_neighbours(tmp_path, run):
    from tests.traces import Run, write

    path = tmp_path / "coarse.zarr"
    x, _ = models.tokens(2)
    write(Run(path, run.module, run.states[::2]), (x,), {}, steps=[0, 10, 20])
    with pytest.raises(tscope.UsageError, match="nearest recorded steps are 10 and 20"):
        tscope.open(path).theta(13)


def test_an_unknown_root_lists_those_there_are(trace):
    with pytest.raises(tscope.UsageError, match="has no root 'critic'; it has model"):
        trace.root("critic")
    assert trace.root("model").name == "model"


def test_something_else_is_not_a_trace(tmp_path):
    with pytest.raises(tscope.TraceError) as error:
        tscope.open(tmp_path)
    assert error.value.exit_code == 3


def test_a_trace_in_which_nothing_trained_says_so(tmp_path):
    from tscope_format import TraceWriter

    TraceWriter.create(tmp_path / "empty.zarr", facts={}).close("complete")
    with pytest.raises(tscope.MissingDataError, match="nothing was trained while it was recorded"):
        tscope.open(tmp_path / "empty.zarr")


def test_a_trace_without_program_gives_the_reason(tmp_path):
    torch.manual_seed(0)
    module = models.mlp(1)
    sgd = torch.optim.SGD(module.parameters(), 0.1)
    data = models.batches(models.signs, 1)
    run = train(tmp_path / "run.zarr", module, sgd, data, nn.functional.mse_loss, program=False)
    with pytest.raises(
        tscope.MissingDataError, match=r"\(forward branches on data\); give .*--model module:factory"
    ):
        tscope.open(run.path).program()


def test_to_xarray_has_named_dimensions(trace):
    pytest.importorskip("xarray")
    tree = trace.to_xarray()
    assert tree["model"]["loss"].dims == ("step",)
    assert np.array_equal(tree["model"]["probe"]["held"]["output"], trace["probe/held/output"])
    tree.close()


def test_to_xarray_without_xarray_says_what_to_install(trace, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(tscope.MissingDataError, match=r"pip install 'tscope\[xarray\]'"):
        trace.to_xarray()


def test_the_repr_says_what_is_in_it(trace):
    text = repr(trace)
    assert "(complete): steps 0–5 in 6 rows" in text
    assert "parameters in 7 tensors, probes: held, seen>" in text


def test_a_growing_trace_shows_its_new_rows_after_a_refresh(tmp_path):
    from tscope_format import TraceWriter
    from tscope_format.rows import Row
    from tscope_format.tensors import table

    entries = table([("w", (2,), "float32", (), True)])
    theta = {"float32": np.zeros(2, np.float32)}
    writer = TraceWriter.create(tmp_path / "run.zarr", facts={})
    root = writer.add_root(
        "model", parameters=entries, buffers=(), groups=1, theta=theta, buffer={}, time=0.0, attributes={}
    )
    writer.commit()
    trace = tscope.open(tmp_path / "run.zarr")
    assert trace.status == "recording"
    assert trace.steps.tolist() == [0]
    assert not trace.refresh()
    norms = np.zeros(1, np.float32)
    root.append(Row(1, 0.1, 0.5, np.array([0.1]), theta, None, norms, False, False, ()))
    writer.close("complete")
    assert trace.refresh()
    assert trace.steps.tolist() == [0, 1]
    assert trace.status == "complete"
