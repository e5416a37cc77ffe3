"""Khatri-Rao sketches of a probe set: what one takes beside an exact block, and what recording them costs."""

from __future__ import annotations

import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import torch
from tscope_format import open_trace

from benchmarks.networks import Network, convolutional, network, normals, perceptron
from benchmarks.report import Section, Table, run_alone
from benchmarks.runs import disk_size, recorder, train, write_probe
from benchmarks.workloads import OPTIMIZERS, PROBES
from tscope.kernels import Signs

COLUMNS = (256, 1024, 4096)
RECORDED = 1024
ROUNDS = 3
STEPS = {"mlp": 2000, "cnn": 2000}  # as those of `overhead`
CASES = (
    ("MLP 784-200-200-1", partial(perceptron, 784, 200, 200, 1), (784,)),
    ("MLP 784-200-200-10", partial(perceptron, 784, 200, 200, 10), (784,)),
    ("MLP 784-2800-2800-1", partial(perceptron, 784, 2800, 2800, 1), (784,)),
    ("CNN", convolutional, (1, 28, 28)),
)

TEXT = f"""
CPU seconds of one thread for {PROBES} examples, float32: the exact kernel of them by layers, and a sketch of
{", ".join(map(str, COLUMNS))} columns; medians of {ROUNDS}, in turns. *Error*: ‖K̂ − K‖/‖K‖ of that sketch.
*A row*: bytes of a sketch, uncompressed. Recording: the training loop as a multiple of the bare one, with
`--updates none` alone and with `--sketch {RECORDED}` too, in turns; and the rows that were sketched: fewer
than the logarithmic scale has, where the process that sketches gave way to training.
"""


def timed(run: partial[torch.Tensor]) -> tuple[float, torch.Tensor]:
    start = time.process_time()
    value = run()
    return time.process_time() - start, value


def measure_case(label: str, found: Network, examples: int, rounds: int) -> list[str]:
    """A row of the first table."""
    print(f"sketches: {label}", file=sys.stderr)
    torch.manual_seed(1)
    inputs = [found.draw(examples)]
    jacobian = found.jacobian()
    numbers = {name: place for place, name in enumerate(jacobian.names)}
    block = partial(jacobian.block, inputs, inputs)
    sketches = [partial(jacobian.sketch, inputs, Signs(0, columns, numbers)) for columns in COLUMNS]
    jacobian.block([inputs[0][:2]], [inputs[0][:2]])  # the plan, made once
    exact: list[float] = []
    taken: list[list[float]] = [[] for _ in COLUMNS]
    errors = [0.0 for _ in COLUMNS]
    for _ in range(rounds):
        seconds, K = timed(block)
        exact.append(seconds)
        for place, sketch in enumerate(sketches):
            seconds, phi = timed(sketch)
            taken[place].append(seconds)
            errors[place] = float((torch.tensordot(phi, phi, ([2], [2])) - K).norm() / K.norm())
    times = (f"{median(seconds):.2f}" for seconds in taken)
    size = examples * found.outputs * RECORDED * 4
    return [
        label,
        f"{found.size:,}",
        f"{median(exact):.2f}",
        *(cell for pair in zip(times, (f"{error:.3f}" for error in errors), strict=True) for cell in pair),
        f"{size / 1e6:.1f} MB",
    ]


def measure_recording(workload: str, scale: float, rounds: int) -> list[str]:
    """A row of the second table."""
    steps = max(10, int(scale * STEPS[workload]))
    ratios: dict[str, list[float]] = {"without": [], "with": []}
    sketched, size = 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trace = folder / "trace.zarr"
        probe = str(write_probe(folder, workload))
        for _ in range(rounds):
            print(f"sketches: {workload}, recorded", file=sys.stderr)
            bare = train(folder, workload, steps).step
            for kind in ratios:
                more = ["--sketch", str(RECORDED)] if kind == "with" else []
                prefix = recorder(trace, "--probe", probe, "--updates", "none", *more)
                run = train(folder, workload, steps, prefix=prefix, trace=trace)
                ratios[kind].append(run.step / bare)
            sketched = int(open_trace(trace).facts["recorder"]["sketched"])
            size = disk_size(trace)
    return [
        f"{workload}, {OPTIMIZERS[workload]}",
        *(f"{median(found):.2f}" for found in ratios.values()),
        f"{sketched:,}",
        f"{size / 1e6:.0f} MB",
    ]


def measure(quick: bool) -> Section:
    rounds = 1 if quick else ROUNDS
    cases = [
        measure_case(label, network(make, normals(*shape)), 32 if quick else PROBES, rounds)
        for label, make, shape in (CASES[:2] if quick else CASES)
    ]
    runs = [
        measure_recording(workload, 0.1 if quick else 1.0, rounds)
        for workload in (["mlp"] if quick else STEPS)
    ]
    head = ["network", "parameters", "exact"]
    head += [cell for columns in COLUMNS for cell in (f"K = {columns}", "error")]
    return Section(
        "sketches",
        "Sketches of the tangent kernel",
        TEXT,
        [
            Table("CPU seconds:", [*head, f"a row at {RECORDED}"], cases),
            Table(
                "Recording, as multiples of the bare step:",
                ["run", "without updates", "and sketched", "rows sketched", "trace"],
                runs,
            ),
        ],
    )


if __name__ == "__main__":
    run_alone(measure, __doc__)
