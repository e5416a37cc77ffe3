"""The smoother of an ensemble, tree by tree, applied to any columns of labels.

    V_t[x, i] = 1{x and i in the same leaf} w_i / (Σ_{j in it} w_j + λ)
    boosting:  F_t = F_{t−1} + γ V_t (W − F_{t−1}[train])
    forest:    F_t = F_{t−1} + (V_t W − F_{t−1}) / t

F = S W. With W the labels it is the prediction, with W = I the smoother itself (math.md §5). The trees and
the subsamples are taken as they are: their own dependence on the labels is ignored, as in [Curth23].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.boosting.ensemble import Ensemble


class Averages:
    """The weighted means within the leaves of one tree.

    Args:
        leaf: The leaf of each training example (train).
        weights: (train).
        penalty: λ.
    """

    def __init__(self, leaf: NDArray[np.int32], weights: NDArray[np.float64], penalty: float) -> None:
        self._order = np.argsort(leaf, kind="stable")
        ordered = leaf[self._order]
        self._starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        self._leaves = ordered[self._starts]
        sums = np.add.reduceat(weights[self._order], self._starts) + penalty
        share = np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0)
        groups = np.diff(np.r_[self._starts, len(ordered)])
        self._shares = weights[self._order] * np.repeat(share, groups)

    def of(self, columns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the means (leaf, column) of columns (train, column)."""
        return np.add.reduceat(columns[self._order] * self._shares[:, None], self._starts, axis=0)

    def places(self, leaf: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Return the row of `of` for each point's leaf (point), and whether any training example is there."""
        found = np.searchsorted(self._leaves, leaf).clip(max=len(self._leaves) - 1)
        return found, self._leaves[found] == leaf


def follow(
    ensemble: Ensemble,
    leaf: NDArray[np.int32],
    columns: NDArray[np.float64],
    *,
    constant: bool,
    tree: int | None = None,
) -> Iterator[NDArray[np.float64]]:
    """Yield F (point, column) before the first tree and after each one; the same memory every time.

    Cost: (points + 2 train)·columns multiplications and as many loads a tree.

    Args:
        ensemble: The ensemble.
        leaf: The leaf of each point (tree, point), the training examples first.
        columns: W (train, column).
        constant: Begin at the base's constant, if it is one: True for labels, False for their directions.
        tree: Take this tree's leaves and weights at every step, as the lazy model does.
    """
    n, points = ensemble.examples, leaf.shape[1]
    start = np.zeros(columns.shape[1])
    if ensemble.base == "mean":
        weights = ensemble.weights()
        start = weights @ columns / weights.sum()
    elif constant:
        start = np.broadcast_to(ensemble.base_value, start.shape)
    F = np.repeat(start[None].astype(np.float64), points, axis=0)
    yield F
    for step in range(ensemble.trees):
        member = step if tree is None else tree
        averages = Averages(ensemble.leaf[member], ensemble.weights(member), ensemble.penalty)
        rows, known = averages.places(leaf[member])
        boosting = ensemble.rule == "boosting"
        means = averages.of(columns - F[:n] if boosting else columns)
        change = means[rows]
        change[~known] = 0.0
        if boosting:
            F += ensemble.shrinkage * change
        else:
            F += (change - F) / (step + 1)
        yield F


def outputs(ensemble: Ensemble, leaf: NDArray[np.int32]) -> Iterator[NDArray[np.float64]]:
    """Yield the library's own predictions (point, output) before the first tree and after each one.

    From the values that it keeps in the leaves: independent of the smoother.

    Args:
        ensemble: The ensemble.
        leaf: The leaf of each point (tree, point).
    """
    total = np.repeat(ensemble.base_value[None], leaf.shape[1], axis=0)
    yield total
    for tree in range(ensemble.trees):
        total = total + ensemble.nodes.values(tree, leaf[tree])
        yield total / (tree + 1) if ensemble.rule == "forest" else total
