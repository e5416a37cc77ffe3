"""The last linear layer of a program: what it reads, the features h, and its weight W."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tscope_format.errors import AnalysisError, clean

from tscope.kernels.sites import Operand, arguments, find_sites
from tscope.program.derivatives import chunks, real
from tscope.program.graph import Ref, references

if TYPE_CHECKING:
    from tscope.program import OutputFunctional, Program

    Tensors = Mapping[str, Tensor]

_ADDED = "aten.add.Tensor"


@dataclass(frozen=True, eq=False)
class Classifier:
    """f = Wh + b, or what is made of it without parameters.

    Attributes:
        program: The model.
        functional: The outputs that are taken.
        weight: The name of W.
        flipped: Whether it is held as (feature, class).
        position: The node that multiplies with it.
        features: The slot of h.
        width: How many features h has.
    """

    program: Program
    functional: OutputFunctional
    weight: str
    flipped: bool
    position: int
    features: int
    width: int

    @property
    def layer(self) -> str:
        """The name of the layer."""
        return self.weight.rpartition(".")[0] or self.weight

    def matrix(self, theta: Tensors) -> Tensor:
        """Return W (class, feature) in float64."""
        W = theta[self.weight].double()
        return W.T if self.flipped else W

    def evaluate(
        self, theta: Tensors, buffers: Tensors, inputs: Sequence[Tensor], chunk: int
    ) -> tuple[Tensor, Tensor]:
        """Return h (example, feature) and f (example, class). One forward pass.

        Raises:
            AnalysisError: h is not one vector an example.
        """
        features, outputs = [], []
        program = self.program
        with torch.no_grad():
            for part in chunks(program, self.functional, inputs, chunk):
                values = program.slots(theta, buffers, part.inputs)
                program.run(values, program.steps, range(self.position))
                h = values[self.features]
                program.run(values, program.steps, range(self.position, len(program.steps)))
                f = part.functional(values[program.graph.output])
                if h.dim() != 2 or len(h) != len(f):
                    raise AnalysisError(
                        f"the last linear layer, {clean(self.layer)}, reads {tuple(h.shape)} for {len(f)} "
                        "examples; neural collapse needs one vector of features an example, not one at each "
                        "position"
                    )
                features.append(real(part, h))
                outputs.append(real(part, f))
        return torch.cat(features), torch.cat(outputs)


def find_classifier(program: Program, functional: OutputFunctional, outputs: int) -> Classifier:
    """Return the last linear layer on the way to the output.

    Args:
        program: The model.
        functional: The outputs that are taken.
        outputs: C.

    Raises:
        AnalysisError: There is none, or it has not an output for each class.
    """
    if outputs < 2:
        raise AnalysisError(
            "neural collapse needs an output for each class; the model has one, so its classes have no rows "
            "of a last layer to be compared with"
        )
    leads = _leading_to_output(program)
    first = 1 + len(program.graph.inputs)
    linear = {
        site.position: (site, operand)
        for site in find_sites(program)[0]
        for operand in site.operands
        if operand.role == "affine" and site.tap < 0 and site.position + first in leads
    }
    if not linear:
        raise AnalysisError(
            "the model has no linear layer (`Linear`, or a product with a matrix of parameters) on the way "
            "to its output, so there are no features that one reads: neural collapse is not defined"
        )
    position = max(linear)
    site, operand = linear[position]
    later = _used_later(program, position, leads)
    if later is not None:
        raise AnalysisError(
            f"{clean(later)} comes after the last linear layer, {_layer(operand)}: the output is not Wh + b "
            "of that layer's features, and neural collapse is not defined"
        )
    rows, columns = reversed(operand.shape) if operand.flipped else operand.shape
    if rows != outputs:
        raise AnalysisError(
            f"the last linear layer, {_layer(operand)}, has {rows} outputs and the model {outputs}; neural "
            "collapse needs one for each class"
        )
    node = program.graph.nodes[position]
    value = arguments(node, node.args, node.kwargs)[site.factor]
    if not isinstance(value, Ref):
        raise AnalysisError(f"the last linear layer, {_layer(operand)}, reads no value of the model")
    return Classifier(program, functional, operand.parameter, operand.flipped, position, value.slot, columns)


def _leading_to_output(program: Program) -> set[int]:
    """Return the slots that the output depends on."""
    first = 1 + len(program.graph.inputs)
    found = {program.graph.output}
    for place in reversed(range(len(program.graph.nodes))):
        if place + first in found:
            node = program.graph.nodes[place]
            found.update(references((node.args, node.kwargs)))
    return found


def _used_later(program: Program, position: int, leads: Collection[int]) -> str | None:
    """Return a parameter that is used behind a node, but for a bias that is added."""
    inputs = program.graph.inputs
    for place in range(position + 1, len(program.graph.nodes)):
        node = program.graph.nodes[place]
        if place + 1 + len(inputs) not in leads or node.target == _ADDED:
            continue
        for slot in references((node.args, node.kwargs)):
            if 1 <= slot <= len(inputs) and inputs[slot - 1].kind == "parameter":
                return inputs[slot - 1].name
    return None


def _layer(operand: Operand) -> str:
    return clean(operand.parameter.rpartition(".")[0] or operand.parameter)
