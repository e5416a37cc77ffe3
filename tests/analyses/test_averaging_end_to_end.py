"""From scripts to averages of their runs: BatchNorm, forks, a convex loss, units in another order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

import tscope
from tests.analyses.averaging_runs import mean_state
from tests.analyses.scripts import Found, analyzed, recorded
from tests.reference.jacobians import jacobian

pytestmark = pytest.mark.slow

FORK = 6
NORMED = f"""
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
PLAIN = """
import sys
import numpy as np
import torch
from torch import nn

torch.set_default_dtype(torch.float64)
arrays = np.load("data.npz")
x, y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
kind = sys.argv[1]
torch.manual_seed(0)
layers = [nn.Linear(4, 3)] if kind == "linear" else [nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 3)]
model = nn.Sequential(*layers)
if kind == "permuted":
    order = torch.tensor([3, 0, 8, 1, 2, 7, 6, 5, 4])
    with torch.no_grad():
        for values in (model[0].weight, model[0].bias):
            values.copy_(values[order].clone())
        model[2].weight.copy_(model[2].weight[:, order].clone())
optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
for step in range(40):
    batch = torch.randperm(len(x))[:8]
    optimizer.zero_grad()
    nn.functional.mse_loss(model(x[batch]), y[batch]).backward()
    optimizer.step()
"""


def average(trace: Path, other: Path, *options: object) -> Found:
    return analyzed(trace, "weight-averaging", "--against", other.name, *options)


def test_two_runs_of_a_script_are_averaged_as_torch_would(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x[:24], y=x[:24, :3].argmax(1))
    np.savez(tmp_path / "held.npz", x=x[24:], y=x[24:, :3].argmax(1))
    traces = [
        recorded(tmp_path, NORMED, "--probe", "held.npz", out=f"{seed}.zarr", words=seed) for seed in "12"
    ]
    found = average(*traces, "--points", 5)
    assert found.scalars["fork_step"] == FORK
    order = torch.from_numpy(tscope.open(traces[0])["examples/input/0"])
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 3))
    states = [torch.load(tmp_path / f"{seed}.pt") for seed in (1, 2)]
    assert len(found.arrays["alpha"]) >= 5
    for place, alpha in enumerate(found.arrays["alpha"]):
        module.load_state_dict(mean_state(states, (alpha, 1 - alpha)))
        update_bn(list(order.split(8)), module)
        module.eval()
        for name, points in (("train", order), ("test", torch.from_numpy(x[24:]))):
            labels = points[:, :3].argmax(1)
            with torch.no_grad():
                f = module(points)
            loss = float(nn.functional.cross_entropy(f, labels))
            assert found.arrays[f"loss_average_{name}"][place] == pytest.approx(loss, rel=1e-6)
            accuracy = float((f.argmax(1) == labels).double().mean())
            assert found.arrays[f"accuracy_average_{name}"][place] == accuracy


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with examples of values, in float64."""
    folder = tmp_path_factory.mktemp("plain")
    rng = np.random.default_rng(1)
    x = rng.standard_normal((40, 4))
    y = np.tanh(x @ rng.standard_normal((4, 3))) + 0.1 * rng.standard_normal((40, 3))
    np.savez(folder / "data.npz", x=x[:24], y=y[:24])
    np.savez(folder / "held.npz", x=x[24:], y=y[24:])
    return folder


def forked(folder: Path, kind: str) -> tuple[Path, Path]:
    options = ("--probe", "held.npz", "--fork-at", FORK)
    trace = recorded(folder, PLAIN, *options, out=f"{kind}.zarr", words=kind)
    return trace, trace.with_name(f"{kind}-fork{FORK}-seed1.zarr")


def test_a_linear_regression_has_no_barrier_and_its_average_is_the_ensemble(data):
    found = average(*forked(data, "linear"))
    assert found.scalars["fork_step"] == FORK
    for name in ("train", "test"):
        assert found.scalars[f"barrier_loss_{name}"] <= 1e-12
        assert found.arrays[f"loss_excess_{name}"][1:-1].max() < -1e-6  # strictly convex
        assert found.arrays[f"difference_{name}"].max() <= 1e-12
        for model in "ab":
            assert found.scalars[f"curvature_{model}_{name}"] <= 1e-12


def held(folder: Path) -> Tensor:
    return torch.from_numpy(np.load(folder / "held.npz")["x"])


def test_the_curvature_identity_holds_for_the_runs_of_a_script(data):
    """f_A = f_t' + J_t'(θ_A − θ_t') + c_A, J written out."""
    traces = [tscope.open(path) for path in forked(data, "deep")]
    found = average(traces[0].path, traces[1].path)
    origin = traces[1].state_dict(FORK)
    assert all(torch.equal(value, traces[0].state_dict(FORK)[name]) for name, value in origin.items())
    module = nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 3)).double()
    points = held(data)

    def outputs(state: dict[str, Tensor]) -> Tensor:
        module.load_state_dict(state)
        with torch.no_grad():
            return module(points)

    f0 = outputs(origin)
    J = jacobian(module, [points])

    def term(state: dict[str, Tensor]) -> Tensor:
        moved = sum(J[n].reshape(*f0.shape, -1) @ (state[n] - origin[n]).reshape(-1) for n in J)
        return outputs(state) - f0 - moved

    states = [trace.state_dict(40) for trace in traces]
    terms = [term(state) for state in states]
    for letter, own in zip("ab", terms, strict=True):
        assert found.scalars[f"curvature_{letter}_test"] == pytest.approx(
            float(own.square().mean().sqrt()), rel=1e-12
        )
    mean = mean_state(states, (0.5, 0.5))
    apart = outputs(mean) - (outputs(states[0]) + outputs(states[1])) / 2
    assert float(apart.abs().max()) > 1e-3
    torch.testing.assert_close(apart, term(mean) - sum(terms) / 2, rtol=0, atol=1e-12)
    assert found.scalars["difference_test"] == pytest.approx(float(apart.square().mean().sqrt()), rel=1e-12)
    assert found.scalars["identity_error_test"] <= 1e-12


def test_a_run_with_its_units_in_another_order_has_no_barrier_after_matching(data):
    """The same script from the same start but for the order of its units: every step is the same."""
    traces = [
        recorded(data, PLAIN, "--probe", "held.npz", out=f"{kind}.zarr", words=kind)
        for kind in ("ordered", "permuted")
    ]
    plain, matched = average(*traces), average(*traces, "--match")
    for name in ("train", "test"):
        assert plain.scalars[f"barrier_loss_{name}"] > 1e-3
        assert np.abs(matched.arrays[f"loss_excess_{name}"]).max() <= 1e-10
    assert matched.scalars["units_moved_b"] == 8 / 9
    assert matched.scalars["distance_after_b"] <= 1e-10 < plain.scalars["difference_test"]
