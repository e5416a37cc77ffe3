"""Small runs of ten examples, and walks over their steps."""

from __future__ import annotations

import pytest
import torch
from recorded import Recorder, data, mlp, program_of
from torch import nn, optim

import tscope
from tscope.optimizers import TrainingSteps, training_functional, training_steps

mse = nn.functional.mse_loss


def walk(trace, dtype=torch.float64, **rows) -> TrainingSteps:
    program = program_of(trace, dtype)
    return training_steps(trace, program, training_functional(trace, program), dtype=dtype, **rows)


def started(path, make=lambda p: optim.SGD(p, lr=0.1), module=None, **options) -> Recorder:
    module = mlp(1) if module is None else module
    return Recorder(path / "run.zarr", module, make(module.parameters()), data(1)[0], **options)


def one_step(recorder: Recorder, count: int = 4, **row: object) -> None:
    x, y = data(1)
    recorder.module.zero_grad()
    mse(recorder.forward(x[:count]), y[:count]).backward()
    recorder.step(**row)


def simple(path, steps=6, make=lambda p: optim.Adam(p, lr=0.01), **options) -> tscope.Trace:
    recorder = started(path, make, **options)
    for _ in range(steps):
        one_step(recorder)
    return recorder.close()


def refusal(trace, error=tscope.AnalysisError, **rows) -> str:
    with pytest.raises(error) as caught:
        list(walk(trace, **rows))
    return str(caught.value)
