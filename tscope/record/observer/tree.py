"""The tensors in what a module takes and returns, by their paths."""

# ruff: noqa: B905 -- zip(strict=) is newer than Python 3.9

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Callable, Iterator, Optional, Tuple

from torch import Tensor

# Outputs may be deep or endless (lazy sequences); beyond this nothing is looked for.
_DEEPEST = 6


def leaves(value: Any, path: str = "", depth: int = 0) -> Iterator[Tuple[str, Tensor]]:
    """Yield `(path, tensor)` in order; a bare tensor has the path "".

    The same paths as in `tscope.program.export`: tuples and lists count from 0; mappings, named tuples and
    dataclasses (so every ModelOutput) use their names; parts are joined by dots.
    """
    if isinstance(value, Tensor):
        yield path, value
        return
    if depth >= _DEEPEST:
        return
    for name, part in _parts(value):
        yield from leaves(part, name if path == "" else path + "." + name, depth + 1)


def _parts(value: Any) -> Iterator[Tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield str(key), part
    elif isinstance(value, (tuple, list)):
        names = getattr(value, "_fields", None) or range(len(value))
        for name, part in zip(names, value):
            yield str(name), part
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield field.name, getattr(value, field.name, None)
    elif isinstance(value, types.SimpleNamespace):
        yield from vars(value).items()


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return the nested containers with every tensor replaced; what is no plain container stays as it is."""
    if isinstance(value, Tensor):
        return change(value)
    if type(value) is dict:
        return {key: mapped(part, change) for key, part in value.items()}
    if type(value) in (tuple, list):
        return type(value)(mapped(part, change) for part in value)
    return value


def at(value: Any, path: str) -> Optional[Tensor]:
    """Return the tensor at the path, or None."""
    if path == "":
        return value if isinstance(value, Tensor) else None
    return next((tensor for name, tensor in leaves(value) if name == path), None)
