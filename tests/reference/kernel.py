"""Numbers of a tangent kernel by their textbook definitions, with dense float64 matrices; without tscope."""

from __future__ import annotations

import numpy as np


def alignment(K: np.ndarray, y: np.ndarray) -> float:
    """⟨K, yyᵀ⟩ / (‖K‖‖yyᵀ‖) for y (example, output)."""
    Y = np.outer(y, y)
    return float((K * Y).sum() / (np.linalg.norm(K) * np.linalg.norm(Y)))


def alignment_centered(K: np.ndarray, y: np.ndarray) -> float:
    """The same of HKH and HyyᵀH, with H = (I − 11ᵀ/n) ⊗ I_C written out."""
    n, c = y.shape
    H = np.kron(np.eye(n) - np.ones((n, n)) / n, np.eye(c))
    K, Y = H @ K @ H, H @ np.outer(y, y) @ H
    return float((K * Y).sum() / (np.linalg.norm(K) * np.linalg.norm(Y)))


def eigenvalues(K: np.ndarray) -> np.ndarray:
    """All of them, decreasing; from a solver for any matrix."""
    return np.sort(np.linalg.eigvals(K).real)[::-1]


def effective_rank(K: np.ndarray) -> float:
    """exp of the entropy of the normalised eigenvalues."""
    p = eigenvalues(K)
    p = p[p > 1e-14 * p[0]] / p.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def distance(K: np.ndarray, other: np.ndarray) -> float:
    """1 − cos(K, K')."""
    return 1 - float((K * other).sum() / (np.linalg.norm(K) * np.linalg.norm(other)))


def series(K: np.ndarray, first: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Every number of one matrix (example·output, example·output), K_0 = `first`."""
    return {
        "trace": float(np.trace(K)),
        "frobenius": float(np.linalg.norm(K)),
        "effective_rank": effective_rank(K),
        "participation_ratio": float(np.trace(K) ** 2 / (K**2).sum()),
        "alignment": alignment(K, y),
        "alignment_centered": alignment_centered(K, y),
        "distance": distance(K, first),
        "movement": float(np.linalg.norm(K - first) / np.linalg.norm(first)),
    }


def shares(
    parts: list[np.ndarray], first: list[np.ndarray], y: np.ndarray, count: int
) -> dict[str, np.ndarray]:
    """What each layer's part brings, by definitions that add up to one over the layers."""
    K, K0 = sum(parts), sum(first)
    values, vectors = np.linalg.eigh(K)
    top = vectors[:, ::-1][:, :count]
    f, change = y.reshape(-1), K - K0
    pairs = list(zip(parts, first, strict=True))
    found = {
        "trace": [np.trace(part) / np.trace(K) for part in parts],
        "frobenius": [(part * K).sum() / (K * K).sum() for part in parts],
        "alignment": [f @ part @ f / (f @ K @ f) for part in parts],
        "eigenvalues": [
            [u @ part @ u / value for part in parts]
            for u, value in zip(top.T, values[::-1][:count], strict=True)
        ],
    }
    if change.any():
        found["movement"] = [((a - b) * change).sum() / (change**2).sum() for a, b in pairs]
    return {name: np.array(values) for name, values in found.items()}
