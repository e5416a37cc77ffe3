"""A block of the tangent kernel: layer-wise, by other ways, and what a matrix product of its flops takes."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.networks import Network, block_flops, convolutional, network, normals, perceptron
from benchmarks.report import Section, Table, run_alone
from benchmarks.rivals import DIRECTIONS, JACREV, RIVALS, Rival, jacobians

ROWS, COLUMNS = 2000, 100
REFERENCE = 20  # rows of the float64 reference
ROUNDS = 5  # of the block and the GEMM; the other ways are measured once

TEXT = f"""
CPU seconds of one thread for the block K(I, b) of {ROWS:,} examples against a batch of {COLUMNS}, float32,
medians of {ROUNDS} for the block and the GEMM, in turns; the other ways run once. *GEMM*: one matrix
product that gives a matrix of the block's shape with as many flops as the layers need (forward, backward,
and the cheaper of Gram products and per-example gradients). `vmap(jacrev)`: per-example gradients in
chunks, times those of the batch. curvlinops: its Jacobian operators, J(JᵀI). TRAK, dattri: their CPU
projectors on per-example gradients, {DIRECTIONS:,} random signs drawn once for the rows that were computed.
They estimate the block, so that no number of directions is as accurate as the other ways; *directions for 1
%* is what a relative error of 0.01 in the Frobenius norm would take, by 1/√(directions). Aims: ≥ 50 times
faster than `vmap(jacrev)` on the MLP, within 2 of the GEMM.

Ways that take too long get fewer rows or columns, which the table names, and their time is scaled: what is
done once for the batch by its columns, the rest by rows. curvlinops passes a column at a time, and is
scaled by both.
"""


@dataclass(frozen=True)
class Case:
    """A network, and how many rows and columns of the block the other ways compute."""

    label: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    sizes: Mapping[str, tuple[int, int]]
    preconditioned: bool = False


MLP = partial(perceptron, 784, 200, 200, 1)
CASES = (
    Case(
        "MLP 784-200-200-1",
        MLP,
        (784,),
        {"vmap(jacrev)": (1000, 100), "curvlinops": (200, 100), "TRAK": (400, 100), "dattri": (400, 100)},
    ),
    Case(
        "the same, preconditioned by D",
        MLP,
        (784,),
        {"vmap(jacrev)": (1000, 100), "curvlinops": (200, 100)},
        preconditioned=True,
    ),
    Case(
        "CNN",
        convolutional,
        (1, 28, 28),
        {"vmap(jacrev)": (400, 100), "curvlinops": (50, 100), "TRAK": (400, 100), "dattri": (400, 100)},
    ),
    Case(
        "MLP 784-200-200-10",
        partial(perceptron, 784, 200, 200, 10),
        (784,),
        {"vmap(jacrev)": (50, 100), "curvlinops": (50, 10), "TRAK": (40, 100), "dattri": (40, 100)},
    ),
    Case(
        "MLP 784-2800-2800-1",
        partial(perceptron, 784, 2800, 2800, 1),
        (784,),
        {"vmap(jacrev)": (20, 25), "curvlinops": (100, 10)},
    ),
)


@dataclass(frozen=True)
class Found:
    """What one way took, scaled to the whole block, and how far it is from the reference.

    Attributes:
        largest: Largest error over the block's largest entry.
        frobenius: Relative error in the Frobenius norm.
        size: Rows and columns that were computed.
    """

    seconds: float
    largest: float
    frobenius: float
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Measured:
    """A case's result; of the ways that are installed and not left out."""

    case: Case
    parameters: int
    flops: float
    gemm: float
    ours: Found
    rivals: Mapping[str, Found]


