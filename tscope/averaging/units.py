"""Hidden units of a recorded model: which axes of which tensors are in their order.

A hidden layer's units can be put in another order without a change of the model's outputs, if the rows of the
weights that make them and the columns of the weights that use them move together. This finds these axes in
the program's graph, node by node: every value has its units along one axis, and an operation that keeps
them apart (a nonlinearity, a normalisation of channels, pooling) hands them on. Multilayer perceptrons and
plain convolutional networks, residual ones among them, are made of such operations; any other that a
parameter's units go through is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from tscope_format.errors import AnalysisError, clean

from tscope.kernels.sites import arguments
from tscope.program import Program
from tscope.program.graph import Input, Node, Ref, references
from tscope.program.whitelist import GETITEM

# Each entry of the output is a function of the same entry of the input.
_ELEMENTWISE = frozenset(
    f"aten.{name}"
    for name in (
        *("relu.default", "relu6.default", "tanh.default", "sigmoid.default", "gelu.default", "silu.default"),
        *("elu.default", "selu.default", "celu.default", "leaky_relu.default", "hardtanh.default"),
        *("hardswish.default", "hardsigmoid.default", "softplus.default", "mish.default", "abs.default"),
        *("log_sigmoid.default", "dropout.default", "feature_dropout.default", "clone.default"),
        *("contiguous.default", "alias.default", "detach.default", "square.default", "neg.default"),
        *("exp.default", "sin.default", "cos.default", "clamp.default", "clamp_min.default"),
        *("_to_copy.default", "to.dtype", "mul.Scalar", "add.Scalar", "div.Scalar", "pow.Tensor_Scalar"),
    )
)
_POOLING = frozenset(
    f"aten.{name}.default"
    for name in (
        *(f"{kind}_pool{d}d" for kind in ("max", "avg") for d in (1, 2, 3)),
        *(f"adaptive_{kind}_pool{d}d" for kind in ("avg", "max") for d in (1, 2, 3)),
        *("_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
        *(f"max_pool{d}d_with_indices" for d in (1, 2, 3)),
    )
)
_CONVOLUTION = frozenset(f"aten.conv{d}d.{kind}" for d in (1, 2, 3) for kind in ("default", "padding"))
_BATCH_NORM = frozenset(
    f"aten.{name}.default"
    for name in ("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training")
)
_PAIRS = frozenset({"aten.add.Tensor", "aten.sub.Tensor", "aten.mul.Tensor", "aten.div.Tensor"})
_SOFTMAX = frozenset({"aten.softmax.int", "aten.log_softmax.int", "aten._softmax.default"})
_RESHAPE = frozenset({"aten.view.default", "aten.reshape.default"})
_SIZES = ("aten.sym_size", "aten.size", "aten.sym_numel", "aten.numel", "operator.", "math.", "torch.sym")


@dataclass(frozen=True)
class Units:
    """The hidden units of a model.

    Attributes:
        sizes: How many units each layer of them has, by the layer's number, in the order of the graph.
        axes: For each tensor the axes that are in the order of units, and of which layer's; an axis may hold
            several neighbouring entries a unit, as after flattening an image of channels.
    """

    sizes: Mapping[int, int]
    axes: Mapping[str, tuple[tuple[int, int], ...]]


@dataclass(frozen=True)
class _Value:
    """A tensor's units.

    `layer` is None where their order is fixed: of the model's inputs. `place` is the axis they lie along,
    "last" or 1 ("channel"); `rank` the tensor's dimensions, if known; `spread` says that each unit has
    several neighbouring entries.
    """

    layer: int | None
    place: Literal["last", "channel"] = "last"
    rank: int | None = None
    spread: bool = False


def find_units(program: Program) -> Units:
    """Return the hidden units of a program's graph.

    Raises:
        AnalysisError: Units go through an operation whose order of them is not known, or there are none.
    """
    return _Finder(program).find()


class _Finder:
    def __init__(self, program: Program) -> None:
        self.graph = program.graph
        self.inputs: dict[int, Input] = dict(enumerate(self.graph.inputs, 1))
        self.values: dict[int, _Value] = {}
        self.sizes: list[int] = []
        self.parents: list[int | None] = []  # of each layer, another with the same order; None: itself
        self.fixed: set[int] = set()
        self.axes: dict[str, dict[int, int | None]] = {}
        self.rules: dict[str, Callable[[Node, dict[str, Any]], _Value]] = {
            "aten.linear.default": self.linear,
            "aten.layer_norm.default": self.layer_norm,
            "aten.flatten.using_ints": self.flatten,
            "aten.mean.dim": self.mean,
            GETITEM: lambda node, given: self.values[given["value"].slot],
            **dict.fromkeys(_CONVOLUTION, self.convolution),
            **dict.fromkeys(_BATCH_NORM, self.batch_norm),
            **dict.fromkeys(_PAIRS, self.pair),
            **dict.fromkeys(_SOFTMAX, self.softmax),
            **dict.fromkeys(_RESHAPE, self.reshape),
            **dict.fromkeys(_ELEMENTWISE | _POOLING, self.same),
        }

    def find(self) -> Units:
        for slot, entry in self.inputs.items():
            if entry.kind in ("user", "constant"):
                self.values[slot] = _Value(None, rank=len(entry.shape))
        first = 1 + len(self.graph.inputs)
        for position, node in enumerate(self.graph.nodes):
            if not node.target.startswith(_SIZES) or node.target == GETITEM:
                self.values[first + position] = self.value(node)
        output = self.values[self.graph.output]
        if output.layer is not None:
            self.fix(output.layer)
        axes = {
            name: tuple(
                (axis, self.root(layer))
                for axis, layer in found.items()
                if layer is not None and self.root(layer) not in self.fixed
            )
            for name, found in self.axes.items()
        }
        axes = {name: found for name, found in axes.items() if found}
        layers = sorted({layer for found in axes.values() for _, layer in found})
        if not layers:
            raise AnalysisError("the model has no hidden units whose order is free, so none can be matched")
        return Units({layer: self.sizes[layer] for layer in layers}, axes)

    def value(self, node: Node) -> _Value:
        slots = list(references((node.args, node.kwargs)))
        held = [s for s in slots if s in self.inputs and self.inputs[s].kind in ("parameter", "buffer")]
        taken = [self.values[slot] for slot in slots if slot in self.values]
        if node.target in self.rules:
            if node.target == GETITEM:
                given: dict[str, Any] = {"value": node.args[0], "index": node.args[1]}
                if given["index"] != 0:
                    self.refuse(node, "uses a second result")
            else:
                given = arguments(node, node.args, node.kwargs)
            return self.rules[node.target](node, given)
        if held or any(value.layer is not None for value in taken):
            self.refuse(node, "is not an operation through which units can be followed")
        return _Value(None)  # of the data alone

    # Operations, each from the units of its input to those of its output.

    def linear(self, node: Node, given: dict[str, Any]) -> _Value:
        x = self.input(node, given["input"])
        weight = self.parameter(node, given["weight"])
        if x.layer is not None and x.place != "last" and x.rank != 2:
            self.refuse(node, "multiplies along another axis than that of the units")
        self.use(node, weight, 1, x)
        return self.made(node, weight, given["bias"], "last", x.rank)

    def convolution(self, node: Node, given: dict[str, Any]) -> _Value:
        x = self.input(node, given["input"])
        weight = self.parameter(node, given["weight"])
        if given["groups"] != 1:
            self.refuse(node, f"has {given['groups']} groups of channels")
        if x.spread or (x.layer is not None and x.place != "channel"):
            self.refuse(node, "takes its channels from another axis than that of the units")
        self.use(node, weight, 1, x)
        return self.made(node, weight, given["bias"], "channel", len(weight.shape))

    def batch_norm(self, node: Node, given: dict[str, Any]) -> _Value:
        x = self.input(node, given["input"])
        if x.layer is not None and x.place != "channel" and x.rank != 2:
            self.refuse(node, "normalises another axis than that of the units")
        self.along(node, x, given, ("weight", "bias", "running_mean", "running_var"))
        return x

    def layer_norm(self, node: Node, given: dict[str, Any]) -> _Value:
        x = self.input(node, given["input"])
        last = x.place == "last" or x.rank == 2
        if x.layer is not None and (len(given["normalized_shape"]) != 1 or not last):
            self.refuse(node, "normalises other axes than that of the units")
        self.along(node, x, given, ("weight", "bias"))
        return x

    def along(self, node: Node, x: _Value, given: dict[str, Any], names: tuple[str, ...]) -> None:
        for name in names:
            if isinstance(given.get(name), Ref):
                self.use(node, self.parameter(node, given[name]), 0, x)

    def flatten(self, node: Node, given: dict[str, Any]) -> _Value:
        x = self.input(node, given["self"])
        if given["start_dim"] != 1 or given["end_dim"] not in (-1, (x.rank or 0) - 1):
            self.refuse(node, "does not flatten all of an example")
        return self.flat(node, x)

    def reshape(self, node: Node, given: dict[str, Any]) -> _Value:
        x = self.input(node, given["self"])
        shape = given["size" if "size" in given else "shape"]
        if x.layer is None:
            return _Value(None, rank=len(shape))
        if len(shape) != 2:
            self.refuse(node, "does not flatten all of an example")
        return self.flat(node, x)

    def flat(self, node: Node, x: _Value) -> _Value:
        if x.layer is None or x.rank == 2:
            return _Value(x.layer, "last", 2, x.spread)
        if x.place != "channel":
            self.refuse(node, "mixes the units with other axes")
        return _Value(x.layer, "last", 2, spread=True)

    def mean(self, node: Node, given: dict[str, Any]) -> _Value:
        x = self.input(node, given["self"])
        if x.layer is None:
            return _Value(None)
        axes = {axis % x.rank for axis in given["dim"]} if x.rank else set()
        if x.place != "channel" or not axes or min(axes) < 2:
            self.refuse(node, "averages over the units")
        return _Value(x.layer, "channel", x.rank if given["keepdim"] else (x.rank or 0) - len(axes))

    def softmax(self, node: Node, given: dict[str, Any]) -> _Value:
        x = self.input(node, given["self"])
        if x.layer is not None and (x.rank != 2 or given["dim"] not in (1, -1) or x.spread):
            self.refuse(node, "normalises another axis than that of the units")
        return x

    def pair(self, node: Node, given: dict[str, Any]) -> _Value:
        """Two tensors entry by entry: their units are in one order. A number leaves the order as it is."""
        parts: list[Any] = [given[name] for name in ("self", "other") if isinstance(given[name], Ref)]
        found = [self.input(node, part) for part in parts]
        if len(found) == 1 or all(value.layer is None for value in found):
            return found[0]
        a, b = found
        if a.layer is not None and b.layer is not None and (a.place, a.spread) != (b.place, b.spread):
            self.refuse(node, "combines units along different axes")
        self.join(a.layer, b.layer)
        return a if a.layer is not None else b

    def same(self, node: Node, given: dict[str, Any]) -> _Value:
        x = self.input(node, node.args[0])
        if node.target in _POOLING and x.layer is not None and x.place != "channel":
            self.refuse(node, "pools over the units")
        return x

    # What they are made of.

    def input(self, node: Node, ref: Any) -> _Value:
        if not isinstance(ref, Ref) or ref.slot not in self.values:
            self.refuse(node, "uses a parameter as its input")
        return self.values[ref.slot]

    def parameter(self, node: Node, ref: Any) -> Input:
        entry = self.inputs.get(ref.slot) if isinstance(ref, Ref) else None
        if entry is None or entry.kind not in ("parameter", "buffer"):
            self.refuse(node, "has a weight that is computed from others")
        return entry

    def made(
        self, node: Node, weight: Input, bias: Any, place: Literal["last", "channel"], rank: int | None
    ) -> _Value:
        """Return the units that a weight (unit, …) makes."""
        known = self.axes.get(weight.name, {})
        if 0 not in known:
            self.sizes.append(weight.shape[0])
            self.parents.append(None)
        value = _Value(known.get(0, len(self.sizes) - 1), place, rank)
        self.use(node, weight, 0, value)
        if isinstance(bias, Ref):
            self.use(node, self.parameter(node, bias), 0, value)
        return value

    def use(self, node: Node, entry: Input, axis: int, value: _Value) -> None:
        """Note that an axis of a tensor is in the order of a value's units."""
        if value.layer is not None:
            size, length = self.sizes[self.root(value.layer)], entry.shape[axis]
            if length % size or (length != size and not value.spread):
                self.refuse(node, f"has {length} entries for {size} units")
        own = self.axes.setdefault(entry.name, {})
        if axis in own:
            self.join(own[axis], value.layer)
        own[axis] = value.layer if value.layer is not None else own.get(axis)

    def join(self, a: int | None, b: int | None) -> None:
        """Let two layers have one order."""
        if a is None or b is None:
            for layer in (a, b):
                if layer is not None:
                    self.fix(layer)
            return
        a, b = self.root(a), self.root(b)
        if a == b:
            return
        first, second = min(a, b), max(a, b)
        self.parents[second] = first
        if second in self.fixed:
            self.fixed.add(first)

    def root(self, layer: int) -> int:
        parent = self.parents[layer]
        return layer if parent is None else self.root(parent)

    def fix(self, layer: int) -> None:
        self.fixed.add(self.root(layer))

    def refuse(self, node: Node, why: str) -> NoReturn:
        raise AnalysisError(
            f"hidden units cannot be matched in this model: the node {clean(node.name)!r} "
            f"({clean(node.target)}) {why}. Matching knows multilayer perceptrons and plain convolutional "
            "networks; average without it (leave out `--match`)"
        )
