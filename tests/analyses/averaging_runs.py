"""Pairs of small float64 runs for the tests of weight averaging, and averages of their modules by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.nn import functional

import tscope
from tests.optimizers.recorded import data, epochs, mlp, train
from tscope.trace import Trace

COMMON = 4  # steps before the runs part
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": functional.mse_loss,
    "cross_entropy": functional.cross_entropy,
    "bce": functional.binary_cross_entropy_with_logits,
}


@dataclass
class Runs:
    """Runs that share their first steps, with the examples that they are measured on.

    Attributes:
        traces: One for each run.
        module: A module of their kind, whose parameters are overwritten.
        sets: Inputs and labels (as the loss takes them) by name: "train" in the order of the trace, "test".
        loss: The loss.
        held: The held-out examples as a file.
    """

    traces: list[Trace]
    module: nn.Module
    sets: dict[str, tuple[Tensor, Tensor]]
    loss: str
    held: Path

    def analysed(self, against: Sequence[int] = (1,), **options) -> tscope.Result:
        others = ",".join(str(self.traces[place].path) for place in against) or None
        options = {"probe": str(self.held), "against": others, **options}
        return tscope.analyze(self.traces[0], "weight-averaging", save=False, **options)

    def state(self, place: int, step: int | None = None) -> dict[str, Tensor]:
        trace = self.traces[place]
        return trace.state_dict(int(trace.steps[-1]) if step is None else step)

    def outputs(self, state: dict[str, Tensor], name: str) -> Tensor:
        """f of a set, from the module loaded with `state`."""
        self.module.load_state_dict(state)
        self.module.eval()
        with torch.no_grad():
            return self.module(self.sets[name][0])

    def value(self, outputs: Tensor, name: str) -> float:
        return float(LOSSES[self.loss](outputs, self.sets[name][1]))

    def accuracy(self, outputs: Tensor, name: str) -> float:
        y = self.sets[name][1]
        if self.loss == "cross_entropy":
            return float((outputs.argmax(1) == y).double().mean())
        if self.loss == "bce":
            return float(((outputs > 0) == (y > 0.5)).double().mean())
        return float((outputs.sign() == y).double().mean())


def mean_state(states: Sequence[dict[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    return {
        name: sum(w * s[name] for s, w in zip(states, weights, strict=True))
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }


def make_runs(
    folder: Path,
    loss: str = "cross_entropy",
    outputs: int = 3,
    *,
    runs: int = 2,
    make: Callable[[], nn.Module] | None = None,
    examples: Callable[[int], tuple[Tensor, Tensor]] | None = None,
    rate: float = 0.5,
    count: int = 6,
) -> Runs:
    """Train `runs` models on 10 examples: the same start and first batches, then other orders of them."""
    create = make or (lambda: mlp(outputs))
    x, y = data(outputs) if examples is None else examples(10)
    held, held_y = data(outputs, count=17) if examples is None else examples(17)
    held, held_y = held[10:], held_y[10:]
    if loss == "cross_entropy" and examples is None:
        y, held_y = y.argmax(1), held_y.argmax(1)
    if loss == "bce":
        y, held_y = (y > 0).double(), (held_y > 0).double()
    if loss == "mse" and examples is None:
        y, held_y = y.sign(), held_y.sign()
    traces = []
    for place in range(runs):
        torch.manual_seed(0)
        module = create()
        batches = epochs(x, y, size=4, count=2)[:COMMON] + epochs(x, y, 4, count, seed=place + 1)
        optimizer = optim.SGD(module.parameters(), lr=rate)
        traces.append(train(folder / f"run{place}.zarr", module, optimizer, batches, LOSSES[loss]))
    order = torch.from_numpy(traces[0]["examples/input/0"])
    found = [int((x == row).flatten(1).all(1).nonzero()[0]) for row in order]
    np.savez(folder / "held.npz", x=held.numpy(), y=held_y.numpy())
    sets = {"train": (order, y[found]), "test": (held, held_y)}
    return Runs(traces, module, sets, loss, folder / "held.npz")
