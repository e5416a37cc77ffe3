"""Consecutive linear layers of a program: those whose weights the loss ties to each other.

In h → z = W₁h + b₁ → a = φ(z) → W₂a the loss depends on the hidden units through both layers. With φ the
identity W₂ᵀ∂L/∂W₂ = ∂L/∂W₁W₁ᵀ + ∂L/∂b₁b₁ᵀ as matrices. With φ a ReLU or a leaky one, so that φ'(z)z = φ(z),
their diagonals are equal, unit by unit. Nothing else may read z or a.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from tscope.kernels.sites import Operand, Site, arguments, find_sites
from tscope.program.graph import Node, Ref, references

if TYPE_CHECKING:
    from tscope.program import Program

_HOMOGENEOUS = frozenset({"aten.relu.default", "aten.relu_.default", "aten.leaky_relu.default"})
# In evaluation mode they leave values as they are.
_IDENTITIES = frozenset(
    {"aten.dropout.default", "aten.clone.default", "aten.contiguous.default", "aten.alias.default"}
)


@dataclass(frozen=True)
class Pair:
    """Two consecutive linear layers.

    Attributes:
        below: The weight W₁ of the first.
        bias: Its bias; None without one.
        above: The weight W₂ of the second.
        below_flipped: Whether W₁ is held as (input, output).
        above_flipped: Whether W₂ is.
        units: How many hidden units are between them.
        linear: Whether nothing is between them; else a ReLU, and only the diagonal of Q counts.
    """

    below: str
    bias: str | None
    above: str
    below_flipped: bool
    above_flipped: bool
    units: int
    linear: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that take part."""
        return (self.below, self.above) if self.bias is None else (self.below, self.bias, self.above)

    def __str__(self) -> str:
        first, second = (name.rpartition(".")[0] or name for name in (self.below, self.above))
        return f"{first} → {second}"

    def balance(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return W₂ᵀW₂ − W₁W₁ᵀ − b₁b₁ᵀ of parameters, or of their gradients (unit, unit), in float64.

        Behind a ReLU its diagonal alone (unit,).
        """
        W1, W2 = tensors[self.below].double(), tensors[self.above].double()
        W1 = W1.T if self.below_flipped else W1
        W2 = W2.T if self.above_flipped else W2
        b = None if self.bias is None else tensors[self.bias].double()
        if self.linear:
            Q = W2.T @ W2 - W1 @ W1.T
            return Q if b is None else Q - b[:, None] * b
        found = W2.square().sum(0) - W1.square().sum(1)
        return found if b is None else found - b.square()

    def size(self, tensors: Mapping[str, Tensor]) -> float:
        """Return ‖W₁‖² + ‖b₁‖² + ‖W₂‖², to which Q is small or large."""
        return sum(float(tensors[name].double().square().sum()) for name in self.names)


def find_pairs(program: Program) -> tuple[Pair, ...]:
    """Return the consecutive linear layers of a program, in its order.

    A layer whose parameters are used a second time is in none.
    """
    sites, other = find_sites(program)
    uses: dict[str, int] = dict.fromkeys(other, 2)
    for site in sites:
        for operand in site.operands:
            uses[operand.parameter] = uses.get(operand.parameter, 0) + 1
    linear = {site.position: site for site in sites if _weight(site) is not None and site.tap < 0}
    readers = _readers(program)
    found = []
    for position, site in linear.items():
        below, plain = _before(program, position, site, linear, readers)
        if below is None:
            continue
        pair = _pair(linear[below], site, plain=plain)
        if pair is not None and all(uses[name] == 1 for name in pair.names):
            found.append(pair)
    return tuple(found)


def _weight(site: Site) -> Operand | None:
    return next((operand for operand in site.operands if operand.role == "affine"), None)


def _readers(program: Program) -> dict[int, int]:
    """Return how often each slot is read; the output once more."""
    count = {program.graph.output: 1}
    for node in program.graph.nodes:
        for slot in references((node.args, node.kwargs)):
            count[slot] = count.get(slot, 0) + 1
    return count


def _before(
    program: Program, position: int, site: Site, linear: Mapping[int, Site], readers: Mapping[int, int]
) -> tuple[int | None, bool]:
    """Return the position of the linear layer that a layer reads, and whether nothing is in between."""
    nodes: Sequence[Node] = program.graph.nodes
    first = 1 + len(program.graph.inputs)
    node = nodes[position]
    value = arguments(node, node.args, node.kwargs).get(site.factor)
    plain = True
    while isinstance(value, Ref) and readers[value.slot] == 1 and value.slot >= first:
        place = value.slot - first
        if place in linear:
            return place, plain
        node = nodes[place]
        if node.target in _HOMOGENEOUS:
            plain = False
        elif node.target not in _IDENTITIES:
            break
        value = node.args[0] if node.args else None
    return None, plain


def _pair(below: Site, above: Site, *, plain: bool) -> Pair | None:
    first, second = _weight(below), _weight(above)
    if first is None or second is None:
        return None
    bias = next((operand for operand in below.operands if operand.role == "broadcast"), None)
    outputs = first.shape[1] if first.flipped else first.shape[0]
    inputs = second.shape[0] if second.flipped else second.shape[1]
    if outputs != inputs or (bias is not None and bias.shape != (outputs,)):
        return None
    return Pair(
        below=first.parameter,
        bias=None if bias is None else bias.parameter,
        above=second.parameter,
        below_flipped=first.flipped,
        above_flipped=second.flipped,
        units=outputs,
        linear=plain,
    )
