"""From scripts to balancedness and neural collapse, through `tscope record` and the command line."""

from __future__ import annotations

import numpy as np
import pytest

import tscope
from tests.analyses.scripts import analyzed, recorded
from tests.reference.collapse import simplex

pytestmark = pytest.mark.slow

# It keeps what the identity makes of Q_0 by gradients of its own, and saves it.
DEEP_LINEAR = """
import numpy as np
import torch
from torch import nn

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
x = torch.randn(20, 5)
y = x @ torch.randn(5, 3)
widths = [5, 6, 4, 3]
model = nn.Sequential(*[nn.Linear(a, b, bias=False) for a, b in zip(widths, widths[1:])])
rate, decay = 0.05, {decay}
optimizer = torch.optim.SGD(model.parameters(), lr=rate, weight_decay=decay)
pairs = list(zip(model, model[1:]))
expected = [above.weight.T @ above.weight - below.weight @ below.weight.T for below, above in pairs]
for step in range(60):
    for part in torch.randperm(20).split(7):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x[part]), y[part]).backward()
        for k, (below, above) in enumerate(pairs):
            g = above.weight.grad.T @ above.weight.grad - below.weight.grad @ below.weight.grad.T
            expected[k] = (1 - rate * decay) ** 2 * expected[k] + rate**2 * g
        optimizer.step()
np.savez("expected.npz", *[Q.detach().numpy() for Q in expected])
"""

COLLAPSED = """
import numpy as np
import torch
from torch import nn

torch.set_default_dtype(torch.float64)
frame = torch.from_numpy(np.load("frame.npy"))  # (class, feature)
classes, features = frame.shape
# Each example is its class's unit vector and noise, of which the first layer takes none.
y = torch.arange(classes).repeat(4)
x = torch.cat([torch.eye(classes)[y], torch.randn(len(y), 3)], 1)
model = nn.Sequential(nn.Linear(classes + 3, features), nn.Linear(features, classes, bias=False))
with torch.no_grad():
    model[0].weight.copy_(torch.cat([2 * frame.T, torch.zeros(features, 3)], 1))
    model[0].bias.fill_(0.3)
    model[1].weight.copy_(5 * frame)
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
for step in range(2):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
"""


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_balancedness_follows_the_identity_of_the_scripts_own_gradients(tmp_path, decay):
    path = recorded(tmp_path, DEEP_LINEAR.format(decay=decay))
    found = analyzed(path, "layers", "--parts", "balance", "--every", 1)
    trace, balance = tscope.open(path), found.arrays["balance"]
    assert balance.shape == (181, 2)
    for pair, expected in enumerate(np.load(tmp_path / "expected.npz").values()):
        first, last = (
            (theta[f"{pair + 1}.weight"].T @ theta[f"{pair + 1}.weight"]).numpy()
            - (theta[f"{pair}.weight"] @ theta[f"{pair}.weight"].T).numpy()
            for theta in (trace.theta(0), trace.theta(180))
        )
        np.testing.assert_allclose(last, expected, rtol=0, atol=1e-12)
        assert balance[-1, pair] == pytest.approx(np.linalg.norm(expected), abs=1e-12)
        drift = np.linalg.norm(expected - first)
        assert found.arrays["balance_drift"][-1, pair] == pytest.approx(drift, abs=1e-12)
        assert drift > 1e-3  # what the identity accounts for is not nothing
        flow = np.exp(-2 * 180 * 0.05 * decay) * np.linalg.norm(first)
        assert found.arrays["balance_flow"][-1, pair] == pytest.approx(flow, rel=1e-12)
    assert found.arrays["balance_off"].max() <= 1e-12
    assert found.scalars["balance_check"] <= 1e-14


def test_an_exact_frame_has_collapsed(tmp_path):
    np.save(tmp_path / "frame.npy", simplex(5, 8))
    y = np.arange(5).repeat(3)
    noise = np.random.default_rng(0).normal(size=(15, 3))
    np.savez(tmp_path / "held.npz", x=np.concatenate([np.eye(5)[y], noise], 1), y=y)
    found = analyzed(recorded(tmp_path, COLLAPSED, "--probe", "held.npz"), "neural-collapse")
    arrays, scalars = found.arrays, found.scalars
    for kind in ("train", "test"):
        for name in ("nc1", "within", "nc2_norm", "nc2_cosine_sd", "nc2_angle", "nc3", "nc4"):
            assert arrays[f"{name}_{kind}"].max() <= 1e-12, name
        assert (arrays[f"accuracy_{kind}"] == 1).all()
        assert arrays[f"between_{kind}"] == pytest.approx(4.0, rel=1e-13)
    assert (scalars["classes"], scalars["features"], scalars["layer"]) == (5, 8, "1")
