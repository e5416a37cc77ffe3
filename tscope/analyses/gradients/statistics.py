"""BatchNorm's statistics for the parameters of each row, in place of those that the run had followed so far.

Running statistics lag behind: at the start they are of no batch at all (mean 0, variance 1). A ResNet-20's
gradients were then 37 times as large as with statistics of its own, after 20 steps 285 times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tscope.analyses.batches import batch_size, in_batches
from tscope.analyses.kernel.setup import drawn, taken
from tscope.averaging import Recalibration
from tscope.optimizers.batches import ExampleInputs

if TYPE_CHECKING:
    from tscope.analyses.gradients.options import Options
    from tscope.analyses.kernel.setup import Setup
    from tscope.analyses.kernel.states import KernelState
    from tscope.trace import Trace

_EXAMPLES = 2048


@dataclass(frozen=True)
class Settled:
    """States with statistics of their own.

    Attributes:
        states: The states.
        examples: Of how many training examples the statistics are; None where there are none to recompute,
            or it is not wanted.
        batch: How many are in a batch.
    """

    states: list[KernelState]
    examples: int | None = None
    batch: int | None = None


def settle(trace: Trace, setup: Setup, options: Options, states: Sequence[KernelState]) -> Settled:
    """Recompute the statistics of every state; one forward pass over the training examples each.

    Raises:
        AnalysisError: They cannot be recomputed.
    """
    recalibration = Recalibration(setup.program) if options.recalibrate else None
    if recalibration is None or not recalibration.layers:
        return Settled([*states])
    inputs = ExampleInputs(trace)
    numbers = drawn("train", "training", inputs.count, min(_EXAMPLES, inputs.count), 1, options.seed)
    given = taken(trace, inputs, numbers, setup.dtype)
    size = batch_size(trace, setup.program)
    found = []
    for state in states:
        batches = in_batches(setup.program, given, size)
        found.append(replace(state, buffers=recalibration(state.theta, state.buffers, batches)))
    return Settled(found, len(numbers), size)
