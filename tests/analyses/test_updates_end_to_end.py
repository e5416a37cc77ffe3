"""From an unmodified script to terms and influences, through `tscope record` and the command line.

Least squares, where J is x and everything has a closed form in numpy.
"""

from __future__ import annotations

import numpy as np
import pytest

import tscope
from tests.analyses.scripts import analyzed, recorded

SCRIPT = """
import numpy as np
import torch
from torch import nn

torch.set_default_dtype(torch.float64)
arrays = np.load("data.npz")
x, y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
model = nn.Linear(3, 1, bias=False)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.8, weight_decay=0.05)
for step in range(12):
    optimizer.zero_grad()
    nn.functional.mse_loss(model(x), y).backward()
    optimizer.step()
np.save("w.npy", model.weight.detach().numpy())
"""


@pytest.mark.slow
def test_least_squares_with_momentum_and_decay(tmp_path):
    rng = np.random.default_rng(0)
    x, y, held = rng.standard_normal((8, 3)), rng.standard_normal((8, 1)), rng.standard_normal((4, 3))
    np.savez(tmp_path / "data.npz", x=x, y=y)
    np.savez(tmp_path / "held.npz", x=held)
    path = recorded(tmp_path, SCRIPT, "--probe", "held.npz")
    result = analyzed(path, "updates", "--influence", "all")
    arrays, trace = result.arrays, tscope.open(path)
    w = trace.theta(0)["weight"].numpy().T
    order = [int(np.flatnonzero((x == row).all(1))[0]) for row in trace["examples/input/0"]]
    direct, kept, decays, totals = np.zeros((8, 3)), np.zeros((8, 3)), np.zeros((1, 3)), np.zeros((3, 4))
    influence = np.zeros((4, 8))
    for _ in range(12):
        direct = 2 / 8 * (x @ w - y) * x  # (example, weight), each example's gradient
        kept = 0.8 * kept + direct
        decays = 0.8 * decays + 0.05 * w.T
        gradient, memory = -0.1 * direct.sum(0), -0.1 * (kept - direct).sum(0)
        totals += np.stack([held @ gradient, held @ memory, held @ (-0.1 * decays[0])])
        influence -= 0.1 * held @ kept.T
        w = w - 0.1 * (kept.sum(0) + decays[0])[:, None]
    assert np.abs(w.T - np.load(tmp_path / "w.npy")).max() < 1e-13
    terms = result.provenance["terms"]
    for name, total in zip(("gradient", "memory", "coupled_decay"), totals, strict=True):
        assert np.abs(arrays["total_term"][terms.index(name), :, 0] - total).max() < 1e-12, name
    assert np.abs(arrays["influence"][:, 0] - influence[:, order]).max() < 1e-12
    assert result.scalars["relative_residual"] < 1e-12
