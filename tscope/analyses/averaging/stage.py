"""The examples that averaged models are measured on, and their loss and accuracy there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tscope_format.errors import AnalysisError, MissingDataError, clean

from tscope.analyses.averaging.scores import Score, score, score_positions
from tscope.analyses.batches import batch_size, in_batches
from tscope.analyses.effective.setup import held_out
from tscope.analyses.kernel.setup import Examples, drawn, taken
from tscope.analyses.target import held_out_labels, read_target
from tscope.averaging import Curvature, Recalibration, State, bend, linearised
from tscope.optimizers import training_functional
from tscope.optimizers.batches import ExampleInputs
from tscope.probes import ProbeSet
from tscope.program import OutputFunctional, Program, evaluate, jvp, output_shape
from tscope.replay import Replay, replay_dtype
from tscope.replay.flat import tensor
from tscope.replay.memory import examples_that_fit

if TYPE_CHECKING:
    from tscope.analyses.averaging.options import Options
    from tscope.optimizers import Positions
    from tscope.optimizers.losses import Kind
    from tscope.trace import Trace

_EXAMPLES = 2048  # of each set, by default,
_LARGEST = 1 << 22  # and so many outputs: 32 MB for each of some 16 models and terms that are held


@dataclass(frozen=True, eq=False)
class Stage:
    """A model with the examples under it.

    Attributes:
        program: The model, in the dtype of the analysis.
        functional: The outputs that are taken.
        kind: The loss.
        positions: Of a label at each position: where they are in the outputs; else None.
        splits: The examples by name: "train", and "test" where there are held-out ones; some may have no
            labels.
        probe: The probe set that the held-out ones are of.
        threshold: The border between the classes of a single output trained on values.
        chunk: At most so many examples are in one pass.
        recalibration: Recomputes BatchNorm's statistics; None where there are none, or it is not wanted.
        batch: How many examples are in one of its batches.
        notes: What is not known of the examples, one line each.
    """

    program: Program
    functional: OutputFunctional
    kind: Kind
    positions: Positions | None
    splits: Mapping[str, Examples]
    probe: ProbeSet | None
    threshold: float | None
    chunk: int
    recalibration: Recalibration | None
    batch: int
    notes: tuple[str, ...]

    @property
    def dtype(self) -> torch.dtype:
        """In which models are evaluated."""
        return self.program.dtype or torch.float32

    def settled(self, state: State) -> State:
        """Return a state with BatchNorm's statistics for its own parameters."""
        if self.recalibration is None:
            return state
        return State(state.theta, self.recalibration(state.theta, state.buffers, self.batches()))

    def batches(self) -> Iterator[tuple[Tensor, ...]]:
        """Yield the inputs of the training examples, in batches of the training run's size."""
        return in_batches(self.program, self.splits["train"].inputs, self.batch)

    def outputs(self, state: State) -> dict[str, Tensor]:
        """Return f (example, output) of each set, as float64."""
        return {
            name: evaluate(
                self.program, self.functional, state.theta, state.buffers, examples.inputs, self.chunk
            ).double()
            for name, examples in self.splits.items()
        }

    def score(self, name: str, outputs: Tensor) -> Score | None:
        """Return loss and accuracy of outputs on one of the sets; None where it has no labels."""
        labels = self.splits[name].labels
        return None if labels is None else self.scored(outputs, labels)

    def scored(self, outputs: Tensor, labels: Tensor) -> Score:
        """Return loss and accuracy of outputs for labels: (example, output), or of positions."""
        if self.positions is not None:
            return score_positions(self.positions, outputs, labels)
        return score(self.kind, outputs, labels, self.threshold)

    def curvature(
        self, origin: State, members: Sequence[State], outputs: Sequence[Mapping[str, Tensor]]
    ) -> _Curvatures:
        """Return the members' curvature terms around `origin`, on each set."""
        found = {}
        pairs = [(i, j) for i in range(len(members)) for j in range(i)]
        ends = {}
        for i, j in pairs:
            plus, minus = bend(origin, members[i], members[j])
            ends[i, j] = self.outputs(self.settled(plus)), self.outputs(self.settled(minus))
        for name, examples in self.splits.items():

            def push(change: Mapping[str, Tensor], inputs: tuple[Tensor, ...] = examples.inputs) -> _Pair:
                theta, buffers = origin.theta, origin.buffers
                return jvp(self.program, self.functional, theta, change, buffers, inputs, self.chunk)

            mine = {pair: (plus[name], minus[name]) for pair, (plus, minus) in ends.items()}
            found[name] = linearised(origin, members, [own[name] for own in outputs], push, mine)
        return found


