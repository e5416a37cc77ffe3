"""A run opened for its updates: the rows to look at, its steps, the probe set, and J at the batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tscope_format.errors import MissingDataError, UsageError, clean

from tscope.analyses.layers import layers
from tscope.analyses.telescoping import Options as ProbeChoice
from tscope.analyses.telescoping import choose_probe
from tscope.analyses.updates.probe import Probe
from tscope.kernels import Jacobian
from tscope.optimizers import TrainingSteps, training_functional, training_steps
from tscope.optimizers.groups import Groups
from tscope.program import OutputFunctional, Program
from tscope.replay import Replay, probing, replay_dtype

if TYPE_CHECKING:
    from tscope.analyses.updates.options import Options
    from tscope.probes import ProbeSet
    from tscope.trace import Trace

Tensors = Mapping[str, Tensor]

# The rest of the memory is for what is kept from step to step.
_PASS_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class Run:
    """A run and a probe set.

    Attributes:
        trace: The run.
        program: Its model in the replay's dtype.
        training: The functional of the training outputs.
        held: The probe set as it was given.
        probe: The probe set under the model.
        note: What there is to say on the functional of its outputs.
        dtype: Of the replay.
        first: The first row whose step is looked at.
        last: The last one.
        every: How many rows an interval has.
        stateless: Whether no step depends on earlier ones through the optimizer.
        memory: Bytes that may be used.
    """

    trace: Trace
    program: Program
    training: OutputFunctional
    held: ProbeSet
    probe: Probe
    note: str
    dtype: torch.dtype
    first: int
    last: int
    every: int
    stateless: bool
    memory: float

    def steps(self, start: int, stop: int) -> TrainingSteps:
        """Walk the training steps of the rows start … stop − 1."""
        return training_steps(
            self.trace, self.program, self.training, dtype=self.dtype, start_row=start, stop_row=stop
        )

    def start_of(self, row: int) -> int:
        """Return the row of the state that the interval of a row begins with."""
        return row - 1 - (row - self.first) % self.every

    def ends(self, row: int) -> bool:
        """Whether an interval ends with this row."""
        return row == self.last or (row - self.first) % self.every == self.every - 1

    def state(self, row: int) -> tuple[Tensors, Tensors]:
        """Return (θ, buffers) of a row."""
        _, theta, buffers = next(iter(Replay(self.trace, dtype=self.dtype).at([row])))
        return theta, buffers

    def batch(self, theta: Tensors, buffers: Tensors) -> Jacobian:
        """Return J of the training outputs."""
        names = self.probe.names
        memory = int(_PASS_SHARE * self.memory)
        return Jacobian(self.program, self.training, theta, buffers, wrt=names, memory=memory)

    @property
    def parameters(self) -> int:
        """How many numbers J is over."""
        sizes = {entry.name: entry.size for entry in self.trace.parameters}
        return sum(sizes[name] for name in self.probe.names)


def open_run(trace: Trace, options: Options) -> Run:
    """Open a trace.

    Raises:
        MissingDataError: It has no steps.
        UsageError: The options do not fit it.
        AnalysisError: The run cannot be followed.
    """
    if trace.rows < 2:
        raise MissingDataError(f"{clean(trace.path)} holds no training step; let the run go on")
    first, last = _rows(trace, options)
    dtype = replay_dtype(trace, options.dtype)
    memory = options.max_memory_mb * 1e6
    held = choose_probe(trace, ProbeChoice(probe=options.probe))
    evaluation, _, note = probing(
        trace, held, dtype=dtype, output=options.probe_output, max_bytes=_PASS_SHARE * memory
    )
    program = trace.program().to(dtype)
    used = set(program.parameters)
    floating = [e.name for e in trace.parameters if "float" in e.dtype and e.name in used]
    groups = layers(trace.parameters) if options.layers else {"all": tuple(floating)}
    _, theta, buffers = next(Replay(trace, dtype=dtype).rows(0, 1))
    outputs = evaluation.value(theta, buffers).shape[1]
    probe = Probe(evaluation, groups, tuple(floating), outputs, int(_PASS_SHARE * memory))
    return Run(
        trace=trace,
        program=program,
        training=training_functional(trace, program),
        held=held,
        probe=probe,
        note=note,
        dtype=dtype,
        first=first,
        last=last,
        every=options.every,
        stateless=Groups(trace).stateless,
        memory=memory,
    )


def _rows(trace: Trace, options: Options) -> tuple[int, int]:
    """Return the first and the last row whose step is looked at.

    Raises:
        UsageError: A step was not recorded, or there is none between the two.
    """
    if options.bounds is None:
        return 1, trace.rows - 1
    first, last = (trace.row(step) for step in options.bounds)
    if first < 1 or last < first:
        raise UsageError(
            f"--steps {options.steps}: steps are counted from 1, the first must not be after the last; the "
            f"trace holds steps 1 to {trace.steps[-1]}"
        )
    return first, last


def visited(run: Run, last: int) -> Iterator[Tensor]:
    """Yield the recorded numbers of the training examples of each batch up to a row (slot,)."""
    for row in run.trace.reader.read("batch/example", 1, last + 1):
        found = torch.from_numpy(row.astype("int64"))
        yield found[found >= 0]
