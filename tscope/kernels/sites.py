"""Where a program uses its parameters: the nodes through which each one enters, found in the graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tscope.kernels import recurrent
from tscope.program.graph import Graph, Node, Ref, references
from tscope.program.program import Program
from tscope.program.whitelist import SIZES

# The argument that each kind of node multiplies its weight with, the weight, and the bias.
_LINEAR = {"aten.linear.default": ("input", "weight", "bias")}
_MATMUL = {
    "aten.matmul.default": ("self", "other", ""),
    "aten.mm.default": ("self", "mat2", ""),
    "aten.addmm.default": ("mat1", "mat2", "self"),
}
_CONVOLUTION = {
    f"aten.{name}": ("input", "weight", "bias")
    for name in (
        *(f"conv{d}d.{overload}" for d in (1, 2, 3) for overload in ("default", "padding")),
        "convolution.default",
    )
}
_LOOKUP = {"aten.embedding.default": ("indices", "weight", "")}
# Weights of the last dimensions, and of the channels (dimension 1).
_LAST = {
    "aten.layer_norm.default": ("input", "weight", "bias"),
    "aten.native_layer_norm.default": ("input", "weight", "bias"),
    "aten.rms_norm.default": ("input", "weight", ""),
    "aten._fused_rms_norm.default": ("input", "weight", ""),
}
_CHANNELS = {
    f"aten.{name}.default": ("input", "weight", "bias")
    for name in (
        *("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training", "instance_norm"),
        *("group_norm", "native_group_norm"),
    )
}
# Elementwise operands that broadcast; the number is the sign of the second.
_SUMS = {"aten.add.Tensor": 1.0, "aten.sub.Tensor": -1.0}
_PRODUCTS = frozenset({"aten.mul.Tensor", "aten.multiply.Tensor"})
_EXPANSIONS = frozenset({"aten.expand.default", "aten.broadcast_to.default"})
_TRANSPOSES = frozenset({"aten.t.default", "aten.numpy_T.default", "aten.mT.default", "aten.adjoint.default"})
_AXES = frozenset({"aten.transpose.int", "aten.permute.default"})

_SIZE_NODES = ("aten.sym_size", "aten.size", "aten.sym_numel", "aten.numel", "aten.sym_stride")


@dataclass(frozen=True)
class Operand:
    """A parameter in one argument of one node.

    Attributes:
        parameter: its name.
        role: how the node uses it.
        argument: the argument it is in, by the schema's name.
        shape: the parameter's shape.
        flipped: whether a linear map's weight is held as (input, output).
    """

    parameter: str
    role: str  # "affine", "convolution", "lookup", "broadcast"
    argument: str
    shape: tuple[int, ...]
    flipped: bool = False


@dataclass(frozen=True)
class Site:
    """A node whose output depends linearly on parameters in its arguments.

    Attributes:
        position: of the node.
        operands: the parameters, the weight before the bias.
        aligned: "last" or "channel": which dimensions of the output a broadcast operand lies along.
        factor: the argument that is multiplied with the operand, or "" for none ("input" of a linear
            layer, whose bias ignores it).
        data: whether the output depends on the examples' inputs.
        dims: dimensions of the weight; a convolution's input has as many.
        tap: which of the node's inner values stands for its output; -1 if it has none (recurrent).
    """

    position: int
    operands: tuple[Operand, ...]
    aligned: str
    factor: str
    data: bool
    dims: int = 0
    tap: int = -1


def find_sites(program: Program) -> tuple[list[Site], set[str]]:
    """Return the sites, and the parameters that are used in any way beside them.

    A parameter in the second set needs its Jacobian by differentiation of the whole program.
    """
    graph = program.graph
    aliases = _aliases(graph)
    data = _data(graph)
    sites: list[Site] = []
    other: set[str] = set()
    if graph.output in aliases:
        other.add(aliases[graph.output][0].name)
    first = 1 + len(graph.inputs)
    for position, node in enumerate(graph.nodes):
        used = [aliases[slot][0].name for slot in references((node.args, node.kwargs)) if slot in aliases]
        if not used or first + position in aliases:
            continue
        for site in _sites(node, position, aliases, first + position in data):
            sites.append(site)
            for operand in site.operands:
                used.remove(operand.parameter)
        other.update(used)
    return sites, other


def arguments(node: Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a node by their names in the operator's schema, defaults included."""
    schema = node.function._schema.arguments  # type: ignore[attr-defined]
    found = {a.name: a.default_value for a in schema if a.has_default_value()}
    positional = [a.name for a in schema if not a.kwarg_only]
    return found | dict(zip(positional, args, strict=False)) | dict(kwargs)


@dataclass(frozen=True)
class _Parameter:
    name: str
    shape: tuple[int, ...]


Aliases = dict[int, tuple[_Parameter, bool]]


def _aliases(graph: Graph) -> Aliases:
    """Return the slots that hold a parameter, or a matrix's transpose (True)."""
    found: Aliases = {
        slot: (_Parameter(entry.name, entry.shape), False)
        for slot, entry in enumerate(graph.inputs, 1)
        if entry.kind == "parameter"
    }
    for slot, node in enumerate(graph.nodes, 1 + len(graph.inputs)):
        source = node.args[0] if node.args else None
        if not isinstance(source, Ref) or source.slot not in found:
            continue
        parameter, transposed = found[source.slot]
        if len(parameter.shape) == 2 and _transposes(node):
            found[slot] = (parameter, not transposed)
    return found


