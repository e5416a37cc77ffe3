"""Tensors in nested arguments and outputs, by their paths.

torch and the standard library only, and Python 3.9 syntax: copied into the user's environment with `export`.
"""

# ruff: noqa: B905 -- zip(strict=) is newer than Python 3.9

from __future__ import annotations

import dataclasses
import types
from typing import Any, Iterator, List, Mapping, Tuple

import torch
from torch import Tensor


def leaves(value: Any, path: str = "") -> Iterator[Tuple[str, Tensor]]:
    """Yield `(path, tensor)` of every tensor in nested containers, in order.

    Tuples and lists count from 0, mappings, named tuples and dataclasses (so every ModelOutput) use their
    names; parts are joined by dots. A bare tensor has the path "".
    """
    if isinstance(value, Tensor):
        yield path, value
        return
    for name, part in _parts(value):
        yield from leaves(part, name if path == "" else path + "." + name)


def _parts(value: Any) -> List[Tuple[str, Any]]:
    """Return the named parts of a container; nothing for what is not a container."""
    if isinstance(value, Mapping):
        return [(str(name), part) for name, part in value.items()]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return [(name, getattr(value, name)) for name in value._fields]
    if isinstance(value, (tuple, list)):
        return [(str(index), part) for index, part in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value)]
    if isinstance(value, types.SimpleNamespace):
        return list(vars(value).items())
    return []


def rebuild(value: Any, tensors: Iterator[Tensor]) -> Any:
    """Return `value` with its tensors replaced, in the order of `leaves`."""
    if isinstance(value, Tensor):
        return next(tensors)
    parts = [(name, rebuild(part, tensors)) for name, part in _parts(value)]
    if not parts:
        return value
    if isinstance(value, Mapping):
        copy: Any = value.copy() if hasattr(value, "copy") else dict(value)
        for (_, part), key in zip(parts, list(value)):
            copy[key] = part
        return copy
    if hasattr(value, "_fields"):
        return type(value)(*(part for _, part in parts))
    if isinstance(value, (tuple, list)):
        return type(value)(part for _, part in parts)
    blank = object.__new__(type(value))
    blank.__dict__.update(vars(value))
    blank.__dict__.update(parts)
    return blank


def argument_name(module: torch.nn.Module, path: str) -> str:
    """Return the forward's own name for the tensor at `path` of `(args, kwargs)`: "x", "batch.mask"."""
    where, _, rest = path.partition(".")
    if where == "1":
        return rest
    position, _, deeper = rest.partition(".")
    code = getattr(getattr(type(module), "forward", None), "__code__", None)
    names = code.co_varnames[1 : code.co_argcount] if code is not None else ()
    name = names[int(position)] if int(position) < len(names) else position
    return name + "." + deeper if deeper else str(name)


def resize(tensor: Tensor, rows: int) -> Tensor:
    """Return `tensor` cut, or repeated from its start, to `rows` along dimension 0."""
    if tensor.shape[0] >= rows:
        return tensor[:rows]
    return tensor[torch.arange(rows, device=tensor.device) % tensor.shape[0]]
