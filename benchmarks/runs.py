"""Running the training script of the benchmarks in a process of its own, bare or recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tscope_format import open_trace

from benchmarks.workloads import OPTIMIZERS, ROOT, WORKLOADS


@dataclass(frozen=True)
class Timing:
    """One run.

    Attributes:
        steps: Training steps.
        loop: Wall seconds of the training loop.
        total: Wall seconds of the whole command, start-up included.
        hooks: Seconds inside the recorder's hooks, waiting excluded.
        wait: Seconds the loop waited for the recorder.
        projected: Share of the steps for which the recorder computed projections.
    """

    steps: int
    loop: float
    total: float
    hooks: float = 0.0
    wait: float = 0.0
    projected: float = 0.0

    @property
    def step(self) -> float:
        """Wall seconds of one training step."""
        return self.loop / self.steps


def write_probe(folder: Path, workload: str) -> Path:
    """The workload's held-out inputs as a probe file, one for all its runs."""
    path = folder / f"{workload}-probe.npz"
    if not path.exists():
        torch.manual_seed(0)
        inputs = [tensor.numpy() for tensor in WORKLOADS[workload](OPTIMIZERS[workload]).probe]
        names = ["x"] if len(inputs) == 1 else [f"x{k}" for k in range(len(inputs))]
        np.savez(path, **dict(zip(names, inputs, strict=True)))
    return path


def recorder(trace: Path, *options: str) -> list[str]:
    """The words that record the command behind them."""
    return [sys.executable, "-m", "tscope_cli", "record", "-o", str(trace), "--force", *options, "--"]


def train(
    folder: Path,
    workload: str,
    steps: int,
    *,
    threads: int = 1,
    prefix: Sequence[str] = (),
    options: Sequence[str] = (),
    trace: Path | None = None,
) -> Timing:
    """Run the training script once, behind `prefix`, and read its times, and those in the trace if any."""
    seconds = folder / "seconds.json"
    seconds.unlink(missing_ok=True)
    script = [sys.executable, "-m", "benchmarks.train", "--workload", workload, "--steps", str(steps)]
    start = time.perf_counter()
    done = subprocess.run(
        [*prefix, *script, "--seconds", str(seconds), *options],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
    )
    total = time.perf_counter() - start
    if done.returncode != 0:
        raise SystemExit(f"{workload}: exit code {done.returncode}\n{done.stderr}")
    times = json.loads(seconds.read_text())
    if trace is None:
        return Timing(steps, times["wall"], total)
    return Timing(steps, times["wall"], total, *recorder_costs(trace))


def disk_size(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def recorder_costs(trace: Path) -> tuple[float, float, float]:
    """Seconds in the hooks, seconds waited, and the share of steps projected, as the trace holds them."""
    facts = open_trace(trace).facts["recorder"]
    # The row before training is projected too, and is no step.
    projected = max(0, facts["projected"] - 1) / facts["rows"]
    return facts["hook_seconds"], facts["wait_seconds"], projected
