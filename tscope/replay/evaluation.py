"""A probe set under a model: the function whose values and derivatives replay computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tscope.program import OutputFunctional, Program, evaluate, jvp, jvp_layers
from tscope.replay.flat import Tensors

Named = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """f, the outputs of a probe set as a function of parameters and buffers.

    Attributes:
        program: The model.
        functional: What is followed of its output.
        inputs: The probe set's inputs, each (example, …).
        chunk: At most this many examples are in one pass.
    """

    program: Program
    functional: OutputFunctional
    inputs: tuple[Tensor, ...]
    chunk: int

    def value(self, parameters: Named, buffers: Named) -> Tensor:
        """Return f (example, output). One forward pass."""
        return evaluate(self.program, self.functional, parameters, buffers, self.inputs, self.chunk)

    def jvp(self, parameters: Named, tangents: Named, buffers: Named) -> tuple[Tensor, Tensor]:
        """Return f and J·tangents, each (example, output). One forward-mode pass."""
        return jvp(self.program, self.functional, parameters, tangents, buffers, self.inputs, self.chunk)

    def jvp_layers(
        self, parameters: Named, tangents: Named, layers: Sequence[Sequence[str]], buffers: Named
    ) -> tuple[Tensor, Tensor]:
        """Return f (example, output) and J^(l)·tangents of each layer (layer, example, output)."""
        return jvp_layers(
            self.program, self.functional, parameters, tangents, layers, buffers, self.inputs, self.chunk
        )


def difference(after: Named, before: Named) -> Tensors:
    """Return Δθ by name; integer tensors have no tangent and are left out."""
    return {name: value - before[name] for name, value in after.items() if value.is_floating_point()}


def along(before: Named, change: Named, place: float) -> Tensors:
    """Return the parameters at `place` ∈ [0, 1] of the segment that starts at `before`."""
    if place == 0.0:
        return dict(before)
    return {n: torch.add(v, change[n], alpha=place) if n in change else v for n, v in before.items()}
