"""Khatri-Rao sketches of the Jacobian on one probe set, state by state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from tscope_format.dtypes import JSON
from tscope_format.errors import UsageError

from tscope.kernels import Jacobian, Signs
from tscope.program.functional import OutputFunctional
from tscope.record.backlog import State
from tscope.record.model import Model

SEED = 0  # of the signs: the same in every recording, so that sketches of two runs can be compared
_MEMORY = 256 << 20  # of intermediate values


class Sketching:
    """φ (example, output, column) with E[φ(x)·φ(x')] = k(x, x') [math.md §4], at every state that is given.

    Args:
        name: The probe set's name.
        model: The program and its tables.
        inputs: The probe set, each (example, …).
        functional: What is followed of the model's output.
        columns: K.

    Raises:
        UsageError: The outputs that are followed are not the model's own, or not one row for each example.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        inputs: Sequence[torch.Tensor],
        functional: OutputFunctional,
        columns: int,
    ) -> None:
        if functional.target is not None:
            raise UsageError(
                f"a tangent kernel is of the model's outputs, but the {functional.kind} of their targets is "
                "followed; record with `--probe-output full`, or the index of one output"
            )
        if not any(entry.batch for entry in model.program.arguments):
            raise UsageError(
                "a sketch needs one row of the output for each example; the model's output does not depend "
                "on the number of its inputs' rows"
            )
        self.name = name
        self._model = model
        self._inputs = inputs
        self._functional = functional
        self._signs = Signs(SEED, columns, model.trained)

    @property
    def attributes(self) -> Mapping[str, JSON]:
        """What the trace must know to draw the signs again."""
        return {
            "sketch": {"generator": "splitmix64", "seed": self._signs.seed, "columns": self._signs.columns}
        }

    def take(self, state: State) -> torch.Tensor:
        """Return φ at a state, over the parameters that had `requires_grad` when the run began."""
        theta, buffers = self._model.tensors(state)
        wrt = [name for name in self._signs.numbers if theta[name].is_floating_point()]
        jacobian = Jacobian(self._model.program, self._functional, theta, buffers, wrt=wrt, memory=_MEMORY)
        return jacobian.sketch(self._inputs, self._signs)