def _transposes(node: Node) -> bool:
    if node.target in _TRANSPOSES:
        return True
    if node.target not in _AXES:
        return False
    axes = node.args[1] if node.target == "aten.permute.default" else node.args[1:]
    if not all(isinstance(axis, int) for axis in axes):
        return False
    normal = [axis % 2 for axis in axes]
    return normal == [1, 0] or (node.target == "aten.transpose.int" and normal == [0, 1])


def _data(graph: Graph) -> set[int]:
    """Return the slots whose values depend on the examples; sizes of them do not count."""
    found = {slot for slot, entry in enumerate(graph.inputs, 1) if entry.kind == "user" and entry.batch}
    for slot, node in enumerate(graph.nodes, 1 + len(graph.inputs)):
        if node.target in SIZES or node.target.startswith(_SIZE_NODES):
            continue
        if any(source in found for source in references((node.args, node.kwargs))):
            found.add(slot)
    return found


def _sites(node: Node, position: int, aliases: Aliases, data: bool) -> list[Site]:
    if node.target in recurrent.STEPS:
        return _recurrent(node, position, aliases, data)
    site = _site(node, position, aliases, data)
    return [] if site is None else [site]


def _recurrent(node: Node, position: int, aliases: Aliases, data: bool) -> list[Site]:
    """Return a site for the inputs and one for the hidden states of each direction of each layer."""
    maps = recurrent.weights(arguments(node, node.args, node.kwargs))
    sites = []
    for tap, values in enumerate(maps or []):
        operands = []
        for role, value in zip(("affine", "broadcast"), values, strict=False):
            parameter, transposed = aliases.get(value.slot, (None, False))
            if parameter is not None and not transposed:
                operands.append(Operand(parameter.name, role, "params", parameter.shape))
        if operands:
            sites.append(Site(position, tuple(operands), "last", "input", data, tap=tap))
    return sites


def _site(node: Node, position: int, aliases: Aliases, data: bool) -> Site | None:
    given = arguments(node, node.args, node.kwargs)

    def operand(argument: str, role: str, flipped: bool = False) -> Iterator[Operand]:
        value = given.get(argument)
        if isinstance(value, Ref) and value.slot in aliases:
            parameter, transposed = aliases[value.slot]
            if role in ("affine", "lookup", "convolution") or not transposed:
                yield Operand(parameter.name, role, argument, parameter.shape, flipped != transposed)

    target = node.target
    if target in _LINEAR or target in _MATMUL:
        x, weight, bias = (_LINEAR | _MATMUL)[target]
        if given.get("alpha", 1) != 1 or given.get("beta", 1) != 1:
            return None
        weights = [o for o in operand(weight, "affine", target in _MATMUL) if len(o.shape) == 2]
        biases = operand(bias, "broadcast")
        return _made(position, [*weights, *biases], "last", x, data)
    if target in _CONVOLUTION:
        if given.get("transposed", False):
            return None
        x, weight, bias = _CONVOLUTION[target]
        weights = list(operand(weight, "convolution"))
        dims = len(weights[0].shape) if weights else 0
        return _made(position, [*weights, *operand(bias, "broadcast")], "channel", x, data, dims)
    if target in _LOOKUP and not given["scale_grad_by_freq"]:
        x, weight, _ = _LOOKUP[target]
        found = [o for o in operand(weight, "lookup") if not o.flipped]
        return _made(position, found, "last", x, data)
    if target in _LAST or target in _CHANNELS:
        x, weight, bias = (_LAST | _CHANNELS)[target]
        aligned = "last" if target in _LAST else "channel"
        found = [*operand(weight, "broadcast"), *operand(bias, "broadcast")]
        return _made(position, found, aligned, x, data)
    return _elementwise(node, given, position, operand, data)


def _elementwise(
    node: Node,
    given: Mapping[str, Any],
    position: int,
    operand: Callable[[str, str], Iterator[Operand]],
    data: bool,
) -> Site | None:
    if node.target in _EXPANSIONS:
        return _made(position, list(operand("self", "broadcast")), "last", "", data)
    if node.target in _SUMS or node.target in _PRODUCTS:
        if given.get("alpha", 1) != 1:
            return None
        found = [*operand("self", "broadcast"), *operand("other", "broadcast")]
        return _made(position, found, "last", "", data)
    return None


def _made(
    position: int, operands: list[Operand], aligned: str, factor: str, data: bool, dims: int = 0
) -> Site | None:
    return Site(position, tuple(operands), aligned, factor, data, dims) if operands else None


def multiplier(node: Node, operand: Operand, given: Mapping[str, Any]) -> Tensor | float:
    """Return what a broadcast operand is multiplied with in its node: ∂y/∂operand, elementwise.

    For a normalisation's weight that is the normalised input: the node without its weight and bias.
    """
    if node.target in _PRODUCTS:
        other = given["other" if operand.argument == "self" else "self"]
        return other.detach() if isinstance(other, Tensor) else float(other)
    if node.target in _SUMS:
        return _SUMS[node.target] if operand.argument == "other" else 1.0
    if operand.argument == "weight":
        plain = dict(given) | {"weight": None}
        if "bias" in given:
            plain["bias"] = None
        result = node.function(**plain)
        found: Tensor = (result if isinstance(result, Tensor) else result[0]).detach()
        return found
    return 1.0


def aligned_shape(site: Site, operand: Operand, dims: int) -> tuple[int, ...]:
    """Return the operand's shape as it stands against an output of `dims` dimensions."""
    if site.aligned == "last":
        return (1,) * (dims - len(operand.shape)) + operand.shape
    return (1, math.prod(operand.shape)) + (1,) * (dims - 2)
