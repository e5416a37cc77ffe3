"""Every adapter gives the updates of torch's own optimizer, from replayed gradients and its own state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from recorded import data, epochs, mlp, program_of, train
from torch import nn, optim

from tscope.optimizers import TrainingStep, training_functional, training_steps

Make = Callable[[Iterable[Any]], optim.Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, weight_decay=0.01),
    "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.3, weight_decay=0.02),
    "nesterov": lambda p: optim.SGD(p, lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.02),
    "sgd maximize": lambda p: optim.SGD(p, lr=0.01, momentum=0.5, weight_decay=0.1, maximize=True),
    "adam": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.03),
    "adam foreach": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.03, foreach=True),
    "amsgrad": lambda p: optim.Adam(p, lr=0.02, betas=(0.8, 0.9), amsgrad=True),
    "adam maximize": lambda p: optim.Adam(p, lr=0.003, weight_decay=0.1, maximize=True),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "adam decoupled": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.1, decoupled_weight_decay=True),
    "nadam": lambda p: optim.NAdam(p, lr=0.01, weight_decay=0.02),
    "nadam decoupled": lambda p: optim.NAdam(p, lr=0.01, weight_decay=0.2, decoupled_weight_decay=True),
    "radam": lambda p: optim.RAdam(p, lr=0.01, weight_decay=0.02),
    "radam decoupled": lambda p: optim.RAdam(p, lr=0.01, weight_decay=0.2, decoupled_weight_decay=True),
    "adamax": lambda p: optim.Adamax(p, lr=0.01, weight_decay=0.02),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.005, weight_decay=0.02),
    "rmsprop centered": lambda p: optim.RMSprop(p, lr=0.005, alpha=0.8, centered=True),
    "rmsprop momentum": lambda p: optim.RMSprop(p, lr=0.005, momentum=0.7, centered=True),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.05, lr_decay=0.1, weight_decay=0.02),
    "adagrad start": lambda p: optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.3),
}


def steps_of(trace, **rows) -> list[TrainingStep]:
    program = program_of(trace)
    functional = training_functional(trace, program)
    return list(training_steps(trace, program, functional, dtype=torch.float64, **rows))


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_adapter_gives_the_recorded_update(tmp_path, name, outputs):
    module = mlp(outputs)
    optimizer = OPTIMIZERS[name](module.parameters())
    scheduler = optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    batches = epochs(*data(outputs), size=4, count=6)  # of 4, 4 and 2
    trace = train(
        tmp_path / "run.zarr",
        module,
        optimizer,
        batches,
        nn.functional.mse_loss,
        clip=0.5,
        scheduler=scheduler,
    )
    steps = steps_of(trace)
    assert [step.step for step in steps] == list(range(1, 19))
    assert max(step.residual.relative for step in steps) < 1e-12
    assert {len(step.examples) for step in steps} == {2, 4}
    # The clip was at work in some steps, and not in others.
    factors = {abs(next(iter(step.update.rho.values()))) for step in steps}
    assert min(factors) < 0.9
    stateful = name not in ("sgd",)
    anchors = [step.residual.state for step in steps if step.row in (8, 16)]
    assert all(bool(state) == stateful for state in anchors)
    assert all(off < 1e-12 for state in anchors for off in state.values())
    assert not any(step.residual.state for step in steps if step.row not in (8, 16))
