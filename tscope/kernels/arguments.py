"""What products with J are given besides examples: checked, and in the dtype of the product."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor
from tscope_format.errors import AnalysisError, UsageError, clean

from tscope.program.derivatives import Tensors
from tscope.program.program import Program


def names_of(program: Program, point: Tensors, wrt: Collection[str] | None) -> tuple[str, ...]:
    """Return the parameters of J: all floating ones of the program, or those of them in `wrt`.

    Args:
        program: the model.
        point: its parameters by name, as given.
        wrt: names; None for all.

    Raises:
        UsageError: if a name in `wrt` is not a floating parameter of the program.
        AnalysisError: if a parameter is missing or complex.
    """
    missing = [name for name in program.parameters if name not in point]
    if missing:
        raise AnalysisError(f"the parameter {clean(missing[0])!r} of the model was not given")
    floating = tuple(n for n in program.parameters if point[n].is_floating_point())
    unknown = sorted(set(wrt or ()) - set(floating))
    if unknown:
        raise UsageError(f"{clean(unknown[0])!r} is not a floating parameter that the model uses")
    complex_ones = [name for name, value in point.items() if value.is_complex()]
    if complex_ones:
        raise AnalysisError(
            f"the parameter {clean(complex_ones[0])!r} is complex; a Jacobian is of real ones"
        )
    return floating if wrt is None else tuple(name for name in floating if name in wrt)


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
