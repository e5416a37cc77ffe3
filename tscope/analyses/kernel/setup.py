"""From a trace to the examples, labels, rows and layers of its kernels, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tscope_format.errors import AnalysisError, MissingDataError, UsageError, clean

from tscope.analyses.effective.setup import held_out
from tscope.analyses.layers import layers
from tscope.optimizers import infer_loss, read_labels, training_functional
from tscope.optimizers.batches import ExampleInputs
from tscope.program import OutputFunctional, Program, evaluate
from tscope.replay import Replay, replay_dtype
from tscope.replay.flat import tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.analyses.kernel.options import Options
    from tscope.probes import ProbeSet
    from tscope.trace import Trace

    Numbers = NDArray[np.int64]

_ROWS = 24  # on the logarithmic scale, beside row 0
_EXAMPLES = 256  # of each set, by default,
_LARGEST = 2048  # and so many rows of the matrix


@dataclass(frozen=True, eq=False)
class Examples:
    """A set of examples under the kernel.

    Attributes:
        numbers: Their numbers in `examples/`, or in the probe set (example,).
        inputs: The model's inputs, each (example, …).
        labels: (example, output) float64; None where they are not known.
    """

    numbers: Numbers
    inputs: tuple[Tensor, ...]
    labels: Tensor | None

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self.numbers)


@dataclass(frozen=True, eq=False)
class Setup:
    """A run, opened for its kernels.

    Attributes:
        program: The model, in the dtype of the analysis.
        functional: The outputs that are taken.
        outputs: C.
        train: Training examples.
        test: Held-out examples; None without any.
        probe: The probe set they are of.
        rows: Where kernels are taken, increasing, row 0 first.
        kept: The rows whose matrix is kept.
        layers: The names of each layer's parameters; all in one without `--layers`.
        dtype: Of the kernels.
        unknown: Why labels are not known, one reason each.
    """

    program: Program
    functional: OutputFunctional
    outputs: int
    train: Examples
    test: Examples | None
    probe: ProbeSet | None
    rows: list[int]
    kept: frozenset[int]
    layers: dict[str, tuple[str, ...]]
    dtype: torch.dtype
    unknown: tuple[str, ...]

    @property
    def sizes(self) -> tuple[int, int]:
        """The rows of the matrix (n·C, m·C)."""
        return self.train.count * self.outputs, 0 if self.test is None else self.test.count * self.outputs


def prepare(trace: Trace, options: Options) -> Setup:
    """Open a trace for its kernels.

    Raises:
        UsageError: The options do not fit the trace.
        AnalysisError: The training examples cannot be evaluated together, or the loss cannot be told although
            it was asked for.
        MissingDataError: There are no training examples, or no step with a preconditioner.
    """
    dtype = replay_dtype(trace, options.dtype)
    program = trace.program().to(dtype)
    rows = _rows(trace, options)
    kept = frozenset(() if options.matrix is None else _asked(trace, options.matrix, options, "matrix"))
    strange = sorted(kept - set(rows))
    if strange:
        raise UsageError(
            f"--matrix: no kernel is taken at step {trace.steps[strange[0]]}; name it in `--at` too, which "
            "chooses the rows"
        )
    inputs = ExampleInputs(trace)
    probe = held_out(trace, options.probe)
    _, theta, buffers = next(Replay(trace, dtype=dtype).rows(0, 1))
    first = taken(trace, inputs, np.arange(1), dtype)
    whole = evaluate(program, training_functional(trace, program), theta, buffers, first).shape[1]
    positions = None
    functional = training_functional(trace, program)
    if options.probe_output not in (None, "full"):
        functional, _ = OutputFunctional.choose(str(options.probe_output), (1, whole), first, None)
        positions = list(functional.index)
    outputs = whole if positions is None else len(positions)
    numbers = drawn("train", "training", inputs.count, options.train, outputs, options.seed)
    known, unknown = _training_labels(trace, options)
    labels = chosen_labels(known, numbers, positions, whole)
    if known is not None and labels is None:
        unknown.append("not every drawn training example has a label for each output")
    train = Examples(numbers, taken(trace, inputs, numbers, dtype), labels)
    test = None
    if probe is not None:
        chosen = drawn("test", "held-out", probe.examples, options.test, outputs, options.seed)
        test = Examples(
            chosen,
            tuple(_cast(tensor(array[chosen], str(array.dtype)), dtype) for array in probe.inputs),
            chosen_labels(probe_labels(probe, whole), chosen, positions, whole),
        )
        if test.labels is None:
            unknown.append(
                f"the probe set {clean(probe.name)} has no labels that fit the model's {whole} outputs"
            )
    elif options.test is not None:
        raise UsageError(
            f"--test {options.test}: the trace holds no held-out examples; give some with `--probe FILE.npz`"
        )
    groups = layers(entry for entry in trace.parameters if entry.name in program.parameters)
    if not options.layers:
        groups = {"all": tuple(name for names in groups.values() for name in names)}
    return Setup(program, functional, outputs, train, test, probe, rows, kept, groups, dtype, tuple(unknown))


def probe_labels(probe: ProbeSet, outputs: int) -> Tensor | None:
    """Return a probe set's labels (example, output) float64: values, or classes as unit vectors.

    None where they are not known, or are of neither kind.
    """
    if probe.target is None:
        return None
    target = np.asarray(probe.target)
    flat = target.reshape(len(target), -1)
    if flat.shape[1] == outputs:
        return torch.from_numpy(flat.astype(np.float64))
    numbered = flat.shape[1] == 1 and target.dtype.kind in "iu"
    if not numbered or flat.min() < 0 or flat.max() >= outputs:
        return None
    return torch.nn.functional.one_hot(torch.from_numpy(flat[:, 0].astype(np.int64)), outputs).double()


def _rows(trace: Trace, options: Options) -> list[int]:
    """Return the rows of the kernels, row 0 first.

    Raises:
        UsageError: A step was not recorded, or none follows it.
        MissingDataError: No step was recorded, whose preconditioner could be taken.
    """
    last = _last(trace, options)
    if last < 0:
        raise MissingDataError(
            f"{clean(trace.path)} holds no training step, so no preconditioner; let the run go on, or "
            "leave out `--preconditioned`"
        )
    if options.at is not None:
        return sorted({0, *_asked(trace, options.at, options, "at")})
    if options.every is not None:
        return sorted({*range(0, last, options.every), last})
    return sorted({0, *np.geomspace(1, last, _ROWS).round().astype(int).tolist()} if last else {0})


def _last(trace: Trace, options: Options) -> int:
    """Return the last row with a kernel: with a preconditioner, a step must follow."""
    return trace.rows - 2 if options.preconditioned else trace.rows - 1


def _asked(trace: Trace, steps: str, options: Options, name: str) -> list[int]:
    """Return the rows of steps that were asked for."""
    last = _last(trace, options)
    found = [last if step == "last" else trace.row(int(step)) for step in steps.split(",")]
    late = [row for row in found if row > last]
    if late:
        raise UsageError(
            f"--{name}: no step follows step {trace.steps[late[0]]}, so it has no preconditioner; the last "
            f"that has one is {trace.steps[last]}"
        )
    return found


def drawn(option: str, what: str, available: int, asked: int | None, outputs: int, seed: int) -> Numbers:
    """Return which examples are taken, in their order.

    Raises:
        UsageError: More were asked for than there are.
        MissingDataError: There are none.
    """
    if available == 0:
        raise MissingDataError(f"the trace holds no {what} examples; record with `--max-examples N`")
    if asked is not None and asked > available:
        raise UsageError(f"--{option} {asked}: there are {available} {what} examples")
    count = min(available, max(1, min(_EXAMPLES, _LARGEST // outputs))) if asked is None else asked
    if count == available:
        return np.arange(available)
    return np.sort(np.random.default_rng(seed).choice(available, count, replace=False)).astype(np.int64)


def taken(trace: Trace, inputs: ExampleInputs, numbers: Numbers, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Return the inputs of training examples, each (example, …).

    Raises:
        AnalysisError: They are not of one shape.
    """
    try:
        return tuple(_cast(value, dtype) for value in inputs.take(torch.from_numpy(numbers)))
    except AnalysisError as error:
        raise AnalysisError(
            "the training examples have different shapes, so they cannot be evaluated together; pad "
            "sequences to one length, or draw others with `--train N --seed S`"
        ) from error


def _training_labels(trace: Trace, options: Options) -> tuple[Tensor | None, list[str]]:
    """Return the labels of all training examples (example, output), or why they are not known."""
    asked = options.loss != "auto" or options.labels is not None
    try:
        loss = infer_loss(
            trace,
            kind=None if options.loss == "auto" else options.loss,
            labels=None if options.labels is None else read_labels(trace, options.labels),
        )
    except (AnalysisError, MissingDataError) as error:
        if asked:
            raise
        return None, [f"the training labels cannot be told ({clean(error)})"]
    return loss.labels, []


def chosen_labels(
    labels: Tensor | None, numbers: Numbers, positions: Sequence[int] | None, outputs: int
) -> Tensor | None:
    """Return the labels of chosen examples and outputs; None if one of them is not known."""
    if labels is None or labels.shape[1] != outputs:
        return None
    found = labels[torch.from_numpy(numbers)]
    found = found if positions is None else found[:, list(positions)]
    return found if bool(torch.isfinite(found).all()) else None


def _cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value
