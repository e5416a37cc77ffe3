"""Small float64 runs for the tests of effective parameters, with all that the metric must find in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim

from tests.optimizers.recorded import data, epochs, mlp, train
from tests.reference.effective import LOSSES, Unrolled, unrolled
from tscope.optimizers import TrainingStep, training_functional, training_steps
from tscope.trace import Trace


def head_only(parameters: list[nn.Parameter]) -> optim.Optimizer:
    """Return an optimizer of the second layer; the first is frozen."""
    for parameter in parameters[:2]:
        parameter.requires_grad_(False)
    return optim.SGD(parameters[2:], lr=0.1)


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "sgd decay": lambda p: optim.SGD(p, lr=0.1, weight_decay=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.3, weight_decay=0.02),
    "nesterov": lambda p: optim.SGD(p, lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.02),
    "maximize": lambda p: optim.SGD(p, lr=0.01, momentum=0.5, weight_decay=0.1, maximize=True),
    "adam": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.03),
    "amsgrad": lambda p: optim.Adam(p, lr=0.02, betas=(0.8, 0.9), amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "nadam": lambda p: optim.NAdam(p, lr=0.01, weight_decay=0.02),
    "radam": lambda p: optim.RAdam(p, lr=0.01, weight_decay=0.02),
    "adamax": lambda p: optim.Adamax(p, lr=0.01, weight_decay=0.02),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.005, eps=1e-4),
    "rmsprop centered": lambda p: optim.RMSprop(p, lr=0.005, momentum=0.7, centered=True, weight_decay=0.1),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.05, lr_decay=0.1),
    "two rates": lambda p: optim.SGD([{"params": [next(p), next(p)]}, {"params": p, "lr": 0.2}], lr=0.1),
    "head only": lambda p: head_only(list(p)),
}
KERNEL = ("sgd", "rmsprop", "adagrad", "two rates", "head only")  # no momentum and no decay


@dataclass
class Run:
    trace: Trace
    module: nn.Module
    held: Path
    points: Tensor  # training examples by number, then the held-out ones
    labels: Tensor  # by number; float
    loss: str

    @property
    def train(self) -> int:
        return len(self.labels)

    def steps(self) -> list[TrainingStep]:
        program = self.trace.program().to(torch.float64)
        functional = training_functional(self.trace, program)
        return list(training_steps(self.trace, program, functional, dtype=torch.float64))

    def reference(self, *, frozen: bool = False) -> Unrolled:
        return unrolled(self.module, self.steps(), self.points, self.labels, self.loss, frozen=frozen)


def make_run(
    folder: Path,
    *,
    optimizer: str = "sgd",
    outputs: int = 1,
    loss: str = "mse",
    count: int = 3,
    clip: float | None = 0.5,
    micro: int = 1,
    module: nn.Module | None = None,
) -> Run:
    """Train a small network on 10 examples in batches of 4, 4 and 2, with a schedule and a clip."""
    net = mlp(outputs) if module is None else module
    x, y = data(outputs)
    if loss == "bce":
        y = (y > 0).double()
    if loss == "cross_entropy":
        y = y.argmax(1)
    made = OPTIMIZERS[optimizer](net.parameters())
    batches = epochs(x, y, size=4, count=count)
    trace = train(
        folder / "run.zarr",
        net,
        made,
        batches,
        LOSSES[loss],
        clip=clip,
        scheduler=optim.lr_scheduler.ExponentialLR(made, 0.9),
        micro=micro,
    )
    order = torch.from_numpy(trace["examples/input/0"])
    place = [int((x == row).all(1).nonzero()[0]) for row in order]
    labels = y[place]
    if loss == "cross_entropy":
        labels = nn.functional.one_hot(labels, outputs).double()
    held = torch.randn(5, 4, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    np.savez(folder / "held.npz", x=held.numpy())
    return Run(trace, net, folder / "held.npz", torch.cat([order, held]), labels, loss)
