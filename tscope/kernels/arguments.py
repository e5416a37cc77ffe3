"""What products with J are given besides examples: checked, and in the dtype of the product."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor
from tscope_format.errors import UsageError, clean

from tscope.program.derivatives import Tensors


def tangents_of(
    tangents: Tensors, names: Collection[str], point: Tensors, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return V (k, *parameter) by name, of the parameters of J that have one.

    Args:
        tangents: V by name, as given.
        names: the parameters of J.
        point: all parameters by name.
        dtype: of the result.

    Raises:
        UsageError: if there is none, a shape does not fit, or their numbers of columns differ.
    """
    found = {name: tangents[name] for name in names if name in tangents}
    if not found:
        raise UsageError("no tangent is of a parameter of this Jacobian")
    k = len(next(iter(found.values())))
    for name, value in found.items():
        expected = (k, *point[name].shape)
        if tuple(value.shape) != expected:
            raise UsageError(
                f"the tangents of {clean(name)!r} have the shape {tuple(value.shape)}, not {expected}"
            )
    return {name: value.detach().to(dtype) for name, value in found.items()}


def diagonal_of(
    preconditioner: Tensors, names: Collection[str], point: Tensors, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return D by name, of every parameter of J and of its shape.

    Args:
        preconditioner: D by name, as given.
        names: the parameters of J.
        point: all parameters by name.
        dtype: of the result.

    Raises:
        UsageError: if D lacks a parameter or has another shape.
    """
    found = {}
    for name in names:
        shape = tuple(point[name].shape)
        given = preconditioner.get(name)
        if given is None or tuple(given.shape) != shape:
            what = "is missing" if given is None else f"has the shape {tuple(given.shape)}, not {shape}"
            raise UsageError(f"the preconditioner of the parameter {clean(name)!r} {what}")
        found[name] = given.detach().to(dtype)
    return found
