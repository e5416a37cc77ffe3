"""Neural collapse written out with full matrices: numpy, float64, without tscope."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def collapse(h: Values, classes: NDArray[np.int64], W: Values, centres: Values) -> dict[str, float]:
    """NC1 to NC3, and the class of the nearest of the centres in `nearest`.

    Args:
        h: (example, feature).
        classes: (example,).
        W: (class, feature).
        centres: class means (class, feature), of the training examples.
    """
    C, d = W.shape
    mean = np.stack([h[classes == c].mean(0) for c in range(C)])
    M = (mean - mean.mean(0)).T
    between = M @ M.T / C
    within = np.zeros((d, d))
    for c in range(C):
        apart = h[classes == c] - mean[c]
        within += apart.T @ apart / len(apart) / C
    values, vectors = np.linalg.eigh(between)
    kept = np.argsort(values)[::-1][: C - 1]
    inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    norms = np.linalg.norm(M, axis=0)
    cosines = [M[:, a] @ M[:, b] / norms[a] / norms[b] for a, b in itertools.combinations(range(C), 2)]
    nearest = [int(np.argmin([np.linalg.norm(x - centre) for centre in centres])) for x in h]
    return {
        "nc1": float(np.trace(within @ inverse) / C),
        "within": float(np.trace(within)),
        "between": float(np.trace(between)),
        "nc2_norm": float(norms.std() / norms.mean()),
        "nc2_cosine_sd": float(np.std(cosines)),
        "nc2_angle": float(np.mean(np.abs(np.array(cosines) + 1 / (C - 1)))),
        "nc3": float(np.linalg.norm(W.T / np.linalg.norm(W) - M / np.linalg.norm(M))),
        "accuracy_nearest": float(np.mean(np.array(nearest) == classes)),
        "nearest": nearest,
    }


def simplex(classes: int, features: int, seed: int = 0) -> Values:
    """An equiangular tight frame (class, feature) of unit vectors that add up to zero."""
    basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(features, classes)))
    return np.sqrt(classes / (classes - 1)) * (np.eye(classes) - 1 / classes) @ basis.T
