"""The states of a run at chosen rows, with the preconditioner that the optimizer used next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tscope_format.errors import AnalysisError

from tscope.optimizers import LinearStep, TrainingStep, TrainingSteps, training_functional, training_steps
from tscope.replay import Replay

if TYPE_CHECKING:
    from tscope.program import Program
    from tscope.trace import Trace

    Tensors = Mapping[str, Tensor]

_ANCHOR_ROWS = 256  # a walk that starts anew begins at most so many rows before its first


@dataclass(frozen=True, eq=False)
class KernelState:
    """θ_t, where a kernel is taken.

    Attributes:
        row: t.
        theta: θ_t by parameter name.
        buffers: By name.
        names: The parameters that K is over: those that training moves.
        preconditioner: D by parameter name; None for the identity.
    """

    row: int
    theta: Tensors
    buffers: Tensors
    names: frozenset[str]
    preconditioner: Tensors | None = None


def plain_states(trace: Trace, rows: Sequence[int], dtype: torch.dtype) -> Iterator[KernelState]:
    """Yield the states of increasing rows, up to the first that is not finite.

    J is over the parameters that had `requires_grad` when the run began.
    """
    names = frozenset(entry.name for entry in trace.parameters if entry.requires_grad)
    for row, theta, buffers in Replay(trace, dtype=dtype).at(rows):
        if not _finite(theta):
            return
        yield KernelState(row, theta, buffers, names)


def preconditioned_states(
    trace: Trace, program: Program, rows: Sequence[int], dtype: torch.dtype
) -> Iterator[KernelState]:
    """Yield the states of increasing rows, each with D of the step that left it.

    D = D_out∘D_in is the diagonal that this step's gradient was multiplied with (math.md §2), its learning
    rate and the corrections of its averages apart. It is replayed: a forward and a backward pass over the
    batches of the steps from the first row to the last, or from the anchors before them. J is over the
    parameters that the step moved. A step that the optimizer skipped leaves θ as it was, so the next counts.

    Raises:
        AnalysisError: The run cannot be followed; no step follows a row.
        MissingDataError: The trace lacks steps, batches or output gradients.
    """
    functional = training_functional(trace, program)
    walk: TrainingSteps | None = None
    found: tuple[TrainingStep, LinearStep] | None = None
    for row in rows:
        # Where steps were skipped, the last one found may be the next of this row too.
        if found is None or found[0].row <= row:
            if walk is None or found is None or row - found[0].row > _ANCHOR_ROWS:
                walk = training_steps(trace, program, functional, dtype=dtype, start_row=row + 1)
            found = _next_step(walk, row)
        if found is None:
            if walk is not None and walk.stopped is not None:
                return
            raise AnalysisError(
                f"no step of the optimizer follows step {int(trace.steps[row])}, so there is no "
                "preconditioner; leave it out of `--at`"
            )
        yield _state(row, *found)


def _next_step(walk: TrainingSteps, row: int) -> tuple[TrainingStep, LinearStep] | None:
    """Return the first step after `row` that the optimizer took; None if the walk ends before."""
    for step in walk:
        if step.row > row and step.update is not None:
            return step, step.update
    return None


def _state(row: int, step: TrainingStep, update: LinearStep) -> KernelState:
    diagonal: dict[str, Tensor] | None = None
    if update.d_in is not None or update.d_out is not None:
        diagonal = {name: torch.ones_like(step.theta[name]) for name in update.mu}
        for factor in (update.d_in, update.d_out):
            for name in factor or {}:
                diagonal[name] = diagonal[name] * (factor or {})[name]
    return KernelState(row, step.theta, step.buffers, frozenset(update.mu), diagonal)


def _finite(tensors: Tensors) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in tensors.values())
