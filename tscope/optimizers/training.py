"""A run's training steps once more, with the gradients of every one and what the optimizer made of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tscope_format.errors import AnalysisError, MissingDataError, UsageError, clean

from tscope.optimizers.agreement import Clip, Tolerance, output_difference
from tscope.optimizers.batches import Batch, Batches, ExampleInputs
from tscope.optimizers.groups import Group, Groups
from tscope.optimizers.state import OptimizerState
from tscope.optimizers.step import LinearStep, StepResidual, Tensors, TrainingStep
from tscope.program import OutputFunctional, Program, vjp
from tscope.replay import Replay

if TYPE_CHECKING:
    from tscope.trace import Trace

_BLOCK_ROWS = 1024  # of gradient norms that are read at once
_FOLLOWED = ("float32", "float64")


def training_functional(trace: Trace, program: Program) -> OutputFunctional:
    """Return the functional that gives the outputs as a trace records those of training: all of them, flat.

    Raises:
        AnalysisError: The program gives another of the model's outputs than the recorded one.
    """
    path = trace.reader.attributes.get("output_path")
    if path is not None and path != program.output_path:
        raise AnalysisError(
            f"{clean(trace.path)}: the loss is of the model's output {clean(path)!r}, and the program gives "
            f"{clean(program.output_path)!r}; record again with `--output`"
        )
    return OutputFunctional()


def training_steps(
    trace: Trace,
    program: Program,
    functional: OutputFunctional,
    *,
    dtype: torch.dtype,
    start_row: int = 1,
    stop_row: int | None = None,
) -> TrainingSteps:
    """Walk the training steps of the rows start_row … stop_row − 1.

    A step costs a forward and a backward pass over its batch, and some passes over the parameters; nothing of
    it depends on the number of examples but the memory for their inputs. From another row than the first the
    walk begins at the anchor before it, whose optimizer state was recorded.

    Outputs and gradients are replayed in the run's own precision and by its kernels, whatever `dtype` is: the
    optimizer's state is made of them, and where a gradient nearly cancels over its batch what rounding left
    of it decides D.

    Args:
        trace: The run, at the root that is analysed.
        program: Its model.
        functional: That of `training_functional`.
        dtype: In which the steps are given.
        start_row: The first row; 1 is the first update.
        stop_row: The row after the last; None for the end.

    Raises:
        UsageError: There are no such rows.
        MissingDataError: The trace lacks steps, batches, identities or output gradients.
        AnalysisError: The run cannot be followed: its optimizer has no adapter, something else changed the
            parameters, or a replayed step is not the recorded one. Also while walking.
    """
    return TrainingSteps(trace, program, functional, dtype, start_row, stop_row)


class TrainingSteps(Iterator[TrainingStep]):
    """The iterator over training steps; see `training_steps`.

    Attributes:
        optimizer: The name of the optimizer's class.
        stopped: The step at which the run holds NaN or infinities, and the walk ended; None if it did not.
    """

    def __init__(
        self,
        trace: Trace,
        program: Program,
        functional: OutputFunctional,
        dtype: torch.dtype,
        start_row: int,
        stop_row: int | None,
    ) -> None:
        stop = trace.rows if stop_row is None else stop_row
        if not 1 <= start_row <= stop <= trace.rows:
            raise UsageError(
                f"training steps of the rows {start_row} to {stop - 1} were asked for; the trace holds rows "
                f"1 to {trace.rows - 1}"
            )
        _check_steps(trace, stop)
        self._trace = trace
        self._program = (program if program.dtype is None else trace.program()).as_trained()
        self._functional = functional
        self._dtype = dtype
        self._own = _dtypes(trace)
        # The walk itself loses nothing of the run, nor of what is asked for.
        self._wide = functools.reduce(torch.promote_types, self._own.values(), dtype)
        self._groups = Groups(trace)
        self._batches = Batches(trace, self._wide)
        self._inputs = ExampleInputs(trace)
        self._state = OptimizerState(trace, self._groups)
        self._precisions = _precisions(trace, self._batches)
        self._clip: Clip | None = None
        self.optimizer = self._groups.optimizer
        self.stopped: int | None = None
        self._steps = self._walk(start_row, stop)

    def __next__(self) -> TrainingStep:
        return next(self._steps)

    def _walk(self, start: int, stop: int) -> Iterator[TrainingStep]:
        before = start - 1 if self._groups.stateless else self._state.last_anchor(start - 1)
        if not self._groups.stateless:
            self._state.load(before)
        reader = self._trace.reader
        flags = {name: reader.read(name, 0, stop) for name in ("skipped", "foreign")}
        states = Replay(self._trace, dtype=self._wide).rows(before, stop)
        _, theta, buffers = next(states)
        if not _finite(theta):
            self.stopped = self._step(before)
            return
        rows = zip(states, self._groups.rows(before + 1, stop), strict=True)
        batches = self._batches.rows(before + 1, stop)
        norms = self._norms(before + 1, stop)
        for (row, after, buffers_after), groups in rows:
            if flags["foreign"][row]:
                # Of the whole trace: a walk may end before others, and the message is of the run.
                foreign = reader.read("foreign", 1, self._trace.rows)
                raise AnalysisError(
                    f"step {self._step(row)}: something else than the optimizer changed the parameters "
                    f"before it (and before {int(foreign.sum())} of the {len(foreign)} recorded steps in "
                    "all), so its steps do not add up to the run; take such changes out of the training loop"
                )
            skipped = bool(flags["skipped"][row])
            if not _finite(after):
                self.stopped = self._step(row)
                return
            batch = next(batches)
            if not skipped and not batch.finite:
                self.stopped = self._step(row)
                return
            step = self._replayed(batch, groups, theta, after, buffers, next(norms), skipped)
            if step is None:
                self.stopped = self._step(row)
                return
            if row >= start:
                yield step
            theta, buffers = after, buffers_after

    def _replayed(
        self,
        batch: Batch,
        groups: tuple[Group, ...],
        theta: Tensors,
        after: Tensors,
        buffers: Tensors,
        norms: Mapping[str, float],
        skipped: bool,
    ) -> TrainingStep | None:
        """Return the step; None if its gradient is not finite."""
        step = self._step(batch.row)
        inputs = self._inputs.take(batch.examples)
        cotangent = torch.nan_to_num(batch.output_grad, 0.0, 0.0, 0.0) if skipped else batch.output_grad
        point = self._as_trained(theta)
        output, reached = self._vjp(point, buffers, inputs, cotangent)
        gradient = {
            name: reached.get(name, torch.zeros_like(value))
            for name, value in point.items()
            if value.is_floating_point()
        }
        if not _finite(gradient):
            return None
        limit = Tolerance.of(self._precisions, exact=False).output
        difference = (
            0.0
            if skipped and not batch.finite
            else output_difference(self._program, batch.output, output, limit, step)
        )
        fresh = not (skipped or self._groups.stateless) and self._state.empty
        update: LinearStep | None = None
        change: Mapping[str, Tensor] = {}
        if not skipped:
            if not norms:
                raise AnalysisError(
                    f"step {step}: no gradient norms were recorded, so clipping cannot be told; the trace's "
                    "reports (`tscope info`) say why"
                )
            if self._clip is None:
                self._clip = Clip(self._precisions, self._reach(batch, point, buffers, inputs))
            held = {name for group in groups for name in group.names}
            own = {name: norm for name, norm in norms.items() if name in held}
            if any(math.isinf(norm) for norm in own.values()):
                return None  # squares overflow before the gradient does: the run is about to
            rho = self._clip.factors(own, gradient, batch.output_grad, step, exact=difference == 0)
            update, change = self._state.advance(groups, point, gradient, rho, step)
        relative, off = _residual(change, theta, after)
        self._check_still(off, change, theta, after, skipped=skipped, step=step)
        cast = self._cast
        return TrainingStep(
            row=batch.row,
            step=step,
            theta=cast(theta),
            after=cast(after),
            buffers=cast(buffers),
            examples=batch.examples,
            inputs=inputs,
            output=batch.output.to(self._dtype),
            output_grad=batch.output_grad.to(self._dtype),
            sizes=batch.sizes,
            scales=batch.scales,
            gradient=cast(gradient),
            update=None if update is None else update.to(self._dtype),
            residual=StepResidual(relative, cast(off), difference, fresh, self._state.settle(batch.row)),
        )

    def _vjp(
        self, point: Tensors, buffers: Tensors, inputs: tuple[Tensor, ...], cotangent: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the training outputs, and Jᵀu in the run's own dtypes."""
        held = self._as_trained(buffers)
        output, reached = vjp(self._program, self._functional, point, held, inputs, cotangent)
        return output.to(self._wide), reached

    def _as_trained(self, tensors: Tensors) -> dict[str, Tensor]:
        own = self._own
        return {name: value.to(own[name]) if name in own else value for name, value in tensors.items()}

    def _cast(self, tensors: Tensors) -> dict[str, Tensor]:
        return {n: v.to(self._dtype) if v.is_floating_point() else v for n, v in tensors.items()}

    def _reach(self, batch: Batch, point: Tensors, buffers: Tensors, inputs: tuple[Tensor, ...]) -> float:
        """Return ‖J_bᵀu‖ / ‖u‖ for random signs u (slot, output)."""
        random = torch.Generator().manual_seed(0)
        signs = torch.randint(0, 2, batch.output.shape, generator=random).to(self._wide).mul_(2).sub_(1)
        _, reached = self._vjp(point, buffers, inputs, signs)
        square = sum(float(value.square().sum()) for value in reached.values())
        return math.sqrt(square / signs.numel())

    def _norms(self, start: int, stop: int) -> Iterator[dict[str, float]]:
        """Yield the recorded gradient norms of each row, of the parameters that had a gradient."""
        names = [entry.name for entry in self._trace.reader.parameters]
        for first in range(start, stop, _BLOCK_ROWS):
            block = self._trace.reader.read("grad_norm", first, min(first + _BLOCK_ROWS, stop))
            for norms in block.tolist():
                found = zip(names, norms, strict=True)
                yield {name: norm for name, norm in found if not math.isnan(norm)}

    def _check_still(
        self,
        off: Tensors,
        change: Tensors,
        theta: Tensors,
        after: Tensors,
        *,
        skipped: bool,
        step: int,
    ) -> None:
        """Refuse a change of parameters that this step did not update."""
        moved = [n for n in off if n not in change and not torch.equal(theta[n], after[n])]
        if moved:
            what = "was skipped" if skipped else "has no gradient or learning rate for it"
            raise AnalysisError(
                f"step {step}: {clean(moved[0])} changed although the step {what}; a parameter that joins a "
                "group on the way, or is changed by hand, cannot be followed"
            )

    def _step(self, row: int) -> int:
        return int(self._trace.steps[row])


