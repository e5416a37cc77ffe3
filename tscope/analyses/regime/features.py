"""The features of a model: what its last linear layer reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tscope_format.errors import AnalysisError, clean

from tscope.kernels.sites import arguments, find_sites
from tscope.program.derivatives import chunks, real
from tscope.program.graph import Ref

if TYPE_CHECKING:
    from tscope.program import OutputFunctional, Program

    Tensors = Mapping[str, Tensor]


class Features:
    """h(x), the input of the last linear layer in the program.

    Args:
        program: The model.
        functional: The outputs that are taken.

    Attributes:
        layer: The name of that layer.

    Raises:
        AnalysisError: There is none, or it reads the examples themselves.
    """

    def __init__(self, program: Program, functional: OutputFunctional) -> None:
        self._program, self._functional = program, functional
        linear = {
            site.position: (site, operand)
            for site in find_sites(program)[0]
            for operand in site.operands
            if operand.role == "affine" and site.tap < 0
        }
        if not linear:
            raise AnalysisError("the model has no linear layer, so there are no features that one reads")
        self._position = max(linear)
        site, operand = linear[self._position]
        node = program.graph.nodes[self._position]
        value = arguments(node, node.args, node.kwargs)[site.factor]
        name = operand.parameter.rpartition(".")[0] or operand.parameter
        if not isinstance(value, Ref) or value.slot < 1 + len(program.graph.inputs):
            raise AnalysisError(f"the last linear layer, {clean(name)}, reads the inputs, which do not move")
        self.layer, self._slot = clean(name), value.slot

    def at(self, theta: Tensors, buffers: Tensors, inputs: Sequence[Tensor], chunk: int) -> Tensor:
        """Return h (example, …) in float64. One forward pass up to the layer."""
        found = []
        with torch.no_grad():
            for part in chunks(self._program, self._functional, inputs, chunk):
                values = self._program.slots(theta, buffers, part.inputs)
                self._program.run(values, self._program.steps, range(self._position))
                found.append(real(part, values[self._slot]).double())
        return torch.cat(found)
