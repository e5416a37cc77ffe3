"""How time and memory of a step of the effective parameters grow with the network and with the examples."""

from __future__ import annotations

import gc
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn

from benchmarks.networks import Network, Transformer, indices, network, normals, perceptron
from benchmarks.report import Section, Table, run_alone

BATCH, PROBES = 100, 16
EXAMPLES = 1000
LEAST = 1.0  # CPU seconds that a measurement repeats a step for, at most REPEATS times
REPEATS = 5

TEXT = f"""
One step of the recursion on n training and n held-out examples with batches of {BATCH}, one output, one
thread, float32. *Kernel*: the block of all points against the batch, and S ← S − γKR. *Probes*: {PROBES} of
them, JᵀR of the batch and J of the points. CPU seconds, medians, and memory beyond that of the network and
its inputs at the peak (S, and the probes' parameter columns, are part of it), each network in a process of
its own. Exponents are fitted by least squares of logarithms over all rows of a table; those in brackets are
between the last two.
"""


@dataclass(frozen=True)
class Point:
    """One measurement: a network as its kind, depth (layers or blocks) and width, and n."""

    kind: str
    depth: int
    width: int
    examples: int

    def network(self) -> Network:
        if self.kind == "transformer":
            return network(partial(Transformer, self.depth, self.width), indices())
        inputs = 784 if self.kind == "mlp" else self.width
        widths = (inputs, *[self.width] * (self.depth - 1), 1)
        make: Callable[[], nn.Module] = partial(perceptron, *widths)
        return network(make, normals(inputs))


@dataclass(frozen=True)
class Cost:
    """Seconds and bytes of a step of one form."""

    seconds: float
    memory: float


@dataclass(frozen=True)
class Step:
    """What a step costs at one point."""

    point: Point
    parameters: int
    kernel: Cost
    probes: Cost


@dataclass(frozen=True)
class Series:
    """Points that differ in one thing, `grows`."""

    caption: str
    grows: Callable[[Step], float]
    points: Sequence[Point]


def by_parameters(step: Step) -> float:
    return step.parameters


def by_examples(step: Step) -> float:
    return step.point.examples


def by_depth(step: Step) -> float:
    return step.point.depth


def series(quick: bool) -> list[Series]:
    n = 100 if quick else EXAMPLES
    widths = (12, 110) if quick else (12, 38, 110, 305, 700, 1500, 2800)
    counts = (50, 100) if quick else (250, 500, 1000, 2000, 4000)
    depths = (2, 12) if quick else (2, 8, 30, 60, 120)
    blocks = (1, 2) if quick else (1, 2, 4, 8)
    return [
        Series("Parameters: MLP 784-w-w-1:", by_parameters, [Point("mlp", 3, width, n) for width in widths]),
        Series(
            "Examples: MLP 784-200-200-1:", by_examples, [Point("mlp", 3, 200, count) for count in counts]
        ),
        Series(
            "Depth: linear layers of width 64:", by_depth, [Point("deep", depth, 64, n) for depth in depths]
        ),
        Series(
            "Transformer: blocks of width 64 on 32 positions:",
            by_depth,
            [Point("transformer", depth, 64, n // 4) for depth in blocks],
        ),
    ]


def measure_form(point: Point, form: str) -> tuple[int, Cost]:
    """The number of parameters, and a step's cost in one form; in a process that does nothing else."""
    torch.set_num_threads(1)
    found = point.network()
    n = point.examples
    points = found.draw(2 * n)
    batch = points[:BATCH]
    jacobian = found.jacobian()
    jacobian.block([points[:2]], [batch[:2]])
    R = torch.randn(len(batch), n)
    V = torch.randn(len(batch), 1, PROBES)

    def kernel() -> Callable[[], None]:
        S = torch.zeros(2 * n, n)
        return lambda: void(S.addmm_(jacobian.block([points], [batch])[:, 0, :, 0], R, alpha=-0.01))

    def probes() -> Callable[[], None]:
        return lambda: void(jacobian.pushforward([points], jacobian.pullback([batch], V)))

    return found.size, cost(kernel if form == "kernel" else probes)


def void(value: object) -> None:
    """Let go of a step's result."""


def cost(prepare: Callable[[], Callable[[], None]]) -> Cost:
    gc.collect()
    before = reset_peak()
    step = prepare()
    step()
    memory = peak() - before
    times: list[float] = []
    while not times or (len(times) < REPEATS and sum(times) < LEAST):
        start = time.process_time()
        step()
        times.append(time.process_time() - start)
    return Cost(median(times), memory)


def reset_peak() -> int:
    """Forget the peak of resident memory, and return what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def peak() -> int:
    return status("VmHWM")


def status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def exponent(steps: Sequence[Step], grows: Callable[[Step], float], value: Callable[[Step], float]) -> str:
    """The slope of log(value) over log(what grows), and between the last two."""
    x = np.log([grows(step) for step in steps])
    y = np.log([max(value(step), 1e-9) for step in steps])
    last = (y[-1] - y[-2]) / (x[-1] - x[-2])
    return f"{np.polyfit(x, y, 1)[0]:.2f} ({last:.2f})"


def table(measured: Series, steps: Sequence[Step]) -> Table:
    rows = [
        [
            f"{step.point.depth}",
            f"{step.parameters:,}",
            f"{step.point.examples:,}",
            f"{1e3 * step.kernel.seconds:.1f} ms",
            f"{step.kernel.memory / 1e6:.0f} MB",
            f"{1e3 * step.probes.seconds:.1f} ms",
            f"{step.probes.memory / 1e6:.0f} MB",
        ]
        for step in steps
    ]
    costs: list[Callable[[Step], float]] = [
        lambda step: step.kernel.seconds,
        lambda step: step.kernel.memory,
        lambda step: step.probes.seconds,
        lambda step: step.probes.memory,
    ]
    rows.append(["exponent", "", "", *(exponent(steps, measured.grows, value) for value in costs)])
    head = ["depth", "parameters", "n", "kernel", "its memory", "probes", "their memory"]
    return Table(measured.caption, head, rows)


def measure(quick: bool) -> Section:
    tables = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        for measured in series(quick):
            steps = []
            for point in measured.points:
                print(f"growth: {point}", file=sys.stderr)
                # Memory that a form gives back to the allocator would hide what the next one takes.
                size, kernel = pool.submit(measure_form, point, "kernel").result()
                _, probes = pool.submit(measure_form, point, "probes").result()
                steps.append(Step(point, size, kernel, probes))
            tables.append(table(measured, steps))
    return Section("growth", "How a step grows", TEXT, tables)


if __name__ == "__main__":
    run_alone(measure, __doc__)
