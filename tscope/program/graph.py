"""A recorded program, read from JSON and checked wholly: what `export` writes, and nothing else.

```
{"version": 1,
 "inputs":  [{"node", "kind": parameter|buffer|constant|user, "name", "dtype", "shape", "index", "batch"}, …],
 "nodes":   [[name, "aten.linear.default", args, kwargs], …],          in order of evaluation
 "output":  {"$n": name}, "output_path": "logits", "outputs": ["logits", "loss"],
 "batch":   true if the number of rows is free; "rows": else the number it is fixed to (null: no rows at all);
 "rows_range": [least, most or null], "default_dtype": "float32"}
```
Values that JSON lacks are objects with one key: `$n` a node, `$dtype`, `$device`, `$layout`,
`$memory_format`, `$slice` [start, stop, step], `$float` "inf".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, cast

import torch
from tscope_format.errors import TraceError, clean

from tscope.program.whitelist import GETITEM, SIZES, guard, operator_named

VERSION = 1
DEVICE = 0  # slot of the device of the evaluation; every recorded device stands for it

_MOST_NODES = 1_000_000
_MOST_ELEMENTS = 2**31  # of a tensor whose shape is written in the file
_DEEPEST = 6
_DTYPES = {
    name: cast(torch.dtype, getattr(torch, name))
    for name in [
        *("float16", "bfloat16", "float32", "float64", "complex64", "complex128", "bool"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    ]
}
_FORMATS = {
    "contiguous_format": torch.contiguous_format,
    "preserve_format": torch.preserve_format,
    "channels_last": torch.channels_last,
    "channels_last_3d": torch.channels_last_3d,
}
_INPUT_KINDS = ("parameter", "buffer", "constant", "user")

Kind = Literal["tensor", "sequence", "size"]


@dataclass(frozen=True)
class Ref:
    """The value in a slot: 0 is the device, then the inputs, then the nodes, in order."""

    slot: int


@dataclass(frozen=True)
class Input:
    """What an input of the graph stands for.

    `index` counts the tensors of the call that was recorded; `batch` says whether its rows are examples.
    """

    kind: str
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    index: int = -1
    batch: bool = False


@dataclass(frozen=True)
class Node:
    """One application of a function to slots and literal values."""

    name: str
    target: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class Graph:
    """A checked program: input i is in slot 1 + i, node j in slot 1 + len(inputs) + j."""

    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    output: int
    output_path: str
    outputs: tuple[str, ...]
    batch: bool
    rows: int | None
    least_rows: int
    most_rows: int | None
    default_dtype: torch.dtype


def parse(data: Mapping[str, Any]) -> Graph:
    """Return the checked graph of a JSON object.

    Raises:
        TraceError: if anything in it is not as described above.
    """
    return _Parser().graph(data)


def dtype_named(name: object) -> torch.dtype:
    """Return the torch dtype of a name; TraceError if there is none."""
    if not isinstance(name, str) or name not in _DTYPES:
        _refuse(f"unknown dtype {name!r}")
    return _DTYPES[name]


def _refuse(what: str) -> NoReturn:
    raise TraceError(f"program: {clean(what)[:300]}; the trace is damaged or was altered")


def references(value: Any) -> Iterator[int]:
    """Yield the slots that an argument refers to."""
    if isinstance(value, Ref):
        yield value.slot
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from references(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from references(part)
    elif isinstance(value, slice):
        yield from references((value.start, value.stop, value.step))


class _Parser:
    """Reads a graph in order, so that a reference can only name what came before."""

    def __init__(self) -> None:
        self.slots: dict[str, int] = {}
        self.kinds: list[Kind] = ["size"]  # by slot; slot 0, the device, cannot be named

    def graph(self, data: Mapping[str, Any]) -> Graph:
        if not isinstance(data, Mapping):
            _refuse(f"expected an object, got {type(data).__name__}")
        version = data.get("version")
        if version != VERSION:
            raise TraceError(
                f"program: this tscope reads version {VERSION}, not {clean(version)[:20]}; update tscope"
            )
        inputs = tuple(self.input(entry) for entry in _list(data.get("inputs"), "inputs"))
        nodes = tuple(self.node(entry) for entry in _list(data.get("nodes"), "nodes"))
        output = self.value(data.get("output"))
        if not isinstance(output, Ref) or self.kinds[output.slot] != "tensor":
            _refuse("the output is not a tensor of the graph")
        least, most = self.range(data.get("rows_range", [1, None]))
        rows = data.get("rows")
        if not isinstance(data.get("batch"), bool) or not (rows is None or _is_size(rows, 1)):
            _refuse("batch or rows is not as expected")
        paths = _list(data.get("outputs", []), "outputs")
        path = data.get("output_path", "")
        if not all(isinstance(p, str) for p in (path, *paths)):
            _refuse("the output paths are not text")
        return Graph(
            inputs=inputs,
            nodes=nodes,
            output=output.slot,
            output_path=path,
            outputs=tuple(paths),
            batch=data["batch"],
            rows=rows,
            least_rows=least,
            most_rows=most,
            default_dtype=dtype_named(data.get("default_dtype", "float32")),
        )

    def range(self, value: object) -> tuple[int, int | None]:
        if not isinstance(value, Sequence) or len(value) != 2 or not _is_size(value[0], 1):
            _refuse("rows_range is not [least, most]")
        least, most = value
        if most is not None and not _is_size(most, least):
            _refuse("rows_range is not [least, most]")
        return least, most

    def input(self, entry: object) -> Input:
        if not isinstance(entry, Mapping) or entry.get("kind") not in _INPUT_KINDS:
            _refuse("an input is not of a known kind")
        name, shape, index = entry.get("name"), entry.get("shape"), entry.get("index", -1)
        if not isinstance(name, str) or not isinstance(shape, list) or not all(_is_size(n, 0) for n in shape):
            _refuse(f"the input {name!r} has no name or no shape")
        if math.prod(shape) > _MOST_ELEMENTS:
            _refuse(f"the input {name!r} has {math.prod(shape)} elements")
        user = entry["kind"] == "user"
        if user and not (_is_size(index, 0) and index < 10_000 and isinstance(entry.get("batch"), bool)):
            _refuse(f"the input {name!r} has no index")
        self.define(entry.get("node"), "tensor")
        return Input(
            kind=entry["kind"],
            name=name,
            dtype=dtype_named(entry.get("dtype")),
            shape=tuple(shape),
            index=index if user else -1,
            batch=entry["batch"] if user else False,
        )

    def node(self, entry: object) -> Node:
        if not isinstance(entry, list) or len(entry) != 4:
            _refuse("a node is not [name, target, args, kwargs]")
        name, target, raw_args, raw_kwargs = entry
        if (
            not isinstance(target, str)
            or not isinstance(raw_args, list)
            or not isinstance(raw_kwargs, Mapping)
        ):
            _refuse(f"the node {name!r} is not [name, target, args, kwargs]")
        args = tuple(self.value(value) for value in raw_args)
        kwargs = {str(key): self.value(value) for key, value in raw_kwargs.items()}
        if target == GETITEM:
            node = self.element(target, args, kwargs)
            kind: Kind = "tensor"
        elif target in SIZES:
            node = self.size(target, args, kwargs)
            kind = "size"
        else:
            node = self.operator(target, args, kwargs)
            kind = _kind_returned(operator_named(target))
        self.define(name, kind)
        return Node(name, target, node[0], node[1], node[2])

    def element(
        self, target: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        if (
            kwargs
            or len(args) != 2
            or not self.is_kind(args[0], "sequence")
            or not (isinstance(args[1], int) and not isinstance(args[1], bool))
        ):
            _refuse(f"{target} takes one of the results of a node")
        return _element, args, {}

    def size(
        self, target: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        flat = [part for value in args for part in (value if isinstance(value, list) else [value])]
        for part in flat:
            if not (self.is_kind(part, "size") or isinstance(part, (bool, int, float))):
                _refuse(f"{target} takes sizes only")
        if kwargs or (target != "torch.sym_sum" and any(isinstance(value, list) for value in args)):
            _refuse(f"{target} takes sizes only")
        return SIZES[target], args, {}

    def operator(
        self, target: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        function = operator_named(target)
        schema = function._schema.arguments
        named = [argument.name for argument in schema]
        positional = [argument.name for argument in schema if not argument.kwarg_only]
        if len(args) > len(positional) or not set(kwargs) <= set(named[len(args) :]):
            _refuse(f"{target} was given arguments it does not have")
        given = dict(zip(positional, args, strict=False)) | kwargs
        for argument in schema:
            if argument.name not in given:
                if not argument.has_default_value() and "Optional" not in str(argument.type):
                    _refuse(f"{target} lacks its argument {argument.name!r}")
                continue
            self.argument(target, argument.name, str(argument.type), given[argument.name])
        factory = not any("Tensor" in str(argument.type) for argument in schema)
        if factory and "device" in named:
            # A factory without a device means the default one, where the run's other tensors were.
            kwargs = kwargs | {"device": Ref(DEVICE)}
        defaults = {a.name: a.default_value for a in schema if a.has_default_value()}
        guard(target, defaults | given)
        return function, args, kwargs

    def argument(self, target: str, name: str, kind: str, value: Any) -> None:
        """Check what a schema's type says about tensors, and the sizes that are written in the file."""
        if "Tensor" in kind:
            listed = kind.startswith("List")
            if listed and self.is_kind(value, "sequence"):
                return
            parts = value if listed and isinstance(value, list) else [value]
            optional = "Optional" in kind
            # A number may stand for a tensor: x + 1 is add.Tensor(x, 1).
            if not all(
                self.is_kind(part, "tensor")
                or (part is None and optional)
                or (not listed and (isinstance(part, (bool, int, float)) or self.is_kind(part, "size")))
                for part in parts
            ):
                _refuse(f"the argument {name!r} of {target} is not a tensor")
            return
        parts = value if isinstance(value, list) else [value]
        if any(
            isinstance(part, Ref) and part.slot != DEVICE and self.kinds[part.slot] != "size"
            for part in parts
        ):
            _refuse(f"the argument {name!r} of {target} is a tensor")
        literal = [abs(part) for part in parts if isinstance(part, (int, float))]
        sized = "List[int]" in kind or "List[SymInt]" in kind
        if sized or name in ("n", "m", "start", "end", "steps", "num_classes", "window_length", "repeats"):
            infinite = name in ("start", "end") and "slice" in target  # x[:9223372036854775807]
            if not infinite and math.prod(part for part in literal if part) > _MOST_ELEMENTS:
                _refuse(f"the argument {name!r} of {target} asks for {value} elements")

    def is_kind(self, value: object, kind: Kind) -> bool:
        return isinstance(value, Ref) and value.slot != DEVICE and self.kinds[value.slot] == kind

    def define(self, name: object, kind: Kind) -> None:
        if not isinstance(name, str) or len(name) > 1000:
            _refuse("a node has no name")
        if name in self.slots:
            _refuse(f"two nodes are named {name!r}")
        if len(self.kinds) > _MOST_NODES:
            _refuse(f"there are more than {_MOST_NODES} nodes")
        self.slots[name] = len(self.kinds)
        self.kinds.append(kind)

    def value(self, value: object, depth: int = 0) -> Any:
        """Return the Python value that a JSON value stands for."""
        if value is None or isinstance(value, (bool, str, float)):
            return value
        if isinstance(value, int):
            if abs(value) > 2**63:
                _refuse("a number does not fit 64 bits")
            return value
        if depth > _DEEPEST:
            _refuse("an argument is nested too deeply")
        if isinstance(value, list):
            return [self.value(part, depth + 1) for part in value]
        if not isinstance(value, Mapping) or len(value) != 1:
            _refuse("an argument is not as expected")
        ((tag, content),) = value.items()
        return self.tagged(tag, content, depth)

    def tagged(self, tag: object, content: object, depth: int) -> Any:
        if tag == "$n" and isinstance(content, str):
            if content not in self.slots:
                _refuse(f"{content!r} is used before it is computed, or never computed")
            return Ref(self.slots[content])
        if tag == "$dtype":
            return dtype_named(content)
        if tag == "$device":
            return Ref(DEVICE)
        if tag == "$layout" and content == "strided":
            return torch.strided
        if tag == "$memory_format" and isinstance(content, str) and content in _FORMATS:
            return _FORMATS[content]
        if tag == "$float" and content in ("inf", "-inf", "nan"):
            return float(str(content))
        if tag == "$slice" and isinstance(content, list) and len(content) == 3:
            return slice(*(self.value(part, depth + 1) for part in content))
        _refuse(f"an argument is {{{tag!r}: {content!r}}}")


def _element(results: Sequence[Any], index: int) -> Any:
    return results[index]


def _kind_returned(function: torch._ops.OpOverload) -> Kind:
    returns = function._schema.returns
    if len(returns) != 1 or str(returns[0].type).startswith("List"):
        return "sequence"
    return "tensor" if "Tensor" in str(returns[0].type) else "size"


def _list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > _MOST_NODES:
        _refuse(f"{name!r} is not a list")
    return value


def _is_size(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= 2**62
