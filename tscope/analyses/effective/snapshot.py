"""Objects that gather figures along a run, as plain data and back: numbers, text, lists, dicts and tensors.

What is kept of a dataclass are the fields with a default, and what is in those that are dataclasses: the
others say what it is for, and whoever continues has made it for the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import TYPE_CHECKING, TypeAlias, Union

import torch
from torch import Tensor

from tscope.analyses.effective.columns import Columns

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Plain: TypeAlias = Union[bool, int, float, str, Tensor, "list[Plain]", "dict[str, Plain]", None]


def pack(value: object) -> Plain:
    """Return a value as plain data; tensors are not copied.

    Raises:
        TypeError: There is something in it that is not known here.
    """
    if value is None or isinstance(value, bool | int | float | str | Tensor):
        return value
    if isinstance(value, list):
        return [pack(entry) for entry in value]
    if isinstance(value, Mapping):
        return {str(name): pack(entry) for name, entry in value.items()}
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, Columns):
        return pack(value.memory())
    if is_dataclass(value) and not isinstance(value, type):
        return {name: pack(getattr(value, name)) for name in _kept(value)}
    raise TypeError(f"a {type(value).__name__} cannot be kept in a partial result")


def restore(target: DataclassInstance, plain: Plain) -> None:
    """Give a dataclass the values that `pack` returned of another one of its class.

    Raises:
        KeyError: A value is missing.
        TypeError: It is not of this class.
    """
    if not isinstance(plain, dict):
        raise TypeError(f"no values of a {type(target).__name__}")
    for name in _kept(target):
        setattr(target, name, _unpacked(getattr(target, name), plain[name]))


def _unpacked(current: object, plain: Plain) -> object:
    """Return the value; where that has an identity, `current` with its content."""
    if isinstance(current, torch.Generator) and isinstance(plain, Tensor):
        return current.set_state(plain)
    if isinstance(current, Columns) and isinstance(plain, dict):
        current.recall({name: value for name, value in plain.items() if isinstance(value, Tensor)})
        return current
    if is_dataclass(current) and not isinstance(current, type):
        restore(current, plain)
        return current
    return plain


def _kept(value: DataclassInstance) -> list[str]:
    return [
        field.name
        for field in fields(value)
        if field.default is not MISSING
        or field.default_factory is not MISSING
        or is_dataclass(getattr(value, field.name))
    ]
