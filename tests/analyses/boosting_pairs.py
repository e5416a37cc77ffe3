"""A small network and a small ensemble of trees on the same examples, as traces of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn, optim
from tscope_format.writer import TraceWriter

import tscope
from tests.boosting.tree_traces import PENALTY, RATE, TREES, frame, tree, walk
from tests.optimizers.recorded import Recorder
from tscope.record.frames import Blob
from tscope.record.probe_source import ProbeArrays
from tscope.record.trees import Trees

Values = NDArray[np.float64]
TRAIN, HELD, STEPS = 30, 20, 6


@dataclass
class Pair:
    """Both traces, and what they were made of."""

    net: tscope.Trace
    trees: tscope.Trace
    module: nn.Module
    x: Values
    y: Values
    held: Values
    held_y: Values


def problem(outputs: int = 1) -> tuple[Values, Values, Values, Values]:
    """Return training inputs and labels, held-out inputs and labels."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(TRAIN + HELD, 3)) * [2.0, 1.0, 0.5]
    y = np.sin(x @ rng.normal(size=(3, outputs))) + 0.1 * rng.normal(size=(len(x), outputs))
    return x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:]


def network(
    path: Path, x: Values, y: Values, held: dict[str, tuple[Values, Values | None]], adam: bool = False
) -> tuple[tscope.Trace, nn.Module]:
    """Return the trace of a network, and the network; `held` are probe sets by name."""
    torch.manual_seed(0)
    width, outputs = x.shape[1], y.shape[1]
    module = nn.Sequential(nn.Linear(width, 5), nn.Tanh(), nn.Linear(5, outputs)).double()
    optimizer = optim.Adam(module.parameters(), lr=0.01) if adam else optim.SGD(module.parameters(), lr=0.1)
    recorder = Recorder(path, module, optimizer, torch.from_numpy(x))
    for step in range(STEPS):
        rows = slice(15 * (step % 2), 15 * (step % 2) + 15)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(recorder.forward(torch.from_numpy(x[rows])), torch.from_numpy(y[rows]))
        loss.backward()
        recorder.step(loss.item())
    for name, (inputs, labels) in held.items():
        recorder.root.add_probe(name, inputs=[inputs], target=labels, attributes={})
    return recorder.close(), module


def ensemble(
    path: Path,
    x: Values,
    y: Values,
    held: tuple[Values, Values | None] | None,
    rule: str = "boosting",
    also: tuple[str, ...] = (),
    **changes: Any,
) -> tscope.Trace:
    """Return the trace of a boosting or a forest whose leaves' values are found one example at a time.

    Roots named in `also` hold the same ensemble.
    """
    boosting = rule == "boosting"
    rate, penalty, base = (RATE, PENALTY, y.mean(0)) if boosting else (1.0, 0.0, np.zeros(y.shape[1]))
    grown = [tree(number) for number in range(TREES)]
    leaf = np.array([[walk(row, nodes) for row in x] for nodes in grown], np.int32)
    predictions, values = np.tile(base, (len(x), 1)), []
    for own in leaf:
        value = np.zeros((5, y.shape[1]))
        for node in set(own.tolist()):
            inside = own == node
            left_over = y - predictions if boosting else y
            value[node] = rate * left_over[inside].sum(0) / (inside.sum() + penalty)
        predictions = predictions + value[own]
        values.append(value)
    fields = {
        "outputs": y.shape[1],
        "input": x,
        "target": y,
        "weight": None,
        "sample": None,
        "leaf": leaf,
        "node__value": np.concatenate(values),
        "base_value": base.tolist(),
        **changes,
    }
    writer = TraceWriter.create(path, facts={"command": ["python", "fit.py"], "created": 1.0})
    probe = None
    if held is not None:
        inputs, labels = held
        target = None if labels is None else Blob(labels, "float64")
        probe = ProbeArrays("held", (Blob(inputs, "float64"),), target, {"kind": "file", "in_sample": False})
    for name in ("model", *also):
        Trees(name, frame(rule, **fields), writer, probe, lambda text: None)
    writer.close("complete")
    return tscope.open(path)


def make_pair(folder: Path, outputs: int = 1, *, adam: bool = False) -> Pair:
    """Return both, with the held-out examples as the probe set `held` of both."""
    x, y, held, held_y = problem(outputs)
    net, module = network(folder / "net.zarr", x, y, {"held": (held, held_y)}, adam)
    trees = ensemble(folder / "trees.zarr", x, y, (held, held_y))
    return Pair(net, trees, module, x, y, held, held_y)
