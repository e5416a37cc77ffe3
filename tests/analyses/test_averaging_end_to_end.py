"""From an unmodified script with BatchNorm and dropout to the average of two of its runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

FORK = 6
SCRIPT = f"""
import sys
import numpy as np
import torch
from torch import nn

arrays = np.load("data.npz")
x, y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
for step in range(30):
    if step == {FORK}:
        torch.manual_seed(int(sys.argv[1]))
    batch = torch.randperm(len(x))[:8]
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
    optimizer.step()
torch.save(model.state_dict(), f"{{sys.argv[1]}}.pt")
"""


def command(folder: Path, *arguments: str) -> str:
    words = [sys.executable, "-m", "tscope_cli", *arguments]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_two_runs_of_a_script_are_averaged_as_torch_would(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 4)).astype(np.float32)
    y = x[:, :3].argmax(1)
    np.savez(tmp_path / "data.npz", x=x[:24], y=y[:24])
    np.savez(tmp_path / "held.npz", x=x[24:], y=y[24:])
    (tmp_path / "train.py").write_text(SCRIPT)
    for seed in ("1", "2"):
        run = ("record", "-o", f"{seed}.zarr", "--probe", "held.npz", "--")
        command(tmp_path, *run, sys.executable, "train.py", seed)
    asked = ("analyze", "1.zarr", "--metric", "weight-averaging", "--against", "2.zarr", "--points", "3")
    found = json.loads(command(tmp_path, *asked, "--json"))
    assert found["scalars"]["fork_step"] == FORK

    import tscope

    order = torch.from_numpy(tscope.open(tmp_path / "1.zarr")["examples/input/0"])
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 3))
    states = [torch.load(tmp_path / f"{seed}.pt") for seed in (1, 2)]
    held, labels = torch.from_numpy(x[24:]), torch.from_numpy(y[24:])
    for alpha in (0.0, 0.5, 1.0):
        first, second = states
        average = {
            name: alpha * value + (1 - alpha) * second[name] if value.is_floating_point() else value
            for name, value in first.items()
        }
        module.load_state_dict(average)
        update_bn(list(order.split(8)), module)
        module.eval()
        with torch.no_grad():
            f = module(held)
        place = found["arrays"]["alpha"]["data"].index(alpha)
        loss = float(nn.functional.cross_entropy(f, labels))
        assert found["arrays"]["loss_average_test"]["data"][place] == pytest.approx(loss, rel=1e-5)
        accuracy = float((f.argmax(1) == labels).double().mean())
        assert found["arrays"]["accuracy_average_test"]["data"][place] == accuracy
