"""Traces with planted losses and predictions, written without training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tscope_format import Row, TraceWriter, table

import tscope
from tests.analyses.event_curves import sigmoid
from tscope.trace import Trace

ROWS, EXAMPLES, CLASSES = 1200, 200, 4
FIT, ONSET, SPIKE = 60, 600, 300


def outputs(share: NDArray[np.float64], target: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
    """Return outputs (row, example, output) of which such shares are right, the same ones first."""
    rank = np.random.default_rng(seed).permutation(len(target)) / len(target)
    told = np.where(rank < share[:, None], target, (target + 1) % CLASSES)
    return np.eye(CLASSES, dtype=np.float32)[told]


def write(
    path: Path,
    loss: NDArray[np.float64],
    probes: Mapping[str, tuple[NDArray[np.float32], NDArray[np.int64] | None, bool]] | None = None,
) -> Trace:
    """Write a trace with a loss (row,), NaN at row 0, and probe sets: outputs, labels, whether in-sample."""
    writer = TraceWriter.create(path, facts={"command": ["python", "train.py"]})
    root = writer.add_root(
        "model",
        parameters=table([("weight", (1,), "float32", (), True)]),
        buffers=(),
        groups=1,
        theta={"float32": np.zeros(1, np.float32)},
        buffer={},
        time=0.0,
        attributes={"class": "Linear"},
    )
    for step in range(1, len(loss)):
        root.append(
            Row(
                step=step,
                time=float(step),
                loss=float(loss[step]),
                lr=np.array([0.1]),
                theta={"float32": np.full(1, step, np.float32)},
                buffer=None,
                grad_norm=np.ones(1, np.float32),
                skipped=False,
                foreign=False,
                micro=(),
            )
        )
    for name, (values, target, in_sample) in (probes or {}).items():
        inputs = np.zeros((values.shape[1], 1), np.float32)
        followed = root.add_probe(name, inputs=[inputs], target=target, attributes={"in_sample": in_sample})
        for row in range(0, len(values), 3):
            followed.append(row, values[row], np.zeros_like(values[row]), np.zeros_like(values[row]))
    writer.close("complete")
    return tscope.open(path)


def losses(seed: int = 0) -> NDArray[np.float64]:
    """Return a loss with one spike (row,)."""
    noise = np.random.default_rng(seed).normal(size=ROWS + 1)
    found = (0.05 + np.exp(-np.arange(ROWS + 1) / 200)) * np.exp(0.05 * noise)
    found[SPIKE : SPIKE + 4] *= 8
    found[0] = np.nan
    return found


def grokking(path: Path) -> Trace:
    """Write a run that fits its training examples at step 60 or so, and held-out ones at 600."""
    steps = np.arange(ROWS + 1)
    target = np.random.default_rng(1).integers(0, CLASSES, EXAMPLES)
    train = outputs(0.25 + 0.75 * sigmoid(steps, FIT, 0.05), target, 2)
    test = outputs(0.25 + 0.73 * sigmoid(steps, ONSET, 0.05), target, 3)
    return write(path, losses(), {"seen": (train, target, True), "heldout": (test, target, False)})
