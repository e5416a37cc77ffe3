"""Explicit kernels of small recorded runs, for the tests of the metric `kernel`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tests.analyses.effective_runs import Run
from tests.reference import jacobians


def explicit(run: Run, step: int, diagonal: dict[str, Tensor] | None = None) -> dict[str, np.ndarray]:
    """K^(l) of all points (point·output, point·output) at a step, by layer, from explicit Jacobians."""
    run.module.load_state_dict(run.trace.state_dict(step))
    dense = jacobians.jacobian(run.module, [run.points])
    parts: dict[str, np.ndarray] = {}
    for name, rows in dense.items():
        flat = rows.reshape(rows.shape[0] * rows.shape[1], -1)
        columns = flat if diagonal is None else flat * diagonal[name].reshape(-1)
        layer = name.rpartition(".")[0] or name
        parts[layer] = parts.get(layer, 0) + (flat @ columns.T).numpy()
    return parts


def blocks(run: Run, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training × training, held-out × training and held-out × held-out parts of a matrix of all points."""
    q = run.train * run.labels.shape[1]
    return matrix[:q, :q], matrix[q:, :q], matrix[q:, q:]


def labels(run: Run) -> np.ndarray:
    return run.labels.to(torch.float64).numpy()


def held_file(run: Run, targets: np.ndarray | None) -> str:
    """The held-out examples with labels, as a probe file."""
    path = run.held.with_name("labelled.npz")
    x = np.load(run.held)["x"]
    np.savez(path, x=x, **({} if targets is None else {"y": targets}))
    return str(path)
