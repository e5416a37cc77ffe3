"""The whole curve of effective parameters of a run, by the command: SGD exactly, AdamW by probes."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Section, Table, run_alone
from benchmarks.runs import recorder
from benchmarks.train_curve import RATES, data_name, load
from benchmarks.usage import Usage, run

EXAMPLES, STEPS, BATCH = 1000, 1000, 100
QUICK_EXAMPLES, QUICK_STEPS = 200, 40
WORKERS = (1, 2)
RTOL = 0.05
EVERY = 10

TEXT = """
`tscope analyze --metric effective-params` on recorded runs of the 784-200-200-1 MLP ({data}; squared error,
{examples:,} training and {examples:,} held-out examples, {steps:,} steps of batches of {batch}; SGD lr
{sgd}, AdamW lr {adamw}), every check of validity included. Time from the command to its end; memory: that
of all its processes together at their peak. Each process has one thread. SGD: kernel form, exact. AdamW:
probes, until the standard errors of p_train and p_test at the last row are below {rtol:.0%}. Aims: SGD ≤ 3
min, AdamW ≤ 10 min.
"""


@dataclass(frozen=True)
class Curve:
    """One analysis."""

    optimizer: str
    workers: int
    usage: Usage
    scalars: dict[str, Any]


def record(folder: Path, optimizer: str, examples: int, steps: int) -> Path:
    trace = folder / f"{optimizer}.zarr"
    print(f"curves: record {optimizer}", file=sys.stderr)
    script = [sys.executable, "-m", "benchmarks.train_curve", "--optimizer", optimizer]
    sizes = ["--train", str(examples), "--batch", str(BATCH), "--steps", str(steps)]
    run([*recorder(trace, "--probe", "none"), *script, *sizes], {"OMP_NUM_THREADS": "1"})
    return trace


def analyze(trace: Path, probe: Path, optimizer: str, workers: int) -> Curve:
    print(f"curves: {optimizer}, {workers} worker(s)", file=sys.stderr)
    form = {"sgd": ["--form", "kernel"], "adamw": ["--form", "probes", "--rtol", str(RTOL)]}[optimizer]
    words = [sys.executable, "-m", "tscope_cli", "analyze", str(trace), "--metric", "effective-params"]
    options = ["--probe", str(probe), "--every", str(EVERY), "--workers", str(workers), "--no-save", "--json"]
    usage = run([*words, *form, *options], {"OMP_NUM_THREADS": "1"})
    return Curve(optimizer, workers, usage, json.loads(usage.output)["scalars"])


def row(curve: Curve, curves: Sequence[Curve]) -> list[str]:
    found = curve.scalars
    alone = next(other for other in curves if other.optimizer == curve.optimizer and other.workers == 1)
    memory = curve.usage.memory

    def value(name: str) -> str:
        error = found[f"{name}_se"]
        return f"{found[name]:.4g}" + (f" ± {error:.2g}" if error else "")

    probes = "exact" if found["exact"] else f"{found['probes']}, {found['passes']} passes"
    return [
        {"sgd": "SGD", "adamw": "AdamW"}[curve.optimizer],
        str(found["form"]),
        str(curve.workers),
        f"{curve.usage.wall:.0f} s",
        f"{curve.usage.cpu:.0f} s",
        f"{alone.usage.wall / curve.usage.wall:.2f}",
        "" if memory is None else f"{memory / 1e6:.0f} MB",
        probes,
        value("p_train"),
        value("p_test"),
    ]


def section(curves: Sequence[Curve], examples: int, steps: int) -> Section:
    text = TEXT.format(data=data_name(), examples=examples, steps=steps, batch=BATCH, rtol=RTOL, **RATES)
    head = ["run", "form", "workers", "time", "CPU", "times faster", "memory", "probes", "p_train", "p_test"]
    table = Table("", head, [row(curve, curves) for curve in curves])
    return Section("curves", "The whole curve of effective parameters", text, [table])


def measure(quick: bool) -> Section:
    examples, steps = (QUICK_EXAMPLES, QUICK_STEPS) if quick else (EXAMPLES, STEPS)
    curves = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        x, y = load(examples, held_out=True)
        np.savez(folder / "probe.npz", x=x.numpy(), y=y.numpy())
        for optimizer in RATES:
            trace = record(folder, optimizer, examples, steps)
            curves += [analyze(trace, folder / "probe.npz", optimizer, workers) for workers in WORKERS]
    return section(curves, examples, steps)


if __name__ == "__main__":
    run_alone(measure, __doc__)
