"""Decision trees as data: which leaf a row falls into, and what the leaf says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tscope_format.errors import TraceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEAF = -1


@dataclass(frozen=True, eq=False)
class Nodes:
    """The nodes of all trees of an ensemble, one tree after the other.

    A row goes to the left child where `x[feature] <= threshold`, or where that value is NaN and the node says
    so. Children are counted from the first node of their tree.

    Attributes:
        start: The first node of each tree, and one more (tree + 1).
        feature: (node), −1 at a leaf.
        threshold: (node).
        left: (node), −1 at a leaf.
        right: (node), −1 at a leaf.
        missing_left: (node).
        value: What a tree adds to a prediction (node, output); in a forest, the tree's own prediction.
    """

    start: NDArray[np.int64]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    missing_left: NDArray[np.uint8]
    value: NDArray[np.float64]

    @property
    def trees(self) -> int:
        """The number of trees."""
        return len(self.start) - 1

    def values(self, tree: int, leaf: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return the values (example, output) of leaves (example) of one tree."""
        found: NDArray[np.float64] = self.value[self.start[tree] + leaf]
        return found

    def leaves(self, inputs: NDArray[Any]) -> NDArray[np.int32]:
        """Return the leaf (tree, example) that each row (example, feature) falls into.

        Costs a pass over the rows for each level of each tree.

        Raises:
            TraceError: The nodes form no trees over these features.
        """
        return np.stack([self._leaf(tree, inputs) for tree in range(self.trees)])

    def _leaf(self, tree: int, inputs: NDArray[Any]) -> NDArray[np.int32]:
        span = slice(int(self.start[tree]), int(self.start[tree + 1]))
        feature, threshold = self.feature[span], self.threshold[span]
        left, right, missing = self.left[span], self.right[span], self.missing_left[span] != 0
        inner = left != _LEAF
        inside = (feature[inner] >= 0) & (feature[inner] < inputs.shape[1])
        # A child comes after its parent in all three libraries, so that a walk always ends.
        count = len(left)
        below = [(child[inner] > np.flatnonzero(inner)) & (child[inner] < count) for child in (left, right)]
        if not (inside.all() and below[0].all() and below[1].all()):
            raise TraceError(f"the nodes of tree {tree} form no tree over {inputs.shape[1]} features")
        at = np.zeros(len(inputs), np.int32)
        moving = np.flatnonzero(inner[at])
        while moving.size:
            node = at[moving]
            x = inputs[moving, feature[node]]
            go_left = np.where(np.isnan(x), missing[node], x <= threshold[node])
            at[moving] = np.where(go_left, left[node], right[node])
            moving = moving[inner[at[moving]]]
        return at
