"""Small float64 runs for the tests of updates, with torch's own optimizer watched while it steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim

import tscope
from tests.analyses.effective_runs import OPTIMIZERS as KNOWN
from tests.optimizers.recorded import data, epochs, mlp, train
from tests.reference.telescoping import apply, jacobian, outputs
from tests.reference.updates import TERMS, Observer, influences, terms
from tscope.optimizers import training_functional, training_steps
from tscope.trace import Trace

OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    **KNOWN,
    "adam maximize": lambda p: optim.Adam(p, lr=0.003, weight_decay=0.1, maximize=True),
    "nadam decoupled": lambda p: optim.NAdam(p, lr=0.01, weight_decay=0.2, decoupled_weight_decay=True),
    "radam decoupled": lambda p: optim.RAdam(p, lr=0.01, weight_decay=0.2, decoupled_weight_decay=True),
    "adagrad decay": lambda p: optim.Adagrad(
        p, lr=0.05, lr_decay=0.1, weight_decay=0.02, initial_accumulator_value=0.3
    ),
}


LEARNED = slice(0, 4)  # the terms that gradients made


def close(found: np.ndarray, expected: np.ndarray, scale: float | None = None) -> bool:
    """Whether two arrays agree to 1e-12 of the second's largest value, or of `scale`."""
    whole = float(np.abs(expected).max()) if scale is None else scale
    return found.shape == expected.shape and bool(np.abs(found - expected).max() <= 1e-12 * whole)


@dataclass
class Run:
    trace: Trace
    module: nn.Module
    held: Path
    points: Tensor
    observer: Observer

    def analysed(self, **options: Any) -> tscope.Result:
        options = {"probe": str(self.held), "full": True, **options}
        return tscope.analyze(self.trace, "updates", save=False, **options)

    def jacobians(self) -> list[dict[str, Tensor]]:
        """J of the points before each step, dense (point, output, parameter)."""
        steps = self.observer.steps
        return [jacobian(self.module, seen.theta, {}, (self.points,)) for seen in steps]

    def projected(self, J: list[dict[str, Tensor]]) -> np.ndarray:
        """The terms on the points (step, term, layer, point, output), layers being the modules."""
        found = []
        for parts, at in zip(terms(self.observer.kind, self.observer.steps), J, strict=True):
            row = []
            for term in TERMS:
                layers: dict[str, Tensor] = {}
                zero = {name: torch.zeros(value.shape[2]).double() for name, value in at.items()}
                for name, value in apply(at, {**zero, **parts[term]}).items():
                    layer = name.rpartition(".")[0]
                    layers[layer] = layers[layer] + value if layer in layers else value
                row.append(torch.stack(list(layers.values())))
            found.append(torch.stack(row))
        return torch.stack(found).numpy()

    def first_order(self, J: list[dict[str, Tensor]]) -> np.ndarray:
        """J·Δθ of the recorded parameters (step, point, output)."""
        theta = [self.trace.theta(step) for step in range(self.trace.rows)]
        change = [{n: b[n] - a[n] for n in a} for a, b in itertools.pairwise(theta)]
        return np.stack([sum(apply(*pair).values()).numpy() for pair in zip(J, change, strict=True)])

    def predictions(self) -> np.ndarray:
        """f of the points after each step, and before the first (step, point, output)."""
        thetas = [self.trace.theta(step) for step in range(self.trace.rows)]
        return np.stack([outputs(self.module, t, {}, (self.points,)).detach().numpy() for t in thetas])

    def influences(self, J: list[dict[str, Tensor]], first: int = 0) -> tuple[np.ndarray, np.ndarray]:
        program = self.trace.program()
        functional = training_functional(self.trace, program)
        stop = len(J) + 1
        walked = training_steps(self.trace, program, functional, dtype=torch.float64, stop_row=stop)
        gradients = []
        for step in walked:
            at = jacobian(self.module, step.theta, {}, step.inputs)
            own: dict[int, dict[str, Tensor]] = {}
            for slot, example in enumerate(step.examples.tolist()):
                mine = own.setdefault(example, {})
                for name, rows in at.items():
                    part = (rows[slot].T @ step.output_grad[slot]).view(step.theta[name].shape)
                    mine[name] = mine[name] + part if name in mine else part
            gradients.append(own)
        count = len(self.trace["examples/hash"])
        found = influences(self.observer.kind, self.observer.steps, gradients, J, count, first)
        return found[0].numpy(), found[1].numpy()


def make_run(
    folder: Path,
    optimizer: str = "sgd",
    outputs: int = 1,
    *,
    count: int = 2,
    clip: float | None = 0.5,
    micro: int = 1,
    dtype: torch.dtype = torch.float64,
) -> Run:
    """Train a small network on 10 examples in batches of 4, 4 and 2, with a schedule and a clip."""
    module = mlp(outputs, dtype)
    made = OPTIMIZERS[optimizer](module.parameters())
    observer = Observer(module, made)
    trace = train(
        folder / "run.zarr",
        module,
        made,
        epochs(*data(outputs, dtype=dtype), size=4, count=count),
        nn.functional.mse_loss,
        clip=clip,
        scheduler=optim.lr_scheduler.ExponentialLR(made, 0.9),
        micro=micro,
    )
    points = torch.randn(5, 4, generator=torch.Generator().manual_seed(9), dtype=dtype)
    np.savez(folder / "held.npz", x=points.numpy())
    return Run(trace, module, folder / "held.npz", points, observer)