_Curvatures = dict[str, Curvature]
_Pair = tuple[Tensor, Tensor]


def prepare(trace: Trace, options: Options, others: Sequence[Trace] = ()) -> Stage:
    """Open a trace for averages of its models; held-out examples may be those of other runs.

    Raises:
        UsageError: The options do not fit the trace.
        AnalysisError: The loss cannot be told, the training examples cannot be evaluated together, or
            parameters are complex.
        MissingDataError: There are no training examples, or no labels.
    """
    dtype = replay_dtype(trace, options.dtype)
    unreal = [entry.name for entry in trace.parameters if entry.dtype.startswith("complex")]
    if unreal:
        raise AnalysisError(
            f"{len(unreal)} parameters are complex, such as {clean(unreal[0])}: only real ones are averaged"
        )
    program = trace.program().to(dtype)
    functional = training_functional(trace, program)
    inputs = ExampleInputs(trace)
    _, theta, buffers = next(Replay(trace, dtype=dtype).at([0]))
    shape = output_shape(program, theta, buffers, taken(trace, inputs, np.arange(1), dtype))
    target = read_target(trace, options, shape)
    notes = list(target.notes)
    most = max(1, min(_EXAMPLES, _LARGEST // math.prod(shape)))
    count = min(most, inputs.count) if options.train is None else options.train
    numbers = drawn("train", "training", inputs.count, count, 1, options.seed)
    given = taken(trace, inputs, numbers, dtype)
    labels = target.training(numbers, math.prod(shape))
    if target.labels is not None and labels is None:
        notes.append("not every drawn training example has a label for each output: no loss on them")
    splits = {"train": Examples(numbers, given, labels)}
    positions = target.positions
    found = (held_out(own, options.probe) for own in (trace, *others))
    probe = next((held for held in found if held is not None), None)
    if probe is not None:
        held = _held(probe, options, most, dtype)
        positions, labels, told = held_out_labels(target, probe, held, splits["train"], shape)
        splits["test"] = replace(held, labels=labels)
        notes += told
        if labels is None:
            notes.append(
                f"the probe set {clean(probe.name)} has no labels that fit the model's "
                f"{' × '.join(map(str, shape))} outputs: no loss on held-out examples"
            )
    elif options.test is not None:
        raise MissingDataError(
            f"--test {options.test}: {clean(trace.path)} holds no held-out examples; give some with `--probe "
            "FILE.npz` (x, y)"
        )
    else:
        notes.append("no held-out examples: give some with `--probe FILE.npz`")
    if all(examples.labels is None for examples in splits.values()):
        raise MissingDataError(
            f"{clean(trace.path)}: neither training nor held-out examples have labels, so there is no loss "
            "to compare; give them with `--labels FILE.npz` or `--probe FILE.npz` (x, y)"
        )

    def run(count: int) -> Tensor:
        return evaluate(program, functional, theta, buffers, [value[:count] for value in given])

    recalibration = Recalibration(program) if options.recalibrate else None
    if recalibration is not None and not recalibration.layers:
        recalibration = None
    return Stage(
        program,
        functional,
        target.kind,
        positions,
        splits,
        probe,
        options.threshold,
        examples_that_fit(run, len(numbers), options.max_memory_mb * 1e6),
        recalibration,
        batch_size(trace, program),
        tuple(notes),
    )


def _held(probe: ProbeSet, options: Options, most: int, dtype: torch.dtype) -> Examples:
    """Return the drawn examples of a probe set, without labels."""
    count = min(most, probe.examples) if options.test is None else options.test
    numbers = drawn("test", "held-out", probe.examples, count, 1, options.seed)
    inputs = []
    for array in probe.inputs:
        value = tensor(array[numbers], str(array.dtype))
        inputs.append(value.to(dtype) if value.is_floating_point() else value)
    return Examples(numbers, tuple(inputs), None)
