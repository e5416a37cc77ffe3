"""The walk back: which training examples moved some predictions, through the gradient and the memory of it.

What gradients made of a prediction over the steps a … b is linear in the gradient of every visit s of every
example i (U₃ of `terms`, D and ρ as recorded):

    Σ_t J_t U₃,t = Σ_s Σ_i (direct_s + later_s)·ρ_s g_si,    g_si = J_s(x_i)ᵀ ∂L/∂f(x_i)
    direct_s = −(a ν D_in + b)∘D_out∘J_s                 by the step itself; 0 before a
    later_s  = ν D_in∘μ_{s+1} Λ_{s+1}                    by what the memory keeps of it
    Λ_t      = −a D_out∘J_t + μ_{t+1} Λ_{t+1}            the adjoint of M_t

so one walk back from b, with Λ for each traced prediction, gives the influences of all training examples at
once, whatever their number. Visits before a count as far as the memory still holds them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from tscope_format.errors import AnalysisError

from tscope.analyses.updates.run import Run
from tscope.optimizers import LinearStep

Tensors = Mapping[str, Tensor]

# J, Λ, the two directions, and what a product of J copies of them: of one parameter, which may be nearly all.
_COPIES = 6
# Shares of the memory for the traced rows and for the steps of a piece of the walk; products have the rest.
_ROWS, _STEPS = 0.3, 0.2
_KEPT = 3  # θ and the diagonals, of each step of a piece


@dataclass(frozen=True, eq=False)
class Visits:
    """What the visits of one interval did to the traced predictions, until the last step.

    Attributes:
        step: The interval's last step.
        example: The most influential training examples (row, rank), by their numbers; −1 where there are
            fewer.
        influence: Theirs (row, rank, output).
    """

    step: int
    example: Tensor
    influence: Tensor


class Influence:
    """What the training examples did to some probe examples.

    Attributes:
        rows: The traced probe examples (row,).
        train: The recorded numbers of all training examples that were visited (train,).
        direct: Influences through the gradient of a visit's own step (row, output, train), float64.
        later: Those through the memory of it, likewise.
        visits: Of each interval, the last one first.
    """

    def __init__(self, rows: Tensor, train: Tensor, outputs: int, top: int) -> None:
        self.rows = rows
        self.train = train
        shape = (len(train), len(rows), outputs)
        self._direct = torch.zeros(shape, dtype=torch.float64)
        self._later = torch.zeros(shape, dtype=torch.float64)
        self._top = top
        self.visits: list[Visits] = []
        self._pending: list[tuple[Tensor, Tensor]] = []

    @property
    def direct(self) -> Tensor:
        """(row, output, train)."""
        return self._direct.permute(1, 2, 0)

    @property
    def later(self) -> Tensor:
        """(row, output, train)."""
        return self._later.permute(1, 2, 0)

    def add(self, examples: Tensor, direct: Tensor, later: Tensor, *, inside: bool) -> None:
        """Take in a step's visits.

        Args:
            examples: (slot,).
            direct: (slot, row, output).
            later: (slot, row, output).
            inside: Whether the step is one of those that are looked at.
        """
        places = torch.searchsorted(self.train, examples)
        self._direct.index_add_(0, places, direct.double())
        self._later.index_add_(0, places, later.double())
        if inside:
            self._pending.append((examples, direct.double() + later.double()))

    def close(self, step: int) -> None:
        """End an interval, whose last step is `step`."""
        example = torch.full((len(self.rows), self._top), -1, dtype=torch.int64)
        influence = torch.zeros(len(self.rows), self._top, self._direct.shape[2], dtype=torch.float64)
        if self._pending:
            examples, slots = torch.unique(torch.cat([e for e, _ in self._pending]), return_inverse=True)
            found = torch.cat([value for _, value in self._pending])
            sums = found.new_zeros(len(examples), *found.shape[1:]).index_add_(0, slots, found)
            sizes = torch.linalg.vector_norm(sums, dim=2)
            order = torch.argsort(sizes, dim=0, descending=True, stable=True)[: self._top]  # (rank, row)
            example[:, : len(order)] = examples[order].T
            chosen = sums.gather(0, order[..., None].expand(-1, -1, sums.shape[2]))
            influence[:, : len(order)] = chosen.transpose(0, 1)
        self.visits.append(Visits(step, example, influence))
        self._pending = []


def rows_that_fit(run: Run) -> int:
    """Return how many probe examples can be traced at once.

    Raises:
        AnalysisError: Not one.
    """
    each = _COPIES * run.parameters * torch.empty(0, dtype=run.dtype).element_size() * run.probe.outputs
    count = int(_ROWS * run.memory / max(1, each))
    if count < 1:
        raise AnalysisError(
            f"tracing one probe example with {run.probe.outputs} outputs takes {each / 1e6:.3g} MB of the "
            f"{_ROWS * run.memory / 1e6:.3g} MB that there are for it; allow more (`--max-memory MB`), "
            "follow fewer outputs (`--probe-output`), or leave it out (`--influence none`)"
        )
    return count


def trace_back(
    run: Run, rows: Tensor, train: Tensor, top: int, last: int, progress: Callable[[], None]
) -> Influence:
    """Return the influences on some probe examples.

    A step costs what its replay costs, one backward pass over its batch, and the products of the examples'
    gradients with one or two columns for each traced prediction; an interval C backward passes over the
    traced examples. The state is Λ, a vector of the parameters' size for each traced prediction.

    Args:
        run: The run.
        rows: The traced probe examples (row,), no more than `rows_that_fit`.
        train: All training examples that were visited, increasing (train,).
        top: How many are named for each interval.
        last: The last row; the run is finite up to there.
        progress: Called after each step.
    """
    found = Influence(rows, train, run.probe.outputs, top)
    adjoint: dict[str, Tensor] = {}
    jacobian: dict[str, Tensor] = {}
    start, interval = -1, -1
    largest = 0.0
    for visit in _backwards(run, last):
        inside = visit.row >= run.first
        if inside and run.start_of(visit.row) != start:
            if start >= 0:
                found.close(interval)
            start, interval = run.start_of(visit.row), visit.step
            # The interval's first step comes last in a walk back; an interval of one step is no walk away.
            here = start == visit.row - 1
            theta, buffers = (visit.theta, visit.buffers) if here else run.state(start)
            jacobian = {}  # the one before is given up first
            jacobian = run.probe.rows(theta, buffers, rows)
        if not inside:
            size = _norm(adjoint)
            largest = max(largest, size)
            # What the memory keeps of a gradient decays; the rest would not be seen in the sum.
            if size <= torch.finfo(run.dtype).eps * largest:
                break
        if visit.update is not None:
            moved = jacobian if inside else {}
            parts = _contracted(run, visit, visit.update, moved, adjoint, len(rows))
            found.add(visit.examples, *parts, inside=inside)
        progress()
    found.close(interval)
    found.visits.reverse()
    return found


@dataclass(frozen=True, eq=False)
class _Visit:
    """What the walk back needs of a training step; the attributes are those of `TrainingStep`."""

    row: int
    step: int
    theta: Tensors
    buffers: Tensors
    examples: Tensor
    inputs: tuple[Tensor, ...]
    output_grad: Tensor
    update: LinearStep | None


def _backwards(run: Run, last: int) -> Iterator[_Visit]:
    """Yield the training steps from a row back to the first that matters."""
    anchors = int(run.trace.reader.attributes.get("anchor_rows", 256))
    each = _KEPT * run.parameters * torch.empty(0, dtype=run.dtype).element_size()
    piece = max(1, int(_STEPS * run.memory / max(1, each)))
    floor = run.first if run.stateless else 1
    stop = last + 1
    while stop > floor:
        # A walk begins at the anchor before its first row anyway.
        start = max(floor, stop - piece, (stop - 2) // anchors * anchors + 1)
        steps = [
            _Visit(s.row, s.step, s.theta, s.buffers, s.examples, s.inputs, s.output_grad, s.update)
            for s in run.steps(start, stop)
        ]
        # None is kept beside those of the next piece.
        while steps:
            yield steps.pop()
        stop = start


def _contracted(
    run: Run, visit: _Visit, update: LinearStep, jacobian: Tensors, adjoint: dict[str, Tensor], rows: int
) -> tuple[Tensor, Tensor]:
    """Return (direct·g, later·g), each (slot, row, output), for the gradients g of the visited examples.

    Λ is taken one step back.
    """
    columns = rows * run.probe.outputs
    shape = (len(visit.examples), rows, run.probe.outputs)
    nothing = visit.output_grad.new_zeros(shape)
    directions, parts = _directions(update, jacobian, adjoint, columns)
    if not directions:
        return nothing, nothing
    batch = run.batch(visit.theta, visit.buffers)
    found = torch.split(batch.contract(visit.inputs, visit.output_grad, directions), columns, 1)
    products = {part: value.reshape(shape) for part, value in zip(parts, found, strict=True)}
    return products.get("direct", nothing), products.get("later", nothing)


def _directions(
    update: LinearStep, jacobian: Tensors, adjoint: dict[str, Tensor], columns: int
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return ρ·direct and ρ·later of a step, and take Λ one step back, in place.

    Args:
        update: What the optimizer made of the step's gradient.
        jacobian: J of the traced predictions (column, …) by parameter name; empty outside of the range.
        adjoint: Λ likewise.
        columns: How many there are.

    Returns:
        The directions (part·column, …) by parameter name, and which parts: direct, later, or both.
    """
    parts = tuple(part for part, there in (("direct", jacobian), ("later", adjoint)) if there)
    found: dict[str, Tensor] = {}
    for name, rho in update.rho.items():
        J, kept = jacobian.get(name), adjoint.pop(name, None)
        like = kept if J is None else J
        if like is None:
            continue
        d_in = 1.0 if update.d_in is None else update.d_in[name]
        d_out = 1.0 if update.d_out is None else update.d_out[name]
        a, b, mu, nu = update.a[name], update.b[name], update.mu[name], update.nu[name]
        # Both are written where they are needed: nothing else of the size of J is made.
        both = found[name] = like.new_zeros(len(parts) * columns, *like.shape[1:])
        if kept is not None:
            torch.mul(kept, nu * rho * d_in, out=both[-columns:])
        if J is not None:
            direct = torch.mul(J, d_out, out=both[:columns])
            if mu and a:
                kept = direct * -a if kept is None else kept.sub_(direct, alpha=a)
            direct.mul_((a * nu * d_in + b) * -rho)
        if mu and kept is not None:
            adjoint[name] = kept.mul_(mu)
    return found, parts


def _norm(tensors: Tensors) -> float:
    squares = (float(torch.linalg.vector_norm(v, dtype=torch.float64)) ** 2 for v in tensors.values())
    return math.sqrt(sum(squares))
