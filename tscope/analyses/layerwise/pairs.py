"""Consecutive linear layers and convolutions of a program: those whose weights the loss ties to each other.

In h → z = W₁h + b₁ → a = φ(z) → W₂a the loss depends on the hidden units through both layers. With φ the
identity W₂ᵀ∂L/∂W₂ = ∂L/∂W₁W₁ᵀ + ∂L/∂b₁b₁ᵀ as matrices. With φ a ReLU or a leaky one, so that φ'(z)z = φ(z),
their diagonals are equal, unit by unit. Nothing else may read z or a.

The units of a convolution are its channels: mixing them by any matrix, and their weights in the next layer by
its inverse, leaves the model as it was, also where they are averaged over places or laid out in a row in
between. Maxima over places keep the factors of single channels only, as a ReLU does.
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
# Of channels: over places, each channel for itself.
_MEANS = frozenset(
    f"aten.{name}{dims}d.default" for name in ("avg_pool", "adaptive_avg_pool") for dims in (1, 2, 3)
)
_MAXIMA = frozenset(f"aten.max_pool{dims}d.default" for dims in (1, 2, 3))
_FLATTEN = "aten.flatten.using_ints"


@dataclass(frozen=True)
class Pair:
    """Two consecutive linear layers or convolutions.

    Attributes:
        below: The weight W₁ of the first.
        bias: Its bias; None without one.
        above: The weight W₂ of the second.
        below_flipped: Whether W₁ is held as (input, output).
        above_flipped: Whether W₂ is.
        units: How many hidden units are between them, or channels.
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
        # (unit, …) both: what a unit reads, and what reads it.
        W1 = (W1.T if self.below_flipped else W1).reshape(self.units, -1)
        W2 = (W2 if self.above_flipped else W2.transpose(0, 1)).reshape(self.units, -1)
        b = None if self.bias is None else tensors[self.bias].double()
        if self.linear:
            Q = W2 @ W2.T - W1 @ W1.T
            return Q if b is None else Q - b[:, None] * b
        found = W2.square().sum(1) - W1.square().sum(1)
        return found if b is None else found - b.square()

    def size(self, tensors: Mapping[str, Tensor]) -> float:
        """Return ‖W₁‖² + ‖b₁‖² + ‖W₂‖², to which Q is small or large."""
        return sum(float(tensors[name].double().square().sum()) for name in self.names)


def find_pairs(program: Program) -> tuple[Pair, ...]:
    """Return the consecutive linear layers and convolutions of a program, in its order.

    A layer whose parameters are used a second time is in none, nor is a convolution in groups: its channels
    cannot be mixed.
    """
    sites, other = find_sites(program)
    uses: dict[str, int] = dict.fromkeys(other, 2)
    for site in sites:
        for operand in site.operands:
            uses[operand.parameter] = uses.get(operand.parameter, 0) + 1
    layers = {site.position: site for site in sites if _weight(site) is not None and site.tap < 0}
    nodes = program.graph.nodes
    layers = {place: site for place, site in layers.items() if _groups(nodes[place]) == 1}
    readers = _readers(program)
    found = []
    for position, site in layers.items():
        way = _before(program, position, site, layers, readers)
        pair = None if way is None else _pair(layers[way.below], site, way)
        if pair is not None and all(uses[name] == 1 for name in pair.names):
            found.append(pair)
    return tuple(found)


@dataclass
class _Way:
    """What lies between a layer and the one that it reads.

    Attributes:
        below: The position of the one that is read.
        plain: Whether everything is linear.
        places: Whether something is over places.
        flat: Whether channels and places were laid out in a row.
    """

    below: int = -1
    plain: bool = True
    places: bool = False
    flat: bool = False


def _weight(site: Site) -> Operand | None:
    return next((o for o in site.operands if o.role in ("affine", "convolution")), None)


def _groups(node: Node) -> int:
    return int(arguments(node, node.args, node.kwargs).get("groups", 1))


def _readers(program: Program) -> dict[int, int]:
    """Return how often each slot is read; the output once more."""
    count = {program.graph.output: 1}
    for node in program.graph.nodes:
        for slot in references((node.args, node.kwargs)):
            count[slot] = count.get(slot, 0) + 1
    return count


def _before(
    program: Program, position: int, site: Site, layers: Mapping[int, Site], readers: Mapping[int, int]
) -> _Way | None:
    """Return the way from a layer back to the one that it reads; None if something else is in between."""
    nodes: Sequence[Node] = program.graph.nodes
    first = 1 + len(program.graph.inputs)
    node = nodes[position]
    value = arguments(node, node.args, node.kwargs).get(site.factor)
    way = _Way()
    while isinstance(value, Ref) and readers[value.slot] == 1 and value.slot >= first:
        place = value.slot - first
        if place in layers:
            way.below = place
            return way
        node = nodes[place]
        if node.target in _HOMOGENEOUS:
            way.plain = False
        elif node.target in _MEANS | _MAXIMA:
            way.plain = way.plain and node.target in _MEANS
            way.places = True
        elif node.target == _FLATTEN and node.args[1:] in ((1,), (1, -1)) and not way.places:
            way.flat = True
        elif node.target not in _IDENTITIES:
            break
        value = node.args[0] if node.args else None
    return None


def _pair(below: Site, above: Site, way: _Way) -> Pair | None:
    first, second = _weight(below), _weight(above)
    if first is None or second is None:
        return None
    bias = next((operand for operand in below.operands if operand.role == "broadcast"), None)
    outputs = first.shape[1] if first.flipped else first.shape[0]
    inputs = second.shape[0] if second.flipped else second.shape[1]
    if first.role == "affine":
        fits = second.role == "affine" and not (way.places or way.flat) and outputs == inputs
    elif second.role == "convolution":
        fits = not way.flat and outputs == inputs
    else:
        fits = way.flat and inputs % outputs == 0  # a weight for each place of a channel
    if not fits or (bias is not None and bias.shape != (outputs,)):
        return None
    return Pair(
        below=first.parameter,
        bias=None if bias is None else bias.parameter,
        above=second.parameter,
        below_flipped=first.flipped,
        above_flipped=second.flipped,
        units=outputs,
        linear=way.plain,
    )
