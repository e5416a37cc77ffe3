"""A probe set under the recorded model: dtype, functional and what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import tscope
from tests import models
from tests.traces import Probe, train
from tscope.probes import ProbeSet
from tscope.replay import probing, replay_dtype


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    torch.manual_seed(0)
    module = models.mlp(3)
    x, y = models.classes(6)
    sgd = torch.optim.SGD(module.parameters(), 0.05)
    path = tmp_path_factory.mktemp("probing") / "run.zarr"
    run = train(path, module, sgd, [(x, y)] * 2, nn.functional.cross_entropy, {"held": Probe((x,), y)})
    return tscope.open(run.path)


def test_replay_is_in_float32_unless_asked_or_trained_in_float64(trace):
    assert replay_dtype(trace, None) == torch.float32
    assert replay_dtype(trace, "float64") == torch.float64


def test_everything_is_in_the_asked_dtype(trace):
    evaluation, shape, note = probing(trace, trace.probes["held"], dtype=torch.float64)
    assert evaluation.inputs[0].dtype == torch.float64
    assert shape == (6, 3)
    assert note == ""


def test_the_recorded_functional_is_followed_again(trace):
    held = trace.probes["held"]
    chosen = ProbeSet("other", held.inputs, held.target, {"functional": "index", "index": [2, 0]})
    evaluation, _, _ = probing(trace, chosen, dtype=torch.float32)
    assert evaluation.functional.index == (2, 0)


def test_a_replay_of_other_outputs_than_were_recorded_is_refused(trace, monkeypatch):
    held = trace.probes["held"]
    monkeypatch.setitem(held.attributes, "functional", "loss")
    with pytest.raises(
        tscope.AnalysisError, match=r"followed 3 output\(s\) of probe set held, but loss gives 1;"
    ):
        probing(trace, held, dtype=torch.float32)


def test_inputs_that_the_model_does_not_take_are_refused(trace):
    wrong = ProbeSet("wrong", (np.zeros((2, 7), np.float32),))
    with pytest.raises(tscope.UsageError, match=r"has the shape \(2, 7\), the model takes \(rows, 4\)"):
        probing(trace, wrong, dtype=torch.float32)
