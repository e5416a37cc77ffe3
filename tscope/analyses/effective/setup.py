"""From a trace to a problem: its evaluation points, its loss, its steps, and what they need."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tscope_format.errors import AnalysisError, MissingDataError, clean

from tscope.analyses.effective.checks import Checks, Tolerance
from tscope.analyses.effective.directions import Directions
from tscope.analyses.effective.plan import Size, Traits
from tscope.analyses.effective.points import Jacobian, Points
from tscope.analyses.effective.recursion import Problem
from tscope.analyses.telescoping import Options as ProbeChoice
from tscope.analyses.telescoping import choose_probe
from tscope.kernels import Jacobian as KernelJacobian
from tscope.optimizers import TrainingSteps, training_functional, training_steps
from tscope.optimizers.batches import ExampleInputs
from tscope.optimizers.inference import infer_loss
from tscope.optimizers.labels import read_labels
from tscope.program import OutputFunctional, Program, evaluate
from tscope.replay import Replay, replay_dtype
from tscope.replay.flat import tensor
from tscope.replay.memory import examples_that_fit

if TYPE_CHECKING:
    from tscope.analyses.effective.options import Options
    from tscope.probes import ProbeSet
    from tscope.trace import Trace

    Tensors = Mapping[str, Tensor]

# Enough steps to see momentum, which the first step does not show.
_PEEKED = 4
_PASS_BYTES = 512e6


@dataclass(frozen=True, eq=False)
class Setup:
    """A run, opened and understood.

    Attributes:
        problem: What the recursion needs.
        probe: The held-out examples; None without any.
        size: How large it is.
        traits: What the first steps need; later ones may need more.
        directions: The label directions.
        trained: The dtype that the run was trained in, the least precise of its parameters'.
        stored: The dtype of the recorded output gradients and their norms.
        walks: The walks over the run so far, the last one last: they know where the run stopped.
    """

    problem: Problem
    probe: ProbeSet | None
    size: Size
    traits: Traits
    directions: Directions
    trained: torch.dtype
    stored: torch.dtype
    walks: list[TrainingSteps]

    def checks(self) -> Checks:
        """Return the checks of a pass, with nothing in them."""
        tolerance = Tolerance.of(self.trained, self.stored, self.problem.dtype)
        return Checks(self.problem.points, self.trained, tolerance, self.size.steps)


def prepare(trace: Trace, options: Options) -> Setup:
    """Open a trace for the recursion.

    Raises:
        MissingDataError: The trace has no steps, or lacks what they are replayed from.
        AnalysisError: The run cannot be followed.
        UsageError: The options do not fit the trace.
    """
    if trace.rows < 2:
        raise MissingDataError(f"{clean(trace.path)} holds no training step; let the run go on")
    dtype = replay_dtype(trace, options.dtype)
    program = trace.program().to(dtype)
    functional = training_functional(trace, program)
    walks: list[TrainingSteps] = []

    def steps(stop: int | None = None) -> TrainingSteps:
        walks.append(training_steps(trace, program, functional, dtype=dtype, stop_row=stop))
        return walks[-1]

    first = list(islice(steps(min(_PEEKED + 1, trace.rows)), _PEEKED))
    if not first:
        raise AnalysisError(
            f"the run holds NaN or infinite values at step {walks[-1].stopped}; there is no step before it "
            "to analyse"
        )
    loss = infer_loss(
        trace,
        kind=None if options.loss == "auto" else options.loss,
        labels=None if options.labels is None else read_labels(trace, options.labels),
    )
    probe = held_out(trace, options.probe)
    points = _points(trace, probe, options, dtype)
    outputs = first[0].output_grad.shape[1]
    directions = Directions.of(loss, points.counts[0], outputs, dtype)
    trained = trained_in(trace)
    chosen = _chosen(trace, options)
    problem = Problem(
        points=points,
        loss=loss,
        rows=sorted({*range(0, trace.rows - 1, options.every), trace.rows - 1, *chosen}),
        steps=steps,
        states=lambda rows: _states(trace, rows, dtype),
        jacobian=_jacobians(program, functional, min(_PASS_BYTES, options.max_memory_mb * 1e6)),
        outputs=_outputs(program, functional, points),
        frozen=options.decay == "frozen",
        dtype=dtype,
        memory=options.max_memory_mb * 1e6,
        chosen=chosen,
    )
    updates = [step.update for step in first if step.update is not None]
    traits = Traits()
    for update in updates:
        traits |= Traits.of(update)
    size = Size(
        points=points.total,
        outputs=outputs,
        directions=directions.count,
        parameters=sum(first[0].theta[name].numel() for name in program.parameters),
        batch=max(len(step.examples) for step in first),
        steps=trace.rows - 1,
        bytes=torch.empty(0, dtype=dtype).element_size(),
    )
    return Setup(problem, probe, size, traits, directions, trained, stored_in(trace), walks)


def held_out(trace: Trace, asked: str | None) -> ProbeSet | None:
    """Return the held-out examples: those asked for, else the first probe set that is not in-sample.

    Raises:
        UsageError: What was asked for is neither a probe set of the trace nor a good file.
    """
    if asked is not None:
        return choose_probe(trace, ProbeChoice(probe=asked))
    return next((probe for probe in trace.probes.values() if not probe.in_sample), None)


def _chosen(trace: Trace, options: Options) -> frozenset[int]:
    """Return the rows at which the smoother itself is wanted.

    Raises:
        UsageError: A step was not recorded.
    """
    if options.smoother is None:
        return frozenset()
    if options.smoother == "last":
        return frozenset([trace.rows - 1])
    return frozenset(trace.row(int(step)) for step in options.smoother.split(","))


def _points(trace: Trace, probe: ProbeSet | None, options: Options, dtype: torch.dtype) -> Points:
    """Return every training example of the run, and the held-out ones."""
    batches = trace.reader.read("batch/example", 1, trace.rows)
    seen = np.unique(batches)
    examples = torch.from_numpy(seen[seen >= 0].astype(np.int64))
    try:
        train = ExampleInputs(trace).take(examples)
    except AnalysisError as error:
        raise AnalysisError(
            "the training examples have different shapes, so they cannot all be evaluated together; "
            "effective-params needs examples of one shape (pad sequences to one length)"
        ) from error
    test = None
    if probe is not None:
        chosen = _drawn(probe.examples, options)
        test = tuple(_cast(tensor(array[chosen], str(array.dtype)), dtype) for array in probe.inputs)
    return Points(examples, tuple(_cast(value, dtype) for value in train), test)


def _drawn(count: int, options: Options) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return which held-out examples are taken, in their order."""
    if options.test is None or options.test >= count:
        return np.arange(count)
    generator = np.random.default_rng(options.seed)
    return np.sort(generator.choice(count, options.test, replace=False))


