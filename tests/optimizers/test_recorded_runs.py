"""From a script through `tscope record` to training steps and the loss."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import tscope
from tscope.optimizers import infer_loss, training_functional, training_steps

SCRIPT = """
import sys
import torch
from torch import nn

torch.manual_seed(0)
torch.set_default_dtype(getattr(torch, sys.argv[1]))
net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
if sys.argv[2] == "dropout":
    net = nn.Sequential(net, nn.Dropout(0.5))
optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 50, 0.5)
X, Y = torch.randn(40, 6), torch.randint(0, 3, (40,))
torch.save(Y, "labels.pt")
torch.save(X, "inputs.pt")
for epoch in range(100):
    for rows in torch.randperm(40).split(16):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(X[rows]), Y[rows]).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.8)
        optimizer.step()
        scheduler.step()
"""


def recorded(folder, *arguments: str) -> tscope.Trace:
    (folder / "train.py").write_text(SCRIPT)
    record = [sys.executable, "-m", "tscope_cli", "record", "-o", "run.zarr", "--probe", "none", "--"]
    done = subprocess.run(
        [*record, sys.executable, "train.py", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return tscope.open(folder / "run.zarr")


@pytest.fixture(scope="module", params=["float32", "float64"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return folder, recorded(folder, request.param, "plain"), request.param


def walk(trace, **rows):
    program = trace.program().to(torch.float64)
    return training_steps(trace, program, training_functional(trace, program), dtype=torch.float64, **rows)


def test_outputs_and_gradients_are_held_in_the_precision_of_the_run(run):
    _, trace, dtype = run
    for name in ("batch/output", "batch/output_grad", "grad_norm"):
        assert trace[name].dtype == dtype


def test_every_step_of_the_script_is_replayed(run):
    _, trace, dtype = run
    steps = list(walk(trace))
    assert [step.step for step in steps] == list(range(1, 301))
    # A float32 run moves by rounded steps; a float64 one is recorded as it was.
    limit = 1e-3 if dtype == "float32" else 5e-12
    assert max(step.residual.relative for step in steps) < limit
    assert steps[-1].update.decoupled["0.bias"] == pytest.approx(0.01 * 0.5**5 * 0.1)
    assert min(step.update.rho["0.bias"] for step in steps) < 0.9
    (anchor,) = [step for step in steps if step.residual.state]
    assert anchor.row == 256
    assert set(anchor.residual.state) == {"exp_avg", "exp_avg_sq"}
    assert max(anchor.residual.state.values()) < (1e-5 if dtype == "float32" else 1e-14)


def test_a_walk_from_the_anchor_goes_on_as_one_from_the_start(run):
    _, trace, _ = run
    (late,) = walk(trace, start_row=260, stop_row=261)
    *_, early = walk(trace, stop_row=261)
    assert late.row == early.row == 260
    for name, scale in early.update.d_out.items():
        assert torch.equal(scale, late.update.d_out[name])


def test_the_loss_and_labels_are_those_of_the_script(run):
    folder, trace, dtype = run
    loss = infer_loss(trace)
    assert (loss.kind, loss.factor, loss.reduction) == ("cross_entropy", 1.0, "mean")
    inputs, labels = (torch.load(folder / f"{name}.pt") for name in ("inputs", "labels"))
    found = torch.from_numpy(trace["examples/input/0"])
    place = (found[:, None] == inputs[None]).all(2).int().argmax(1)
    assert torch.equal(loss.labels.argmax(1), labels[place])
    assert loss.spread < (1e-6 if dtype == "float32" else 1e-15)


def test_dropout_is_refused_by_name(tmp_path):
    with pytest.raises(tscope.AnalysisError, match=r"step 1: .* the model has dropout"):
        list(walk(recorded(tmp_path, "float32", "dropout")))
