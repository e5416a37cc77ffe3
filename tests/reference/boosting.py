"""What the metric `boosting` shows, by its definitions, one example at a time; without tscope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def first_component(train: Values, test: Values) -> Values:
    """|v·(x − μ)| for the direction v of most variance, by power iteration on the covariance."""
    mean = sum(train) / len(train)
    covariance = sum(np.outer(x - mean, x - mean) for x in train)
    v = np.ones(train.shape[1])
    for _ in range(2000):
        v = covariance @ v
        v /= np.sqrt((v**2).sum())
    return np.array([abs(float(v @ (x - mean))) for x in test])


def mahalanobis(train: Values, test: Values, rtol: float) -> Values:
    """√((x − μ)ᵀ Σ⁺ (x − μ)) with numpy's pseudo-inverse."""
    mean = sum(train) / len(train)
    covariance = sum(np.outer(x - mean, x - mean) for x in train) / (len(train) - 1)
    inverse = np.linalg.pinv(covariance, rcond=rtol, hermitian=True)
    return np.array([np.sqrt((x - mean) @ inverse @ (x - mean)) for x in test])


def tree_norm(leaf: Any, own: Sequence[Any], weights: Sequence[float], penalty: float) -> float:
    """‖k(x, ·)‖ for x in `leaf`, of the training examples with the leaves `own`."""
    inside = [w for w, other in zip(weights, own, strict=True) if other == leaf]
    total = sum(inside) + penalty
    return float(np.sqrt(sum((w / total) ** 2 for w in inside))) if sum(inside) > 0 else 0.0


def normalized_maximum(test: Sequence[Values], train: Sequence[Values], members: Sequence[int]) -> float:
    """Mean over steps of the largest of the members, over that of the largest training example."""
    top = [max(row[j] for j in members) for row in test]
    return float(sum(top) / len(top) / (sum(max(row) for row in train) / len(train)))


def network_norms(jacobians: Mapping[str, Any], train: int) -> Values:
    """‖k(x, ·)‖ of all points, from explicit Jacobians (point, output, *parameter), training ones first."""
    flat = np.concatenate([j.reshape(j.shape[0], j.shape[1], -1).numpy() for j in jacobians.values()], axis=2)
    return np.array(
        [np.sqrt(sum(float(((own @ other.T) ** 2).sum()) for other in flat[:train])) for own in flat]
    )
