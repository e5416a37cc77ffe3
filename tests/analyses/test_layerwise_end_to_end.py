"""From scripts to balancedness and neural collapse, through `tscope record` and the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.reference.collapse import simplex

DEEP_LINEAR = """
import torch
from torch import nn

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
x = torch.randn(20, 5)
y = x @ torch.randn(5, 3)
widths = [5, 6, 4, 3]
model = nn.Sequential(*[nn.Linear(a, b, bias=False) for a, b in zip(widths, widths[1:])])
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, weight_decay={decay})
for step in range(60):
    for part in torch.randperm(20).split(7):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x[part]), y[part]).backward()
        optimizer.step()
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


def command(folder: Path, *arguments: str) -> str:
    words = [sys.executable, "-m", "tscope_cli", *arguments]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def recorded(folder: Path, script: str, *asked: str) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    (folder / "train.py").write_text(script)
    command(folder, "record", "-o", "run.zarr", "--", sys.executable, "train.py")
    result = json.loads(command(folder, "analyze", "run.zarr", *asked, "--json"))
    arrays = {name: np.array(entry["data"], dtype=float) for name, entry in result["arrays"].items()}
    return arrays, result["scalars"]


@pytest.mark.slow
def test_a_deep_linear_network_keeps_its_balancedness_up_to_second_order(tmp_path):
    arrays, scalars = recorded(
        tmp_path, DEEP_LINEAR.format(decay=0.0), "--metric", "layers", "--parts", "balance", "--every", "1"
    )
    import tscope

    trace = tscope.open(tmp_path / "run.zarr")
    assert arrays["balance"].shape == (181, 2)
    for pair in range(2):
        thetas = [trace.theta(step) for step in (0, 180)]
        Q = [
            (W2.T @ W2 - W1 @ W1.T).numpy()
            for W1, W2 in ((t[f"{pair}.weight"], t[f"{pair + 1}.weight"]) for t in thetas)
        ]
        drift = np.linalg.norm(Q[1] - Q[0])
        assert arrays["balance_drift"][-1, pair] == pytest.approx(drift, rel=1e-12)
        assert arrays["balance_off"][:, pair].max() <= 1e-12
        assert drift > 1e-3  # what the identity accounts for is not nothing
    assert scalars["balance_check"] <= 1e-14


@pytest.mark.slow
def test_with_weight_decay_balancedness_decays_as_flow_says(tmp_path):
    arrays, scalars = recorded(
        tmp_path, DEEP_LINEAR.format(decay=0.1), "--metric", "layers", "--parts", "balance"
    )
    assert arrays["balance_off"].max() <= 1e-12
    assert scalars["balance_check"] <= 1e-14
    np.testing.assert_allclose(
        arrays["balance_flow"][-1], np.exp(-2 * 180 * 0.05 * 0.1) * arrays["balance"][0], rtol=1e-12
    )


@pytest.mark.slow
def test_an_exact_frame_has_collapsed(tmp_path):
    np.save(tmp_path / "frame.npy", simplex(5, 8))
    arrays, scalars = recorded(tmp_path, COLLAPSED, "--metric", "neural-collapse")
    for name in ("nc1", "within", "nc2_norm", "nc2_cosine_sd", "nc2_angle", "nc3", "nc4"):
        assert arrays[f"{name}_train"].max() <= 1e-12, name
    assert (arrays["accuracy_train"] == 1).all()
    assert (scalars["classes"], scalars["features"], scalars["layer"]) == (5, 8, "1")
    assert arrays["between_train"] == pytest.approx(4.0, rel=1e-13)
