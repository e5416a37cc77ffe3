"""The kernel along a long run: 50 rows of 10,000 steps, by the command and by other ways to its blocks."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import tscope
from benchmarks.networks import Network, network, normals, perceptron
from benchmarks.report import Section, Table, run_alone
from benchmarks.rivals import CURVLINOPS, JACREV, NEURAL_TANGENTS, Rival
from benchmarks.runs import recorder
from benchmarks.train_curve import data_name, load
from benchmarks.usage import Usage, run

STEPS, ROWS, EXAMPLES = 10_000, 50, 512
QUICK_STEPS, QUICK_ROWS, QUICK_EXAMPLES = 60, 4, 32

TEXT = """
The tangent kernel of a recorded run of the 784-200-200-1 MLP ({data}; {steps:,} steps of SGD) at {rows} rows
on a logarithmic scale, of n = {examples} training and as many held-out examples, float32, one thread. `tscope
analyze --metric kernel` is the whole command: start-up, reading θ, the blocks by layers, all eigenvalues,
alignment and distances; without layers it leaves out their shares. The other ways only compute the blocks
K(all, training) and K(held-out, held-out) at some of the rows, and θ is given to them: layer-wise blocks are
tscope's own. Those that take too long get part of a block. Their time is scaled to all rows and the whole
blocks, once for what is done for the columns and once for the rows; compilation is left out. Memory: of all
processes at their peak, for what was computed. *Error*: relative, in the Frobenius norm, to the layer-wise
block in float64 at the last row.
"""


@dataclass(frozen=True)
class Way:
    """One way to the blocks, and how much of them it computes.

    Attributes:
        rival: None for the layer-wise blocks.
        rows: Of the run.
        size: Rows and columns of each block; None for all.
    """

    name: str
    rival: Rival | None
    rows: int
    size: tuple[int, int] | None = None


WAYS = (
    Way("layer-wise blocks", None, ROWS),
    Way(JACREV.name, JACREV, 2),
    Way(NEURAL_TANGENTS.name, NEURAL_TANGENTS, 5),
    Way(CURVLINOPS.name, CURVLINOPS, 1, (100, 10)),
)


def record(folder: Path, steps: int) -> Path:
    trace = folder / "run.zarr"
    print("kernel_series: record", file=sys.stderr)
    script = [sys.executable, "-m", "benchmarks.train_kernel", "--steps", str(steps)]
    run([*recorder(trace, "--probe", "none"), *script], {"OMP_NUM_THREADS": "1"})
    return trace


def chosen(steps: int, rows: int) -> list[int]:
    """Steps on a logarithmic scale, 0 among them; never fewer than asked for, where there are so many."""
    count = rows
    while True:
        found = sorted({0, *np.geomspace(1, steps, count).round().astype(int).tolist()})
        if len(found) >= min(rows, steps + 1):
            return [*found[: rows - 1], found[-1]] if len(found) > rows else found
        count += 1


def examples(count: int) -> tuple[Tensor, Tensor]:
    """Inputs of the training and of the held-out examples."""
    return load(count, held_out=False)[0], load(count, held_out=True)[0]


def analyze(trace: Path, probe: Path, steps: Sequence[int], count: int, *options: str) -> Usage:
    print(f"kernel_series: analyze {' '.join(options)}", file=sys.stderr)
    words = [sys.executable, "-m", "tscope_cli", "analyze", str(trace), "--metric", "kernel"]
    chosen_examples = ["--train", str(count), "--test", str(count), "--probe", str(probe)]
    at = ["--at", ",".join(map(str, steps)), "--no-save", "--quiet"]
    return run([*words, *chosen_examples, *at, *options], {"OMP_NUM_THREADS": "1"})


def blocks(way: Way, trace: Path, steps: Sequence[int], count: int) -> None:
    """Compute the blocks in this process, and print CPU seconds for all rows of the run, and the error."""
    torch.set_num_threads(1)
    size = (2 * count, count) if way.size is None else way.size
    size = min(size[0], 2 * count), min(size[1], count)
    found = network(partial(perceptron, 784, 200, 200, 1), normals(784))
    train, test = examples(count)
    points = torch.cat([train, test])
    opened = tscope.open(trace)
    seconds, error = 0.0, 0.0
    last = np.linspace(0, len(steps) - 1, min(way.rows, len(steps))).round().astype(int).tolist()
    if way.rival is not None and way.rival.compiles:
        for inputs, columns in ((points, train), (test, test)):
            way.rival.prepare(found, columns[: size[1]], None)(inputs[: size[0]])
    for place in last:
        found.module.load_state_dict(opened.state_dict(steps[place]))
        for inputs, columns in ((points, train), (test, test)):
            spent, K = computed(way, found, inputs[: size[0]], columns[: size[1]], inputs, columns)
            seconds += spent
            if place == last[-1]:
                exact = reference(found, inputs[: len(K)], columns[: K.shape[1]])
                error = max(error, float((K.double() - exact).norm() / exact.norm()))
    print(json.dumps({"seconds": seconds * len(steps) / len(last), "error": error}))


def computed(
    way: Way, found: Network, rows: Tensor, columns: Tensor, all_rows: Tensor, all_columns: Tensor
) -> tuple[float, Tensor]:
    """CPU seconds for all rows and columns, from those of some; and the block of those."""
    start = time.process_time()
    if way.rival is None:
        K = found.jacobian().block([rows], [columns]).flatten(2).flatten(0, 1)
        return time.process_time() - start, K
    compute = way.rival.prepare(found, columns, None)
    once = time.process_time() - start
    K = compute(rows).detach()
    each = time.process_time() - start - once
    wider, longer = len(all_columns) / len(columns), len(all_rows) / len(rows)
    return once * wider + each * longer * (wider if way.rival.by_column else 1), K


def reference(found: Network, rows: Tensor, columns: Tensor) -> Tensor:
    """The layer-wise block in float64; the tests hold it against explicit Jacobians."""
    wide = Network(found.module, found.program.to(torch.float64), found.draw)
    K = wide.jacobian().block([rows.double()], [columns.double()])
    return K.flatten(2).flatten(0, 1)


def row(name: str, usage: Usage, seconds: float, first: float, error: float | None, part: str) -> list[str]:
    memory = "" if usage.memory is None else f"{usage.memory / 1e6:.0f} MB"
    shown = "" if error is None else f"{error:.0e}"
    return [name, f"{seconds:.3g} s", f"{seconds / first:.1f}x", memory, shown, part]


def measure(quick: bool) -> Section:
    total, count, size = (QUICK_STEPS, QUICK_ROWS, QUICK_EXAMPLES) if quick else (STEPS, ROWS, EXAMPLES)
    steps = chosen(total, count)
    table: list[list[str]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trace, probe = record(folder, total), folder / "probe.npz"
        x, y = load(size, held_out=True)
        np.savez(probe, x=x.numpy(), y=y.numpy())
        whole = analyze(trace, probe, steps, size)
        first = whole.cpu
        table.append(row("`tscope analyze`", whole, first, first, None, "all"))
        bare = analyze(trace, probe, steps, size, "--no-layers")
        table.append(row("`tscope analyze --no-layers`", bare, bare.cpu, first, None, "all"))
        for way in WAYS:
            if way.rival is not None and not way.rival.installed:
                table.append([way.name, "not installed", "", "", "", ""])
                continue
            print(f"kernel_series: {way.name}", file=sys.stderr)
            words = [sys.executable, "-m", "benchmarks.kernel_series", "--blocks", way.name, str(trace)]
            usage = run([*words, str(size), *map(str, steps)], {"OMP_NUM_THREADS": "1"})
            found = json.loads(usage.output)
            part = f"{min(way.rows, len(steps))} rows" if way.size is None else "1 row, 100x10 of each block"
            table.append(row(way.name, usage, found["seconds"], first, found["error"], part))
    text = TEXT.format(data=data_name(), steps=total, rows=len(steps), examples=size)
    head = ["way", "CPU time", "over the command", "memory", "error", "computed"]
    return Section("kernel_series", "The kernel along a run", text, [Table("", head, table)])


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--blocks", nargs="+")
    known, _ = parser.parse_known_args()
    if known.blocks is None:
        run_alone(measure, __doc__)
        return
    name, trace, size, *steps = known.blocks
    way = next(way for way in WAYS if way.name == name)
    blocks(way, Path(trace), [int(step) for step in steps], int(size))


if __name__ == "__main__":
    main()
