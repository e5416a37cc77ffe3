"""Forks of scripts that draw their random numbers in different ways, from end to end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from record_scripts import command, environment, said
from tscope_format import open_trace

from tscope.averaging import last_common_step
from tscope.replay import Replay
from tscope.trace import open as open_run

pytestmark = pytest.mark.slow

SCRIPT = """
import random, sys, torch
import numpy as np
from torch.utils.data import DataLoader, TensorDataset
kind = sys.argv[1]
torch.manual_seed(0); np.random.seed(0); random.seed(0)
if "unseeded" in kind:
    torch.seed()
torch.set_num_threads(1)
X, Y = torch.randn(96, 6), torch.randn(96, 1)
noise = torch.nn.Dropout(0.5) if "dropout" in kind else torch.nn.Identity()
net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), noise, torch.nn.Linear(8, 1))
opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
def step(rows):
    opt.zero_grad()
    ((net(X[rows]) - Y[rows]) ** 2).mean().backward()
    opt.step()
def main():
    rng = np.random.default_rng(4)
    own = torch.Generator().manual_seed(3) if "own" in kind else None
    if "loader" in kind:
        for epoch in range(4):
            for (rows,) in DataLoader(TensorDataset(torch.arange(96)), 16, shuffle=True, generator=own):
                step(rows)
        return
    for i in range(24):
        if kind == "wanders" and i == 4:
            torch.seed()
        if "numpy" in kind: rows = np.random.choice(96, 16, replace=False)
        elif "python" in kind: rows = random.sample(range(96), 16)
        elif "rng" in kind: rows = rng.choice(96, 16, replace=False)
        elif "fixed" in kind: rows = list(range(16 * (i % 6), 16 * (i % 6) + 16))
        else: rows = torch.randint(0, 96, (16,))
        step(rows)
main()
if "fails" in kind:
    sys.exit(3)
"""
STEPS = 24
AT = 8


def record(
    folder: Path, kind: str, *options: str, at: str = str(AT), script: str = SCRIPT
) -> subprocess.CompletedProcess[str]:
    (folder / "train.py").write_text(script)
    forks = ["--fork-at", at, "-o", "t.zarr", "--probe", "none", *options]
    return subprocess.run(
        [*command(*forks), "--", sys.executable, "train.py", kind],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def thetas(path: Path) -> list[bytes]:
    walked = Replay(open_run(path)).rows()
    return [b"".join(value.numpy().tobytes() for value in theta.values()) for _, theta, _ in walked]


@pytest.fixture
def forked(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Record a fork, check the parameters, and return what its trace says of it."""

    def fork(kind: str, *options: str) -> dict[str, Any]:
        done = record(tmp_path, kind, *options)
        assert done.returncode == 0, done.stderr
        path = tmp_path / f"t-fork{AT}-seed1.zarr"
        facts: dict[str, Any] = open_trace(path).facts["fork"]
        same = facts["same_until"]
        ours, theirs = thetas(tmp_path / "t.zarr"), thetas(path)
        assert ours[: same + 1] == theirs[: same + 1]
        assert not {*ours[same + 1 :]} & {*theirs[same + 1 :]}
        assert facts["verified"]
        assert last_common_step([open_run(tmp_path / "t.zarr"), open_run(path)], STEPS) == same
        return facts

    return fork


@pytest.mark.parametrize("kind", ["torch", "numpy", "python"])
def test_shufflers_by_global_generators_part_at_the_fork(
    forked: Callable[..., dict[str, Any]], kind: str
) -> None:
    fork = forked(kind)
    assert (fork["same_until"], fork["batches_from"]) == (AT, AT + 1)


def test_a_loaders_order_parts_at_the_next_epoch(forked: Callable[..., dict[str, Any]]) -> None:
    fork = forked("loader")
    assert (fork["same_until"], fork["batches_from"]) == (12, 13)


def test_noise_parts_at_the_fork_though_the_order_does_not(forked: Callable[..., dict[str, Any]]) -> None:
    assert forked("loader dropout")["batches_from"] == 13
    assert forked("loader own dropout", "--force")["batches_from"] is None


@pytest.mark.parametrize(
    ("kind", "first", "own"),
    [
        ("rng", AT + 1, {"numpy.Generator": 1}),
        # Of the loader's sampler, and the batches of an epoch that goes on.
        ("loader own", 13, {"numpy.Generator": 1, "torch.Generator": 1}),
    ],
)
def test_generators_of_the_scripts_own_part_if_asked_for(
    forked: Callable[..., dict[str, Any]], kind: str, first: int, own: dict[str, int]
) -> None:
    fork = forked(kind, "--reseed-generators")
    assert fork["batches_from"] == first
    assert fork["reseeded"]["own"] == own


def test_the_first_run_is_as_it_is_without_recording(tmp_path: Path) -> None:
    text = (
        SCRIPT + "torch.save([*net.parameters()], f'{random.random():.6f}-{torch.rand(1).item():.6f}.pt')\n"
    )
    assert record(tmp_path, "numpy dropout", script=text).returncode == 0
    saved = {path.name for path in tmp_path.glob("*.pt")}
    assert len(saved) == 2
    subprocess.run([sys.executable, "train.py", "numpy dropout"], cwd=tmp_path, env=environment(), check=True)
    assert {path.name for path in tmp_path.glob("*.pt")} == saved
    ends = [
        torch.cat([p.detach().reshape(-1) for p in torch.load(tmp_path / name)]).numpy() for name in saved
    ]
    recorded = np.frombuffer(thetas(tmp_path / "t.zarr")[-1], np.float32)
    assert sum(np.array_equal(end, recorded) for end in ends) == 1


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("rng", "the script ignores the reseeding: its parameters and batches are those of t.zarr"),
        ("fixed", "the script ignores the reseeding"),
        ("unseeded", "its parameters differ from those of t.zarr from the start. It may not seed"),
        ("wanders", "its parameters differ from those of t.zarr after step 4 already"),
    ],
)
def test_what_is_no_fork_is_told(tmp_path: Path, kind: str, message: str) -> None:
    done = record(tmp_path, kind)
    assert done.returncode == 1
    assert message in said(done)[-1]
    assert not open_trace(tmp_path / f"t-fork{AT}-seed1.zarr").facts["fork"]["verified"]


def test_a_first_run_that_fails_is_not_forked(tmp_path: Path) -> None:
    done = record(tmp_path, "torch fails")
    assert done.returncode == 3
    assert said(done)[-1] == "tscope: no fork was run, since the run to part from failed"
    assert [path.name for path in tmp_path.glob("*.zarr")] == ["t.zarr"]


TREES = """
import numpy as np
from sklearn.ensemble import GradientBoostingRegressor
x = np.random.default_rng(0).standard_normal((30, 2))
GradientBoostingRegressor(n_estimators=3).fit(x, x[:, 0])
"""


def test_trees_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    done = record(tmp_path, "", script=TREES)
    assert done.returncode == 1
    assert said(done)[-1] == (
        "tscope: no fork was run: t.zarr holds ensembles of trees only, which take no optimizer steps to "
        "fork at"
    )
