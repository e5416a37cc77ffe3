"""Smoothers of tree ensembles, slowly: from scikit-learn's own objects, one example at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def kernel(tree: Any, rows: NDArray[Any], train: NDArray[Any], weights: NDArray[Any]) -> Matrix:
    """K[x, i] = 1{x and i in the same leaf} w_i / Σ of the weights in it, of one fitted scikit-learn tree."""
    at, own = tree.tree_.apply(rows), tree.tree_.apply(train)
    found = np.zeros((len(rows), len(train)))
    for x in range(len(rows)):
        inside = [i for i in range(len(train)) if own[i] == at[x]]
        total = sum(weights[i] for i in inside)
        for i in inside:
            found[x, i] = weights[i] / total if total else 0.0
    return found


def boosting(
    members: Sequence[Any],
    rate: float,
    rows: NDArray[Any],
    train: NDArray[Any],
    weights: Sequence[NDArray[Any]],
    start: NDArray[Any] | None,
) -> list[Matrix]:
    """Return S (row, train) after each tree, of rows whose first are the training rows.

    Args:
        members: The trees.
        rate: The learning rate.
        rows: (row, feature).
        train: (train, feature).
        weights: Of the examples in each tree (train).
        start: The weights of the mean that it starts at; None starts at 0.
    """
    n = len(train)
    S = np.zeros((len(rows), n)) if start is None else np.tile(start / start.sum(), (len(rows), 1))
    found = [S]
    for tree, weight in zip(members, weights, strict=True):
        S = S + rate * kernel(tree, rows, train, weight) @ (np.eye(n) - S[:n])
        found.append(S)
    return found


def forest(
    members: Sequence[Any], rows: NDArray[Any], train: NDArray[Any], weights: Sequence[NDArray[Any]]
) -> list[Matrix]:
    """Return S (row, train) of the forests of the first trees, from none on."""
    kernels = [kernel(tree, rows, train, w) for tree, w in zip(members, weights, strict=True)]
    return [
        np.zeros((len(rows), len(train))),
        *(np.mean(kernels[: k + 1], axis=0) for k in range(len(kernels))),
    ]