def _check_steps(trace: Trace, stop: int) -> None:
    """Refuse a trace that lacks steps."""
    gaps = np.flatnonzero(np.diff(trace.steps[:stop]) != 1)
    if len(gaps):
        at = int(gaps[0])
        every = (trace.facts.get("options") or {}).get("every")
        how = f" (it was recorded with --every {every})" if isinstance(every, int) and every > 1 else ""
        raise MissingDataError(
            f"{clean(trace.path)} holds no row between the steps {trace.steps[at]} and {trace.steps[at + 1]}"
            f"{how}; every step is needed: record again with `tscope record --every 1`"
        )


def _dtypes(trace: Trace) -> dict[str, torch.dtype]:
    """Return the dtype of every floating parameter and buffer in the run, by name.

    Raises:
        AnalysisError: A parameter is not real, or of half precision.
    """
    reader = trace.reader
    for entry in reader.parameters:
        if entry.dtype.startswith("complex"):
            raise AnalysisError(
                f"the parameter {clean(entry.name)} is {entry.dtype}; only real parameters can be followed"
            )
        if "float" in entry.dtype and entry.dtype not in _FOLLOWED:
            raise AnalysisError(
                f"the parameter {clean(entry.name)} is {entry.dtype}, whose rounding is as large as most "
                "steps, so whether they are the optimizer's cannot be told; keep parameters in float32"
            )
    entries = [*reader.parameters, *reader.buffers]
    return {entry.name: getattr(torch, entry.dtype) for entry in entries if "float" in entry.dtype}


def _precisions(trace: Trace, batches: Batches) -> set[str]:
    """Return the dtypes that bound how closely the run can be replayed."""
    dtypes = {entry.dtype for entry in trace.reader.parameters if "float" in entry.dtype}
    return dtypes | {batches.gradient_dtype, trace.reader.arrays()["grad_norm"].dtype}


def _residual(change: Tensors, theta: Tensors, after: Tensors) -> tuple[float, dict[str, Tensor]]:
    """Return ‖Δθ_adapter − Δθ‖ / ‖Δθ‖, and the difference by parameter name."""
    off: dict[str, Tensor] = {}
    squares = [0.0, 0.0]
    for name, value in after.items():
        if not value.is_floating_point():
            continue
        recorded = value - theta[name]
        off[name] = change[name].to(recorded.dtype) - recorded if name in change else -recorded
        squares[0] += float(off[name].square().sum())
        squares[1] += float(recorded.square().sum())
    # A step that leads nowhere and should not: the residual is the whole of it.
    whole = squares[1] or squares[0]
    return (math.sqrt(squares[0] / whole) if whole else 0.0), off


def _finite(tensors: Tensors) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in tensors.values() if value.is_floating_point())
