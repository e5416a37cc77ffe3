"""A linear network as a chain of weight matrices: f(x) = W_L … W_1 x."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tscope_format.errors import AnalysisError, clean

from tscope.kernels.sites import find_sites

if TYPE_CHECKING:
    from tscope.program import Program

    Tensors = Mapping[str, Tensor]

_LINEAR = frozenset({"aten.linear.default", "aten.mm.default", "aten.matmul.default"})
# These change how values are held, or in evaluation mode nothing.
_HELD = frozenset(
    {
        "aten.t.default",
        "aten.numpy_T.default",
        "aten.mT.default",
        "aten.dropout.default",
        "aten.clone.default",
        "aten.contiguous.default",
        "aten.alias.default",
    }
)
_AGREES = 1e-4  # of the outputs' size: float32 through several layers


@dataclass(frozen=True)
class Chain:
    """The weights of a linear network, the first that is applied first.

    Attributes:
        names: Their names.
        flipped: Whether each is held as (input, output).
    """

    names: tuple[str, ...]
    flipped: tuple[bool, ...]

    def matrices(self, theta: Tensors) -> list[Tensor]:
        """Return W_1 … W_L, each (output, input), in float64."""
        found = []
        for name, flipped in zip(self.names, self.flipped, strict=True):
            W = theta[name].double()
            found.append(W.T if flipped else W)
        return found

    def product(self, theta: Tensors) -> Tensor:
        """Return W_L … W_1 (output, input)."""
        first, *later = self.matrices(theta)
        for W in later:
            first = W @ first
        return first


def find_chain(program: Program) -> Chain:
    """Return the chain of a linear network.

    Raises:
        AnalysisError: The model is none; the message names what in it is not linear.
    """
    for node in program.graph.nodes:
        if node.target not in _LINEAR | _HELD:
            raise AnalysisError(
                f"the model is not a linear network: it holds {clean(node.target)}; singular modes and their "
                "closed forms are those of f(x) = W_L … W_1 x"
            )
    sites, other = find_sites(program)
    weights = [site.operands[0] for site in sites if site.operands and site.operands[0].role == "affine"]
    names = [operand.parameter for operand in weights]
    beside = sorted((set(program.parameters) | other) - set(names))
    if beside or not names or len(set(names)) < len(names):
        what = f"it also uses {clean(beside[0])}" if beside else "its weights are not a chain"
        raise AnalysisError(
            f"the model is not a chain of weight matrices: {what}; singular modes and their closed forms are "
            "those of f(x) = W_L … W_1 x, without biases"
        )
    return Chain(tuple(names), tuple(operand.flipped for operand in weights))


def check_chain(chain: Chain, program: Program, theta: Tensors, inputs: Sequence[Tensor]) -> None:
    """Refuse a chain whose product is not the model: branches, several inputs, positions.

    Raises:
        AnalysisError: It is not.
    """
    shapes = [tuple(W.shape) for W in chain.matrices(theta)]
    fits = all(before[0] == after[1] for before, after in pairwise(shapes))
    if len(inputs) == 1 and inputs[0].dim() == 2 and fits and shapes[0][1] == inputs[0].shape[1]:
        with torch.no_grad():
            f = program(theta, {}, inputs).double()
        own = inputs[0].double() @ chain.product(theta).T
        if f.shape == own.shape and float((f - own).norm()) <= _AGREES * float(own.norm() + 1e-300):
            return
    raise AnalysisError(
        "the model is not a chain of weight matrices: their product is not its output; singular modes and "
        "their closed forms are those of f(x) = W_L … W_1 x of one vector x"
    )
