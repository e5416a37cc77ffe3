"""Singular values of weight matrices, and the ranks that are made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tscope_format.tensors import Tensor as Entry

    Values = NDArray[np.floating[Any]]


def matrices(parameters: Sequence[Entry]) -> tuple[Entry, ...]:
    """Return the parameters that are matrices: a convolution's kernel is (out, in·kernel)."""
    return tuple(entry for entry in parameters if len(entry.shape) > 1 and min(entry.shape) > 0)


def arithmetic(parameters: Sequence[Entry]) -> float:
    """Return the flops of all their singular values, as a product of matrices would take as long for.

    4·m·n·min(m, n), at half the rate of a product (measured in float64: 16 to 36 Gflop/s, against 45).
    """
    shapes = [(entry.shape[0], math.prod(entry.shape[1:])) for entry in parameters]
    return sum(2 * 4.0 * m * n * min(m, n) for m, n in shapes)


def singular_values(weight: Tensor) -> Tensor:
    """Return σ of a parameter (out, …), flattened to a matrix, decreasing, in float64.

    Some 4·m·n·min(m, n) flops.
    """
    found: Tensor = torch.linalg.svdvals(weight.double().reshape(len(weight), -1))
    return found


def effective_rank(sigma: Tensor) -> float:
    """Return exp(−Σ p log p), p = σ/Σσ [Roy07]; NaN of a matrix that is zero."""
    total = float(sigma.sum())
    if not total > 0:
        return float("nan")
    p = sigma / total
    return float(torch.exp(torch.special.entr(p).sum()))


def stable_rank(sigma: Tensor) -> float:
    """Return ‖W‖_F²/‖W‖₂²; NaN of a matrix that is zero."""
    largest = float(sigma.max())
    return float((sigma / largest).square().sum()) if largest > 0 else float("nan")


def padded(rows: Sequence[Tensor], count: int) -> Values:
    """Return the `count` largest of each (matrix, value), NaN where a matrix has fewer."""
    found = np.full((len(rows), count), np.nan)
    for place, sigma in enumerate(rows):
        kept = sigma[:count].numpy()
        found[place, : len(kept)] = kept
    return found