def _jacobians(program: Program, functional: OutputFunctional, memory: float) -> Any:
    """Return the function that gives J at a point, over the parameters that the model uses of some names."""

    def jacobian(theta: Tensors, buffers: Tensors, names: Collection[str]) -> Jacobian:
        wrt = [name for name in program.parameters if name in names]
        return KernelJacobian(program, functional, theta, buffers, wrt=wrt, memory=int(memory))

    return jacobian


def _outputs(program: Program, functional: OutputFunctional, points: Points) -> Any:
    """Return the function that evaluates the model at every point."""

    def outputs(theta: Tensors, buffers: Tensors) -> Tensor:
        found = []
        for inputs in points.groups():
            count = len(inputs[0])

            def run(k: int, inputs: tuple[Tensor, ...] = inputs) -> Tensor:
                return evaluate(program, functional, theta, buffers, [value[:k] for value in inputs])

            chunk = examples_that_fit(run, count, _PASS_BYTES)
            found.append(evaluate(program, functional, theta, buffers, inputs, chunk))
        return torch.cat(found)

    return outputs


def _states(trace: Trace, rows: Sequence[int], dtype: torch.dtype) -> Iterator[tuple[int, Tensors, Tensors]]:
    yield from Replay(trace, dtype=dtype).at(rows)


def trained_in(trace: Trace) -> torch.dtype:
    """Return the least precise floating dtype of the parameters."""
    found = {entry.dtype for entry in trace.parameters if "float" in entry.dtype}
    dtypes: list[torch.dtype] = [getattr(torch, name) for name in found]
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)


def stored_in(trace: Trace) -> torch.dtype:
    """Return the least precise dtype of what the optimizer's steps are replayed from."""
    present = trace.reader.arrays()
    names = {present[name].dtype for name in ("batch/output_grad", "grad_norm")}
    return torch.float64 if names == {"float64"} else torch.float32


def _cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value
