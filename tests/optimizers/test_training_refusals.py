"""Runs whose steps cannot be followed: precision, shapes, and what was not recorded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from recorded import Recorder, data, epochs, mlp, train
from torch import nn, optim
from walks import mse, one_step, refusal, simple, started


def test_half_precision_parameters_are_refused(tmp_path):
    x, y = data(1, dtype=torch.float16)
    module = mlp(1, torch.float16)
    optimizer = optim.SGD(module.parameters(), lr=0.01)
    trace = train(tmp_path / "run.zarr", module, optimizer, epochs(x, y, 4, 1), mse)
    message = refusal(trace)
    assert message.startswith("the parameter 0.weight is float16, whose rounding is as large as most steps")
    assert "keep parameters in float32" in message


def test_a_complex_parameter_is_refused_by_name(tmp_path, monkeypatch):
    trace = simple(tmp_path, 1)
    entries = [replace(entry, dtype="complex128") for entry in trace.reader.parameters]
    monkeypatch.setattr(trace.reader, "parameters", entries)
    assert refusal(trace) == "the parameter 0.weight is complex128; only real parameters can be followed"


class Mean(nn.Module):
    """A model of sequences of any length."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 1).double()

    def forward(self, x):
        return self.head(x).mean(1)


def test_micro_batches_of_different_lengths_are_refused(tmp_path):
    x, y = data(1)
    module = Mean()
    sequences = torch.stack([x] * 5, 1)
    recorder = Recorder(tmp_path / "run.zarr", module, optim.SGD(module.parameters(), lr=0.1), sequences)
    for length in (5, 3):
        mse(recorder.forward(sequences[:4, :length] + length), y[:4]).backward()
    recorder.step()
    message = refusal(recorder.close())
    assert "examples of the shapes [(3, 4), (5, 4)] were trained on in one step" in message
    assert "micro-batches of different lengths cannot be replayed together" in message


def test_steps_without_a_learning_rate_or_norms_are_refused(tmp_path):
    for name, values, expected in (
        ("lr", np.array([np.nan]), "step 2: no learning rate was recorded for 0.weight"),
        (
            "grad_norm",
            np.full(4, np.nan),
            "step 2: no gradient norms were recorded, so clipping cannot be told",
        ),
    ):
        recorder = started(tmp_path / name)
        one_step(recorder)
        one_step(recorder, **{name: values})
        assert refusal(recorder.close()).startswith(expected)


class Half(nn.Module):
    """As under autocast: it computes in half precision, and its graph does not."""

    def __init__(self):
        super().__init__()
        self.body = mlp(1, torch.float32)

    def forward(self, x):
        return self.body(x).bfloat16().float() if self.training else self.body(x)


def test_outputs_of_autocast_are_refused_by_their_precision(tmp_path):
    x, y = data(1, dtype=torch.float32)
    module = Half()
    recorder = Recorder(tmp_path / "run.zarr", module, optim.SGD(module.parameters(), lr=0.1), x)
    mse(recorder.forward(x), y).backward()
    recorder.step()
    message = refusal(recorder.close())
    assert "they are bfloat16 numbers: train without autocast" in message
