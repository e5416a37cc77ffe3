"""From an unmodified script to the metric, through the command line, against the script's own states."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import tscope
from tests.analyses.scripts import command, recorded
from tests.reference.telescoping import reference

SCRIPT = """
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
x = torch.randn(64, 4)
y = x[:, :3].argmax(1)
states = [{name: value.clone() for name, value in model.state_dict().items()}]
for step in range(12):
    batch = torch.randperm(64)[:16]
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
    optimizer.step()
    states.append({name: value.clone() for name, value in model.state_dict().items()})
torch.save(states, "states.pt")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("script")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((10, 4)).astype(np.float32)
    np.savez(folder / "held.npz", x=x, y=x[:, :3].argmax(1))
    recorded(folder, SCRIPT, "--probe", "held.npz")
    return folder


def expected_of(folder):
    states = torch.load(folder / "states.pt")
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
    names = {name for name, _ in module.named_parameters()}
    thetas = [{name: value for name, value in state.items() if name in names} for state in states]
    buffers = [{name: value for name, value in state.items() if name not in names} for state in states]
    x = torch.from_numpy(np.load(folder / "held.npz")["x"])
    return states, reference(module, thetas, buffers, (x,))


def test_a_float64_replay_equals_explicit_jacobians_on_the_scripts_own_states(folder):
    states, expected = expected_of(folder)
    result = tscope.analyze(folder / "run.zarr", "telescoping", dtype="float64", save=False)
    for name in ("actual", "telescoped", "lazy"):
        found = result.arrays[name].data
        assert np.abs(found - getattr(expected, name).detach().numpy()).max() < 1e-10, name
    trace = tscope.open(folder / "run.zarr")
    for step, state in enumerate(states):
        found = trace.state_dict(step)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) for name in state)


def test_the_command_line_gives_the_recorded_projections(folder):
    _, expected = expected_of(folder)
    result = json.loads(command(folder, "analyze", "run.zarr", "--metric", "telescoping", "--json"))
    steps = result["arrays"]["step"]["data"]
    assert result["scalars"]["source"] == "recorded"
    actual = np.array(result["arrays"]["actual"]["data"])
    assert np.abs(actual - expected.actual.detach().numpy()[steps]).max() < 1e-5
    assert [info.metric for info in tscope.open(folder / "run.zarr").results()] == ["telescoping"]


def test_the_command_line_replays_what_was_not_recorded(folder):
    _, expected = expected_of(folder)
    result = json.loads(command(folder, "analyze", "run.zarr", "--replay", "--json"))
    assert result["scalars"]["source"] == "replay"
    assert result["arrays"]["step"]["data"] == list(range(13))
    telescoped = np.array(result["arrays"]["telescoped"]["data"])
    assert np.abs(telescoped - expected.telescoped.detach().numpy()).max() < 1e-4
    assert result["provenance"]["layers"] == ["0", "1", "3"]
