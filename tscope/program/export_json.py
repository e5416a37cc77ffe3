"""The nodes of an exported graph as JSON.

torch and the standard library only, and Python 3.9 syntax: copied into the user's environment with `export`.
"""

from __future__ import annotations

import math
import operator
from typing import Any, List

import torch
from torch.fx import Node


class ExportError(Exception):
    """The module cannot be expressed as a graph; the message is the reason, on one line."""


def encode_node(node: Node) -> List[Any]:
    """Return `[name, target, args, kwargs]`."""
    target: Any = node.target
    kwargs = dict(node.kwargs)
    if isinstance(target, torch._ops.OpOverload):
        name = str(target)
        arguments = target._schema.arguments
        factory = not any("Tensor" in str(argument.type) for argument in arguments)
        if factory and any(argument.name == "dtype" for argument in arguments) and "val" in node.meta:
            # A factory's dtype is the global default unless it is written down.
            kwargs.setdefault("dtype", node.meta["val"].dtype)
            kwargs["dtype"] = kwargs["dtype"] or node.meta["val"].dtype
    else:
        plain = str(getattr(target, "__name__", target))
        homes = [home for home in (operator, math, torch) if getattr(home, plain, None) is target]
        home = homes[0].__name__ if homes else getattr(target, "__module__", "?")
        name = "{}.{}".format(home, plain)
    return [node.name, name, [_encode(a) for a in node.args], {k: _encode(v) for k, v in kwargs.items()}]


def _encode(value: Any) -> Any:
    """Return `value` as JSON: a dict with one key starting with "$" for what JSON lacks."""
    if isinstance(value, Node):
        return {"$n": value.name}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, (list, tuple)):
        return [_encode(part) for part in value]
    if isinstance(value, torch.dtype):
        return {"$dtype": dtype_name(value)}
    if isinstance(value, torch.device):
        return {"$device": value.type}
    if isinstance(value, torch.memory_format):
        return {"$memory_format": str(value).rpartition(".")[2]}
    if isinstance(value, torch.layout):
        return {"$layout": str(value).rpartition(".")[2]}
    if isinstance(value, slice):
        return {"$slice": [_encode(value.start), _encode(value.stop), _encode(value.step)]}
    raise ExportError("an operator has an argument of type {}".format(type(value).__name__))


def dtype_name(dtype: torch.dtype) -> str:
    """Return "float32" for `torch.float32`."""
    return str(dtype).rpartition(".")[2]
