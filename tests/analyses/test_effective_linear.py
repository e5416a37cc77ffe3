"""Linear models, whose effective parameters are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn, optim

import tscope
from tests.optimizers.recorded import train


def design(n: int, d: int, singular: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return X (n, d) with the given singular values."""
    rng = np.random.default_rng(seed)
    U, _ = np.linalg.qr(rng.standard_normal((n, len(singular))))
    V, _ = np.linalg.qr(rng.standard_normal((d, len(singular))))
    return U * singular @ V.T


def trained(path, X: np.ndarray, steps: int, lr: float, **sgd: float):
    x = torch.from_numpy(X)
    y = torch.randn(len(X), 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.manual_seed(0)
    module = nn.Linear(X.shape[1], 1, bias=False).double()
    optimizer = optim.SGD(module.parameters(), lr=lr, **sgd)
    trace = train(path / "run.zarr", module, optimizer, [(x, y)] * steps, nn.functional.mse_loss)
    held = np.random.default_rng(3).standard_normal((6, X.shape[1]))
    np.savez(path / "held.npz", x=held)
    labels = trace["examples/input/0"]
    order = [int(np.flatnonzero((row == X).all(1))[0]) for row in labels]
    result = tscope.analyze(
        trace, "effective-params", probe=str(path / "held.npz"), loss="mse", every=steps, save=False
    )
    return result, X[order], held


def expected(X: np.ndarray, held: np.ndarray, filters: np.ndarray) -> tuple[float, float]:
    """p of S = X V diag(φ/σ) Uᵀ on the training and the held-out rows."""
    U, sigma, Vt = np.linalg.svd(X, full_matrices=False)
    keep = sigma > 1e-12
    S = [rows @ Vt[keep].T / sigma[keep] * filters @ U[:, keep].T for rows in (X, held)]
    return tuple(len(X) / len(s) * np.square(s).sum() for s in S)


def agree(result, X, held, filters, digits: float = 1e-11) -> None:
    p_train, p_test = expected(X, held, filters)
    assert result.scalars["p_train"] == pytest.approx(p_train, rel=digits)
    assert result.scalars["p_test"] == pytest.approx(p_test, rel=digits)
    # A linear model is its own telescoping model.
    assert result.scalars["discrepancy_telescoped"] < 1e-11


def test_ordinary_least_squares_has_as_many_parameters_as_inputs(tmp_path):
    sigma = np.array([1.0, 0.9, 0.8])
    X = design(12, 3, sigma)
    lr = 0.9 * len(X) / 2 / sigma[0] ** 2
    result, X, held = trained(tmp_path, X, 40, lr)
    agree(result, X, held, np.ones(3))
    assert result.scalars["p_train"] == pytest.approx(3, rel=1e-11)
    assert result.scalars["form"] == "kernel"


def test_early_stopped_gradient_descent_filters_singular_values(tmp_path):
    sigma = np.array([2.0, 1.0, 0.3, 0.05])
    X, steps, lr = design(9, 4, sigma), 13, 0.7
    result, X, held = trained(tmp_path, X, steps, lr)
    filters = 1 - (1 - lr * 2 / len(X) * sigma**2) ** steps
    agree(result, X, held, filters)
    assert result.scalars["p_train"] == pytest.approx(float(np.square(filters).sum()), rel=1e-11)


def test_weight_decay_gives_ridge_regression(tmp_path):
    sigma = np.array([2.0, 1.5, 1.2])
    n, decay = 8, 0.3
    X, kappa = design(8, 3, sigma), 2 / 8
    result, X, held = trained(tmp_path, X, 60, 0.8 / (kappa * 4 + decay), weight_decay=decay)
    filters = sigma**2 / (sigma**2 + decay / kappa)
    agree(result, X, held, filters)
    assert result.scalars["p_train"] == pytest.approx(float(np.square(filters).sum()), rel=1e-11)
    assert (result.scalars["form"], n) == ("parameter", 8)


def test_the_minimum_norm_solution_interpolates_with_n_parameters(tmp_path):
    sigma = np.array([1.1, 1.0, 0.9, 0.8])
    X = design(4, 9, sigma)
    result, X, held = trained(tmp_path, X, 60, 0.9 * 4 / 2 / 1.21)
    agree(result, X, held, np.ones(4))
    assert result.scalars["p_train"] == pytest.approx(4, rel=1e-11)


def test_heavy_ball_with_decay_filters_as_its_scalar_recursion(tmp_path):
    sigma = np.array([1.5, 1.0, 0.4])
    X, steps, lr, mu, decay = design(7, 3, sigma), 25, 0.5, 0.8, 0.05
    result, X, held = trained(tmp_path, X, steps, lr, momentum=mu, weight_decay=decay)
    kappa, w, v = 2 / 7, np.zeros(3), np.zeros(3)
    for _ in range(steps):
        v = mu * v + kappa * (sigma**2 * w - sigma) + decay * w
        w = w - lr * v
    agree(result, X, held, sigma * w)
