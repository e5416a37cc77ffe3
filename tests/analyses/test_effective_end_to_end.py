"""From an unmodified script to effective parameters, through `tscope record` and the command line."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import numpy as np
import torch
from torch import nn

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
arrays = np.load("data.npz")
x, y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
model = nn.Linear(x.shape[1], 1, bias=False)
options = dict(momentum={momentum}, weight_decay={decay})
optimizer = torch.optim.SGD(model.parameters(), lr=float(arrays["lr"]), **options)
for step in range({steps}):
    optimizer.zero_grad()
    nn.functional.mse_loss(model(x), y).backward()
    optimizer.step()
"""

SIGMA = np.array([1.0, 0.9, 0.8])
N = 8
KAPPA = 2 / N


def tscope_command(folder, *arguments):
    command = [sys.executable, "-m", "tscope_cli", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def recorded(
    folder, *more: str, lr: float, steps: int, momentum: float = 0.0, decay: float = 0.0, n=N, inputs=3
):
    """Record least squares whose design (n, inputs) has the singular values SIGMA, and analyse it."""
    rng = np.random.default_rng(0)
    U, _ = np.linalg.qr(rng.standard_normal((n, 3)))
    V, _ = np.linalg.qr(rng.standard_normal((inputs, 3)))
    y = rng.standard_normal((n, 1))
    np.savez(folder / "data.npz", x=U * SIGMA @ V.T, y=y, lr=lr)
    np.savez(folder / "held.npz", x=rng.standard_normal((5, inputs)))
    (folder / "train.py").write_text(SCRIPT.format(steps=steps, momentum=momentum, decay=decay))
    tscope_command(
        folder, "record", "-o", "run.zarr", "--probe", "held.npz", "--", sys.executable, "train.py"
    )
    done = tscope_command(
        folder, "analyze", "run.zarr", "--metric", "effective-params", "--loss", "mse", "--json", *more
    )
    return json.loads(done.stdout), done.stderr


def test_least_squares_has_as_many_parameters_as_inputs(tmp_path):
    result, said = recorded(tmp_path, "--smoother", "last", "--workers", "2", lr=0.9 / KAPPA, steps=40)
    assert result["scalars"]["p_train"] == pytest.approx(3, rel=1e-10)
    assert result["scalars"]["p_test"] > 0
    assert result["scalars"]["form"] == "kernel"
    assert said.startswith(
        "tscope: kernel form (exact, 8 label directions): about 0 s of arithmetic, shared by 2"
    )
    U, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((N, 3)))
    hat = np.array(result["arrays"]["smoother_train"]["data"]).reshape(N, N)
    assert np.abs(hat - U @ U.T).max() < 1e-10
    assert result["provenance"]["workers"] == 2
    filters = 1 - (1 - 0.9 * SIGMA**2) ** np.arange(41)[:, None]
    curve = np.array(result["arrays"]["p_train"]["data"])
    assert np.abs(curve - np.square(filters).sum(1)).max() < 1e-10


def test_the_minimum_norm_solution_interpolates_with_n_parameters(tmp_path):
    n, inputs, lr = 3, 7, 0.9 * 3 / 2
    result, _ = recorded(tmp_path, lr=lr, steps=60, n=n, inputs=inputs)
    assert result["scalars"]["p_train"] == pytest.approx(n, rel=1e-10)
    X, held = (np.load(tmp_path / name)["x"] for name in ("data.npz", "held.npz"))
    smoother = held @ np.linalg.pinv(X)
    assert result["scalars"]["p_test"] == pytest.approx(n / 5 * np.square(smoother).sum(), rel=1e-10)


def test_heavy_ball_with_decay_filters_as_its_scalar_recursion(tmp_path):
    lr, steps, momentum, decay = 1.0, 30, 0.7, 0.05
    result, _ = recorded(tmp_path, lr=lr, steps=steps, momentum=momentum, decay=decay)
    w, v, curve = np.zeros(3), np.zeros(3), [0.0]
    for _ in range(steps):
        v = momentum * v + KAPPA * (SIGMA**2 * w - SIGMA) + decay * w
        w = w - lr * v
        curve.append(float(np.square(SIGMA * w).sum()))
    assert np.abs(np.array(result["arrays"]["p_train"]["data"]) - curve).max() < 1e-10
    assert result["scalars"]["form"] == "parameter"
    assert result["scalars"]["decay"] == "propagated"


def test_weight_decay_gives_ridge_regression_and_the_table_says_it(tmp_path):
    decay = 0.2
    result, _ = recorded(tmp_path, lr=1 / (KAPPA + decay), steps=60, decay=decay)
    ridge = SIGMA**2 / (SIGMA**2 + decay / KAPPA)
    assert result["scalars"]["p_train"] == pytest.approx(float(np.square(ridge).sum()), rel=1e-10)
    shown = tscope_command(tmp_path, "analyze", "run.zarr", "--metric", "effective-params", "--loss", "mse")
    assert "predictions of the 8 training examples use" in " ".join(shown.stdout.split())
    assert "weight decay acts on label-dependent parameters" in " ".join(shown.stdout.split())