def timed(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
    start = time.process_time()
    value = run()
    return time.process_time() - start, value


def measure_case(case: Case, quick: bool) -> Measured:
    found = network(case.make, normals(*case.shape))
    total = (200, 20) if quick else (ROWS, COLUMNS)
    torch.manual_seed(1)
    rows, columns = found.draw(total[0]), found.draw(total[1])
    # Between 1/2 and 2, so that a square root or a D that is left out shows as an error.
    D = None
    if case.preconditioned:
        D = {name: torch.rand_like(value) * 1.5 + 0.5 for name, value in found.parameters.items()}
    exact = reference(found, rows[:REFERENCE], columns, D)
    c = found.outputs
    flops = block_flops(found, *total, preconditioned=case.preconditioned)
    inner = max(1, round(flops / (2 * total[0] * total[1] * c * c)))
    product = partial(torch.mm, torch.randn(total[0] * c, inner), torch.randn(inner, total[1] * c))
    jacobian = found.jacobian()
    jacobian.block([rows[:10]], [columns[:2]], D)

    def block() -> Tensor:
        return jacobian.block([rows], [columns], D).flatten(2).flatten(0, 1)

    ours: list[Found] = []
    gemm: list[float] = []
    for _ in range(1 if quick else ROUNDS):
        gemm.append(timed(product)[0])
        seconds, K = timed(block)
        ours.append(Found(seconds, *errors(K[: exact.shape[0]], exact), total))
    del product, K
    rivals: dict[str, Found] = {}
    for rival in RIVALS:
        if rival.installed and rival.name in case.sizes:
            print(f"kernels: {case.label}, {rival.name}", file=sys.stderr)
            size = (20, 5) if quick else case.sizes[rival.name]
            inputs = rows[: size[0]], columns[: size[1]]
            rivals[rival.name] = measure_rival(rival, found, *inputs, D, total, exact)
    return Measured(case, found.size, flops, median(gemm), middle(ours), rivals)


def measure_rival(
    rival: Rival,
    found: Network,
    rows: Tensor,
    columns: Tensor,
    D: dict[str, Tensor] | None,
    total: tuple[int, int],
    exact: Tensor,
) -> Found:
    start = time.process_time()
    run = rival.prepare(found, columns, D)
    once = time.process_time() - start
    seconds, K = timed(lambda: run(rows))
    wider, longer = total[1] / len(columns), total[0] / len(rows)
    whole = once * wider + seconds * longer * (wider if rival.by_column else 1)
    c = found.outputs
    height, width = min(len(exact), len(rows) * c), len(columns) * c
    return Found(whole, *errors(K[:height], exact[:height, :width]), (len(rows), len(columns)))


def reference(found: Network, rows: Tensor, columns: Tensor, D: dict[str, Tensor] | None) -> Tensor:
    """The block (row·output, column·output) by `vmap(jacrev)` in float64, some columns at a time."""
    module = copy.deepcopy(found.module).double()
    K = torch.zeros(len(rows) * found.outputs, len(columns) * found.outputs, dtype=torch.float64)
    weights = None if D is None else torch.cat([value.flatten() for value in D.values()]).double()
    left = jacobians(module, rows.double(), 5)
    for k, part in enumerate(columns.double().split(5)):
        right = jacobians(module, part, 5)
        width = 5 * found.outputs
        K[:, k * width : k * width + len(right)] = left @ (right if weights is None else right * weights).T
    return K


def errors(K: Tensor, exact: Tensor) -> tuple[float, float]:
    """The largest error over the largest entry, and the relative error in the Frobenius norm."""
    difference = K.detach().double() - exact
    return float(difference.abs().max() / exact.abs().max()), float(difference.norm() / exact.norm())


def middle(rounds: Sequence[Found]) -> Found:
    """The median time, with the errors of a round; they are all the same up to rounding."""
    first = rounds[0]
    return Found(median(r.seconds for r in rounds), first.largest, first.frobenius, first.size)


def times_row(measured: Measured, total: tuple[int, int]) -> list[str]:
    def cell(rival: Rival) -> str:
        found = measured.rivals.get(rival.name)
        if not rival.installed:
            return "not installed"
        if found is None:
            return "left out"
        scaled = "" if found.size == total else f" ({found.size[0]}x{found.size[1]})"
        return f"{found.seconds / measured.ours.seconds:,.0f}x{scaled}"

    return [
        measured.case.label,
        f"{measured.parameters:,}",
        f"{measured.flops / 1e9:.1f}",
        f"{1e3 * measured.ours.seconds:.0f} ms",
        f"{measured.ours.seconds / measured.gemm:.1f}x",
        *(cell(rival) for rival in RIVALS),
    ]


def errors_row(measured: Measured) -> list[str]:
    def cell(found: Found | None) -> str:
        return "" if found is None else f"{found.largest:.0e}"

    def directions(name: str) -> str:
        found = measured.rivals.get(name)
        return "" if found is None else f"{DIRECTIONS * (found.frobenius / 0.01) ** 2:,.0f}"

    found = [measured.rivals.get(rival.name) for rival in RIVALS]
    return [
        measured.case.label,
        cell(measured.ours),
        *map(cell, found),
        directions("TRAK"),
        directions("dattri"),
    ]


def measure(quick: bool) -> Section:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = [measure_case(case, quick) for case in CASES]
    finally:
        torch.set_num_threads(threads)
    total = found[0].ours.size
    names = [rival.name for rival in RIVALS]
    return Section(
        "kernels",
        "A block of the tangent kernel",
        TEXT,
        [
            Table(
                "The layer-wise block's time, also over the GEMM's, and that of the other ways over it (in "
                "brackets the rows and columns they computed, where not all):",
                ["network", "parameters", "GFLOP", "block", "over GEMM", *names],
                [times_row(measured, total) for measured in found],
            ),
            Table(
                f"Largest error over the largest entry, against {JACREV.name} in float64 ({REFERENCE} rows):",
                ["network", "block", *names, "TRAK: directions for 1 %", "dattri: directions for 1 %"],
                [errors_row(measured) for measured in found],
            ),
        ],
    )


if __name__ == "__main__":
    run_alone(measure, __doc__)
