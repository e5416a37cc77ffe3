"""Jacobians of some parameters of a program by differentiation of the whole of it, an example at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.func import jacrev, vmap
from tscope_format.errors import TscopeError

from tscope.program.derivatives import Chunk, Tensors, chunks, real
from tscope.program.program import Program

# Examples to try with.
_FEW = 3


def per_example(
    program: Program,
    names: Sequence[str],
    point: Tensors,
    buffers: Tensors,
    part: Chunk,
    *,
    batched: bool,
) -> dict[str, Tensor]:
    """Return ∂f/∂θ^(p) (example, output, *parameter) of the named parameters on a chunk.

    Exact for any program, by a backward pass for each output of each example.

    Args:
        program: the model.
        names: of the parameters.
        point: all parameters by name.
        buffers: by name.
        part: the examples.
        batched: whether all the passes go at once (torch.func.vmap), as `can_be_batched` told.
    """
    if batched:
        return _batched(program, names, point, buffers, part)
    return one_by_one(program, names, point, buffers, part)


def can_be_batched(
    program: Program, names: Sequence[str], point: Tensors, buffers: Tensors, part: Chunk
) -> bool:
    """Try on a few examples whether every operator can be batched, and gives the same if it is.

    Some have no rule, and the rule of some is wrong: in torch 2.13 that of the gradient of cdist.
    """
    if not names or not program.batch or part.count <= 0:
        return False
    few = next(chunks(program, part.functional, part.inputs, max(_FEW, program.graph.least_rows)))
    try:
        found = _batched(program, names, point, buffers, few)
    except (TscopeError, RuntimeError, ValueError, TypeError):
        return False
    expected = one_by_one(program, names, point, buffers, few)
    return all(_close(found[name], value) for name, value in expected.items())


def _close(found: Tensor, expected: Tensor) -> bool:
    """Tell whether two results differ by rounding only, or not at all where they are not finite."""
    scale = expected.nan_to_num(posinf=0.0, neginf=0.0).abs().max()
    tolerance = torch.finfo(expected.dtype).eps ** 0.5 * scale
    same = (found - expected).abs() <= tolerance
    return bool((same | ~expected.isfinite()).all())


def _batched(
    program: Program, names: Sequence[str], point: Tensors, buffers: Tensors, part: Chunk
) -> dict[str, Tensor]:
    batched = {entry.index for entry in program.arguments if entry.batch}
    least = program.graph.least_rows

    def output(chosen: dict[str, Tensor], *rows: Tensor) -> Tensor:
        # A program may not be valid for one row: the example is given as often as it needs, and read once.
        inputs = [
            row.unsqueeze(0).expand(least, *row.shape) if index in batched else row
            for index, row in enumerate(rows)
        ]
        return part.functional(program({**point, **chosen}, buffers, inputs))[0]

    axes = tuple(0 if index in batched else None for index in range(len(part.inputs)))
    inputs = [value[: part.count] if index in batched else value for index, value in enumerate(part.inputs)]
    with _without_warnings():
        found: dict[str, Tensor] = vmap(jacrev(output), (None, *axes))(
            {name: point[name] for name in names}, *inputs
        )
    return {name: value.detach() for name, value in found.items()}


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Let vmap loop over the examples where an operator has no rule, without a line on stderr for each."""
    functorch: Any = torch._C._functorch
    functorch._set_vmap_fallback_warning_enabled(False)
    try:
        yield
    finally:
        functorch._set_vmap_fallback_warning_enabled(True)


def one_by_one(
    program: Program, names: Sequence[str], point: Tensors, buffers: Tensors, part: Chunk
) -> dict[str, Tensor]:
    """Return the same by one backward pass for each output of each example.

    The examples go through the program as few at a time as it takes, since a backward pass visits them all.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    for piece in _few_at_a_time(program, part):
        with torch.enable_grad():
            variables = {name: point[name].detach().requires_grad_() for name in names}
            output = real(piece, piece.functional(program({**point, **variables}, buffers, piece.inputs)))
        for position in range(output.numel()):
            gradients = _gradients(output, list(variables.values()), position)
            for name, gradient in zip(names, gradients, strict=True):
                found[name].append(gradient)
        shape = output.shape[1]
    return {
        name: torch.stack(rows).view(-1, shape, *point[name].shape).to(output.dtype)
        for name, rows in found.items()
    }


def gradient_of_each(
    program: Program,
    names: Sequence[str],
    point: Tensors,
    buffers: Tensors,
    part: Chunk,
    cotangents: Tensor,
) -> Iterator[dict[str, Tensor]]:
    """Yield u_nᵀ ∂f_n/∂θ^(p) of the named parameters, for one example of a chunk after the other.

    A backward pass for each example, over as few of them as the program takes.

    Args:
        program: the model.
        names: of the parameters.
        point: all parameters by name.
        buffers: by name.
        part: the examples.
        cotangents: u (example, output).
    """
    start = 0
    for piece in _few_at_a_time(program, part):
        with torch.enable_grad():
            variables = {name: point[name].detach().requires_grad_() for name in names}
            output = real(piece, piece.functional(program({**point, **variables}, buffers, piece.inputs)))
        for row in range(len(output)):
            cotangent = torch.zeros_like(output)
            cotangent[row] = cotangents[start + row]
            found = _pulled(output, list(variables.values()), cotangent)
            yield dict(zip(names, found, strict=True))
        start += len(output)


def _few_at_a_time(program: Program, part: Chunk) -> Iterator[Chunk]:
    """Yield the examples of a chunk, as few together as the program takes."""
    if part.count < 0 or not program.batch:
        yield part
        return
    batched = {entry.index for entry in program.arguments if entry.batch}
    inputs = tuple(value[: part.count] if i in batched else value for i, value in enumerate(part.inputs))
    yield from chunks(program, part.functional, inputs, program.graph.least_rows)


def _gradients(output: Tensor, variables: list[Tensor], position: int) -> tuple[Tensor, ...]:
    cotangent = torch.zeros_like(output, requires_grad=False)
    cotangent.view(-1)[position] = 1
    return _pulled(output, variables, cotangent)


def _pulled(output: Tensor, variables: list[Tensor], cotangent: Tensor) -> tuple[Tensor, ...]:
    if not output.requires_grad:
        return tuple(torch.zeros_like(variable, requires_grad=False) for variable in variables)
    return torch.autograd.grad(
        output, variables, cotangent, retain_graph=True, allow_unused=True, materialize_grads=True
    )


def pull_columns(
    program: Program,
    names: Sequence[str],
    point: Tensors,
    buffers: Tensors,
    part: Chunk,
    cotangents: Tensor,
) -> dict[str, Tensor]:
    """Return Jᵀ R (k, *parameter) on a chunk for R (example, output, k): a backward pass for each column."""
    with torch.enable_grad():
        variables = {name: point[name].detach().requires_grad_() for name in names}
        output = real(part, part.functional(program({**point, **variables}, buffers, part.inputs)))
    columns: list[tuple[Tensor, ...]] = []
    for k in range(cotangents.shape[2]):
        if not output.requires_grad:
            columns.append(tuple(torch.zeros_like(v, requires_grad=False) for v in variables.values()))
            continue
        columns.append(
            torch.autograd.grad(
                output,
                list(variables.values()),
                cotangents[:, :, k].to(output.dtype),
                retain_graph=k < cotangents.shape[2] - 1,
                allow_unused=True,
                materialize_grads=True,
            )
        )
    return {name: torch.stack([column[i] for column in columns]) for i, name in enumerate(names)}
