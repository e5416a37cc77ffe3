"""Small float64 runs for the tests of layers, with torch's own optimizer watched while it steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim

import tscope
from tests.optimizers.recorded import data, epochs, train
from tests.reference.updates import Observer, Seen
from tscope.trace import Trace


@dataclass
class Run:
    trace: Trace
    module: nn.Module
    held: Path
    points: Tensor
    targets: Tensor
    observer: Observer

    @property
    def thetas(self) -> list[dict[str, Tensor]]:
        """θ at every row, as the observer saw it."""
        return [self.observer.steps[0].theta, *(seen.after for seen in self.observer.steps)]

    @property
    def steps(self) -> list[Seen]:
        return self.observer.steps

    def analysed(self, **options: Any) -> tscope.Result:
        options = {"probe": str(self.held), **options}
        return tscope.analyze(self.trace, "layers", save=False, **options)


def deep(activation: nn.Module | None = None) -> nn.Module:
    """Three linear layers: the first two follow each other directly, or with an activation in between."""
    torch.manual_seed(1)
    between = [] if activation is None else [activation]
    return nn.Sequential(nn.Linear(4, 6), *between, nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()


def make_run(folder: Path, optimizer: Any = None, module: nn.Module | None = None, **settings: Any) -> Run:
    """Train on 10 examples in batches of 4, 4 and 2 with mse_loss, three epochs."""
    module = deep() if module is None else module
    made = (optimizer or (lambda p: optim.SGD(p, lr=0.05, weight_decay=0.1)))(module.parameters())
    observer = Observer(module, made)
    x, y = data(3)
    batches = epochs(x, y, size=4, count=3)
    trace = train(folder / "run.zarr", module, made, batches, nn.functional.mse_loss, **settings)
    random = torch.Generator().manual_seed(9)
    points, targets = (torch.randn(5, size, generator=random, dtype=torch.float64) for size in (4, 3))
    np.savez(folder / "held.npz", x=points.numpy(), y=targets.numpy())
    return Run(trace, module, folder / "held.npz", points, targets, observer)
