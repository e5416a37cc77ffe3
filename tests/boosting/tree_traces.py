"""Small ensembles made by hand, as frames and as traces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tscope_format.writer import TraceWriter

import tscope
from tscope.record.frames import Blob, Frame
from tscope.record.probe_source import ProbeArrays
from tscope.record.trees import Trees

TREES, TRAIN, HELD, RATE, PENALTY = 6, 30, 12, 0.3, 0.5


def data(outputs: int = 1) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return training inputs, labels (example, output) and held-out inputs, with gaps."""
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(TRAIN + HELD, 3))
    inputs[rng.uniform(size=inputs.shape) < 0.1] = np.nan
    return inputs[:TRAIN], 5 + rng.normal(size=(TRAIN, outputs)), inputs[TRAIN:]


def walk(row: NDArray[Any], tree: Mapping[str, list[float]]) -> int:
    """Return the node that a row ends in."""
    node = 0
    while tree["left"][node] >= 0:
        x = row[int(tree["feature"][node])]
        left = bool(tree["missing_left"][node]) if np.isnan(x) else x <= tree["threshold"][node]
        node = int(tree["left" if left else "right"][node])
    return node


def tree(number: int) -> dict[str, list[float]]:
    """Return a tree of three leaves."""
    rng = np.random.default_rng(number)
    first, second = rng.normal(size=2) * 0.5
    return {
        "feature": [number % 3, -1, (number + 1) % 3, -1, -1],
        "threshold": [first, 0.0, second, 0.0, 0.0],
        "left": [1, -1, 3, -1, -1],
        "right": [2, -1, 4, -1, -1],
        "missing_left": [number % 2, 0, 1, 0, 0],
    }


def frame(rule: str = "boosting", outputs: int = 1, **changes: Any) -> Frame:
    """Return the frame of an ensemble, whose leaves' values are found one example at a time.

    Args:
        rule: "boosting" or "forest".
        outputs: The number of outputs.
        **changes: Fields of the frame, or arrays (None leaves one out).
    """
    inputs, target, _ = data(outputs)
    rng = np.random.default_rng(2)
    weight, sample = rng.uniform(0.5, 2, TRAIN), rng.integers(0, 3, (TREES, TRAIN)).astype(np.uint16)
    boosting = rule == "boosting"
    penalty = PENALTY if boosting else 0.0
    base = (weight @ target / weight.sum()) if boosting else np.zeros(outputs)
    predictions = np.tile(base, (TRAIN, 1))
    trees = [tree(number) for number in range(TREES)]
    leaf, values = np.zeros((TREES, TRAIN), np.int32), []
    for number, nodes in enumerate(trees):
        leaf[number] = [walk(row, nodes) for row in inputs]
        own = weight * sample[number]
        value = np.zeros((5, outputs))
        for node in set(leaf[number].tolist()):
            inside = leaf[number] == node
            left_over = target - predictions if boosting else target
            total = own[inside].sum() + penalty
            value[node] = (own[inside] @ left_over[inside]) / total if total else 0.0
        value *= RATE if boosting else 1.0
        predictions = predictions + value[leaf[number]]
        values.append(value)
    dtypes = {"feature": "int32", "left": "int32", "right": "int32", "missing_left": "uint8"}
    arrays: dict[str, Any] = {
        "input": inputs,
        "target": target,
        "weight": weight,
        "sample": sample,
        "leaf": leaf,
        "start": np.arange(TREES + 1) * 5,
        "node/value": np.concatenate(values),
        **{
            f"node/{name}": np.concatenate([nodes[name] for nodes in trees]).astype(
                dtypes.get(name, "float64")
            )
            for name in trees[0]
        },
    }
    fields: dict[str, Any] = {
        "number": 0,
        "pid": 1,
        "class": "Stumps",
        "library": "by hand",
        "version": "1",
        "rule": rule,
        "shrinkage": RATE if boosting else 1.0,
        "penalty": penalty,
        "base": "mean" if boosting else "constant",
        "base_value": base.tolist(),
        "precision": "float64",
        "settings": {"depth": 2},
        "began": 10.0,
        "ended": 12.0,
        "hook_ns": 0,
        "wait_ns": 0,
    }
    for name, value in changes.items():
        key = name.replace("__", "/")
        if key in arrays and value is None:
            del arrays[key]
        elif key in arrays:
            arrays[key] = value
        else:
            fields[name] = value
    blobs = {name: Blob(array, str(array.dtype)) for name, array in arrays.items()}
    return Frame("trees", fields, blobs)


def recorded(path: Path, made: Frame | None = None, *, probe: bool = True) -> tscope.Trace:
    """Return a trace with one ensemble, and its held-out rows."""
    writer = TraceWriter.create(path, facts={"command": ["python", "fit.py"], "created": 1.0})
    held = data()[2]
    rows = ProbeArrays("probe", (Blob(held, "float64"),), None, {"kind": "file", "in_sample": False})
    Trees("model", made or frame(), writer, rows if probe else None, lambda text: None)
    writer.close("complete")
    return tscope.open(path)
