"""Small scripts to record, and how to record them as a person would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

TRAIN = """
import os, sys, torch
torch.manual_seed(0)
torch.set_num_threads(1)
X, Y, held = torch.randn(64, 6), torch.randn(64, 1), torch.randn(40, 6)
net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
def train(steps):
    for step in range(steps):
        rows = torch.randint(0, 64, (16,))
        opt.zero_grad()
        ((net(X[rows]) - Y[rows]) ** 2).mean().backward()
        opt.step()
def evaluate():
    net.eval()
    with torch.no_grad():
        net(held)
    net.train()
"""


def script(folder: Path, body: str, *, train: bool = True) -> Path:
    """Write `train.py`: the model above (unless `train` is false), then `body`."""
    path = folder / "train.py"
    path.write_text((TRAIN if train else "") + body)
    return path


def command(*arguments: str | Path) -> list[str]:
    """Return `tscope record …` as a command."""
    return [sys.executable, "-m", "tscope_cli", "record", *map(str, arguments)]


def environment(**extra: str) -> Mapping[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **extra}


def record(folder: Path, *arguments: str | Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run `tscope record …` in `folder`."""
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what the recorder said, line by line."""
    return [line for line in done.stderr.splitlines() if line.startswith("tscope: ")]


def python(*arguments: str | Path) -> Sequence[str]:
    return ["--", sys.executable, *map(str, arguments)]
