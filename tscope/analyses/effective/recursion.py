"""One pass over a run: the smoother S_t on label directions W, and what must be known beside it.

    R_t = H_t S_{t−1}[b]W + N_t W_b,   F_t = F_{t−1} + J_tΔ_t

with Δ_t by the optimizer's rule (math.md §2–3); S_0 = 0. W is the whole basis (exact) or random (probes).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tscope.analyses.effective.columns import Columns, FormError
from tscope.analyses.effective.forms import Block, Form, KernelForm, ParameterForm, Residuals, State
from tscope.analyses.effective.rollouts import COUNT, Rollouts

if TYPE_CHECKING:
    from torch import Tensor

    from tscope.analyses.effective.checks import Checks
    from tscope.analyses.effective.points import Jacobian, Points
    from tscope.optimizers import LinearStep, Loss, TrainingStep

    Tensors = Mapping[str, Tensor]

_LARGEST = 1e150


@dataclass(frozen=True, eq=False)
class Problem:
    """A run, ready to be walked any number of times.

    Attributes:
        points: The evaluation points.
        loss: The training loss and its labels.
        rows: The rows to keep, increasing; the first is 0.
        steps: The training steps of the rows 1, 2, …, from the start each time.
        states: θ and buffers at given increasing rows.
        jacobian: J at θ and buffers, over some parameters.
        outputs: f at every point (point, output) for θ and buffers.
        frozen: Weight decay acts on the recorded parameters.
        dtype: Of the replay.
        memory: Bytes that the recursion may take.
        chosen: Rows, of those kept, at which S itself is wanted.
    """

    points: Points
    loss: Loss
    rows: Sequence[int]
    steps: Callable[[], Iterator[TrainingStep]]
    states: Callable[[Sequence[int]], Iterator[tuple[int, Tensors, Tensors]]]
    jacobian: Callable[[Tensors, Tensors, Collection[str]], Jacobian]
    outputs: Callable[[Tensors, Tensors], Tensor]
    frozen: bool
    dtype: torch.dtype
    memory: float
    chosen: frozenset[int]

    @property
    def labels(self) -> Tensor:
        """The labels of the training points (train, output)."""
        return self.loss.labels[self.points.examples].to(self.dtype)


@dataclass(frozen=True)
class Choice:
    """How a pass is computed.

    Attributes:
        form: "kernel" or "parameter"; probes take the latter, on random columns.
        momentum: M has to be kept.
        decay: Θ has to be kept: decay acts on label-dependent parameters.
        block: At most this many columns are taken at once in parameter space.
    """

    form: str
    momentum: bool = True
    decay: bool = True
    block: int = 64


@dataclass(frozen=True, eq=False)
class Kept:
    """The state at a kept row.

    Attributes:
        row: The row t.
        step: Its optimizer step.
        output: f_θt (point, output).
        state: F_t, without the check's column; valid until the next row is asked for.
    """

    row: int
    step: int
    output: Tensor
    state: State


@dataclass(frozen=True, eq=False)
class Pause:
    """A pass between two steps; it can be continued from here.

    Attributes:
        row: The last row that was done.
        state: F_t, with the check's column.
        memory: What the form remembers, by name.
    """

    row: int
    state: State
    memory: Tensors


def roll(
    problem: Problem,
    W: Tensor,
    choice: Choice,
    perturbation: Tensor,
    checks: Checks | None,
    progress: Callable[[int], None],
    *,
    block: Block | None = None,
    start: Pause | None = None,
    pause: Callable[[Pause], None] | None = None,
) -> Iterator[Kept]:
    """Walk the run once and yield the kept rows, row 0 first.

    It ends before the last row where a value is not finite. Continued from a pause it yields the rows after
    it, with the same bits: the steps before are replayed, which is cheap, but not the columns.

    Args:
        problem: The run.
        W: Label directions (train, output, column).
        choice: The form, and what it keeps.
        perturbation: δ (train, output), the change of labels that checks the smoother.
        checks: What to check on the way; None on a further pass, whose steps were checked before.
        progress: Called with the row after each step.
        block: Gives the kernel's blocks; None to compute each where it is needed.
        start: Where to continue.
        pause: Called after each step, when its row was consumed. What it gets is not copied: it is valid
            until the call returns.

    Raises:
        FormError: A step does not admit the form.
        AnalysisError: A check fails.
    """
    rollouts = Rollouts(problem.loss, problem.labels, perturbation)
    directions = torch.cat([W, perturbation[..., None]], 2)
    done = -1 if start is None else start.row
    states = problem.states([row for row in problem.rows if row > done])
    if start is None:
        _, theta, buffers = next(states)
        first = problem.outputs(theta, buffers)
        smoother = first.new_zeros((*first.shape, directions.shape[2]))
        state = State(smoother, rollouts.start(first), first.clone())
        yield _kept(0, 0, first, state)
    else:
        state = start.state
    form: Form | None = None
    wanted = set(problem.rows)
    for step in problem.steps():
        if form is None:
            form = _form(problem, choice, directions.shape[2], rollouts, step, block)
            if start is not None:
                form.recall(start.memory)
        if step.row <= done:
            continue
        if step.update is not None:
            _advance(problem, state, step, step.update, directions, rollouts, form, choice, checks)
        progress(step.row)
        if step.row in wanted:
            _, theta, buffers = next(states)
            output = problem.outputs(theta, buffers)
            if not (_finite(output) and _finite(state.smoother) and _finite(state.rollouts)):
                return
            if checks is not None:
                expected = state.smoother[..., -1]
                found = rollouts.change(state.rollouts)
                lost = rollouts.cancellation(state.rollouts, expected)
                checks.require_labels(step.step, expected, found, lost)
            yield _kept(step.row, step.step, output, state)
        if pause is not None:
            pause(Pause(step.row, state, form.memory()))


def _advance(
    problem: Problem,
    state: State,
    step: TrainingStep,
    update: LinearStep,
    directions: Tensor,
    rollouts: Rollouts,
    form: Form,
    choice: Choice,
    checks: Checks | None,
) -> None:
    """Take one step of the recursion, in place."""
    loss, rows = problem.loss, problem.points.rows(step.examples)
    if _decays(update) and not (problem.frozen or choice.decay):
        raise FormError("the optimizer took up weight decay", decay=True)
    f = state.rollouts[rows, :, 0]
    H, N = loss.hessian(f, step.sizes), loss.cross(f, step.sizes)
    jacobian = problem.jacobian(step.theta, step.buffers, update.mu.keys())
    if not jacobian.names:
        return  # nothing that the model uses was updated
    adapted: Mapping[str, Tensor]
    if checks is None:
        rest = step.residual.difference
        adapted = {n: step.after[n] - step.theta[n] + rest[n] for n in step.gradient}
    else:
        adapted = checks.adapted(step, update)
    R = Residuals(
        smoother=H @ state.smoother[rows] + N @ directions[rows],
        rollouts=rollouts.residuals(step, rows, state.rollouts[rows]),
        recorded=step.output_grad,
        adapted=adapted,
    )
    before = state.anchored.clone()
    form.advance(state, step, update, jacobian, R)
    if checks is not None:
        checks.step(step, adapted, jacobian, state.anchored - before, loss)


def _form(
    problem: Problem,
    choice: Choice,
    count: int,
    rollouts: Rollouts,
    step: TrainingStep,
    block: Block | None,
) -> Form:
    """Return the form, with nothing in its memory yet; Θ of the rollouts is θ_0."""
    if choice.form == "kernel":
        compute = _compute(problem.points) if block is None else block
        return KernelForm(problem.points, compute, frozen=problem.frozen, tangents=rollouts.tangents)
    names = step.gradient.keys()
    keeps = choice.decay and not problem.frozen
    blocks = []
    for start in range(0, count, choice.block):
        width = min(choice.block, count - start)
        zero = {name: step.theta[name].new_zeros((width, *step.theta[name].shape)) for name in names}
        blocks.append(Columns(width, zero if keeps else None, momentum=choice.momentum))
    moving = {name: rollouts.start(step.theta[name]).movedim(-1, 0) for name in names}
    own = Columns(COUNT, moving if keeps else None, momentum=choice.momentum)
    return ParameterForm(problem.points, blocks, own, frozen=problem.frozen, tangents=rollouts.tangents)


def _compute(points: Points) -> Block:
    """Return the function that computes a kernel block where it is needed."""

    def block(step: TrainingStep, jacobian: Jacobian, D: Tensors | None) -> Tensor:
        return points.block(jacobian, step.inputs, D)

    return block


def _kept(row: int, step: int, output: Tensor, state: State) -> Kept:
    """Leave out the column of the check."""
    return Kept(row, step, output, State(state.smoother[..., :-1], state.rollouts, state.anchored))


def _decays(update: LinearStep) -> bool:
    return any(update.coupled.values()) or any(update.decoupled.values())


def _finite(values: Tensor) -> bool:
    """Tell whether the values are finite, and their squares in float64."""
    return bool((values.abs() < _LARGEST).all())
