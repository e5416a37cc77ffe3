"""Evaluation, Jacobian-vector and vector-Jacobian products of a recorded program, in chunks of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tscope_format.errors import AnalysisError, UsageError, clean

from tscope.program.export_tree import resize
from tscope.program.forward import dual_level, forward_ad
from tscope.program.functional import OutputFunctional
from tscope.program.program import Program

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Chunk:
    """Some rows of the inputs, padded if the program needs more; `count` of them are real."""

    inputs: tuple[Tensor, ...]
    functional: OutputFunctional
    count: int


def chunks(
    program: Program, functional: OutputFunctional, inputs: Sequence[Tensor], chunk: int | None
) -> Iterator[Chunk]:
    """Split the examples into chunks that the program can evaluate.

    A program with a fixed number of rows gets exactly that many, the last chunk padded by repetition; one
    with a free number at most `chunk` (None: all), and never fewer than it was found valid for (two:
    torch.export takes a single row for a broadcast).
    """
    batched = {entry.index for entry in program.arguments if entry.batch}
    if not batched:
        yield Chunk(tuple(inputs), functional, -1)
        return
    if max(batched) >= len(inputs):
        raise UsageError(f"the model needs {program.inputs} inputs, got {len(inputs)}")
    sizes = {len(inputs[index]) for index in batched}
    if len(sizes) > 1:
        raise UsageError(f"the inputs have different numbers of rows: {sorted(sizes)}")
    total = sizes.pop()
    if total == 0:
        raise UsageError("the inputs have no rows")
    if program.batch:
        most = program.graph.most_rows or total
        step = min(max(chunk or total, 1), most)
        least = program.graph.least_rows
    else:
        step = least = program.rows or total
    for start in range(0, total, step):
        stop = min(start + step, total)
        count = stop - start
        padded = max(count, least)
        pieces = (
            resize(value[start:stop], padded) if index in batched else value
            for index, value in enumerate(inputs)
        )
        part = functional.rows(start, stop)
        if padded > count and part.target is not None:
            part = OutputFunctional(part.kind, part.index, resize(part.target, padded))
        yield Chunk(tuple(pieces), part, count)


def evaluate(
    program: Program,
    functional: OutputFunctional,
    parameters: Tensors,
    buffers: Tensors,
    inputs: Sequence[Tensor],
    chunk: int | None = None,
) -> Tensor:
    """Return f(x; θ, b) (example, output) without a graph. One forward pass."""
    found = []
    with torch.no_grad():
        for part in chunks(program, functional, inputs, chunk):
            found.append(real(part, part.functional(program(parameters, buffers, part.inputs))))
    return torch.cat(found)


def output_shape(
    program: Program, parameters: Tensors, buffers: Tensors, inputs: Sequence[Tensor]
) -> tuple[int, ...]:
    """Return the shape of one example's output. One forward pass over the first examples."""
    with torch.no_grad():
        part = next(chunks(program, OutputFunctional(), inputs, 1))
        return tuple(program(parameters, buffers, part.inputs).shape[1:])


def jvp(
    program: Program,
    functional: OutputFunctional,
    parameters: Tensors,
    tangents: Tensors,
    buffers: Tensors,
    inputs: Sequence[Tensor],
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return f(x; θ) and J(x)·v, both (example, output), with J = ∂f/∂θ.

    Forward-mode differentiation: about three forward passes of work and memory of a single layer; the output
    is that of `evaluate` bit for bit. Parameters without a tangent stay fixed. Where an operator has no
    forward derivative, the product is the derivative in u of Jᵀu·v (two backward passes).

    Args:
        program: the model.
        functional: what of the output to follow.
        parameters: θ by name.
        tangents: v by name, of the parameters' shapes.
        buffers: buffers by name.
        inputs: the example rows.
        chunk: rows at a time; None for all at once.
    """
    outputs, products = [], []
    point = detached(program, parameters)
    direction = known_tangents(point, tangents)
    for part in chunks(program, functional, inputs, chunk):
        output, product = _jvp(program, point, direction, buffers, part)
        outputs.append(real(part, output))
        products.append(real(part, product))
    return torch.cat(outputs), torch.cat(products)


def vjp(
    program: Program,
    functional: OutputFunctional,
    parameters: Tensors,
    buffers: Tensors,
    inputs: Sequence[Tensor],
    cotangent: Tensor,
    chunk: int | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return f(x; θ) (example, output), and Jᵀu by parameter name. One forward and one backward pass.

    Args:
        program: the model.
        functional: what of the output to follow.
        parameters: θ by name.
        buffers: buffers by name.
        inputs: the example rows.
        cotangent: u (example, output); the products are summed over both.
        chunk: rows at a time; None for all at once.
    """
    point = _tracked(detached(program, parameters))
    sums = {name: torch.zeros_like(tensor, requires_grad=False) for name, tensor in point.items()}
    wanted = {name: tensor for name, tensor in point.items() if tensor.requires_grad}
    outputs, start = [], 0
    for part in chunks(program, functional, inputs, chunk):
        with torch.enable_grad():
            output = real(part, part.functional(program(point, buffers, part.inputs)))
        piece = cotangent[start : start + len(output)]
        start += len(output)
        if output.requires_grad:
            grads = torch.autograd.grad(
                output,
                list(wanted.values()),
                piece.to(output.dtype),
                allow_unused=True,
                materialize_grads=True,
            )
            for name, grad in zip(wanted, grads, strict=True):
                sums[name] += grad
        outputs.append(output.detach())
    return torch.cat(outputs), sums


def _jvp(
    program: Program, point: Tensors, direction: Tensors, buffers: Tensors, part: Chunk
) -> tuple[Tensor, Tensor]:
    if program.forward_derivatives:
        try:
            return forward_mode(program, point, direction, buffers, part)
        except NotImplementedError:
            program.forward_derivatives = False
    return double_backward(program, point, direction, buffers, part)


def forward_mode(
    program: Program, point: Tensors, direction: Tensors, buffers: Tensors, part: Chunk
) -> tuple[Tensor, Tensor]:
    """Dual numbers, as torch.func.jvp uses them, without its wrappers around every tensor."""
    with torch.no_grad(), dual_level():
        values = program.slots(point, buffers, part.inputs)
        for slot, entry in enumerate(program.graph.inputs, 1):
            if entry.kind == "parameter" and entry.name in direction:
                values[slot] = forward_ad.make_dual(values[slot], direction[entry.name])
        program.run(values, program.forward_steps, range(len(program.steps)))
        dual = part.functional(values[program.graph.output])
        output, product = forward_ad.unpack_dual(dual)
        return output, torch.zeros_like(output) if product is None else product


def double_backward(
    program: Program, point: Tensors, direction: Tensors, buffers: Tensors, part: Chunk
) -> tuple[Tensor, Tensor]:
    """Return the output and J·direction as the derivative in u of Jᵀu·direction, which is linear in u."""
    with torch.enable_grad():
        variables = _tracked({name: point[name] for name in direction})
        output = part.functional(program({**point, **variables}, buffers, part.inputs))
        if not output.requires_grad:
            return output.detach(), torch.zeros_like(output)
        u = torch.zeros_like(output, requires_grad=True)
        grads = _grad(output, list(variables.values()), u, create_graph=True)
        pairs = zip(grads, variables, strict=True)
        inner = sum(((grad * direction[name]).sum() for grad, name in pairs), torch.zeros(()))
        if not inner.requires_grad:
            return output.detach(), torch.zeros_like(output)
        try:
            (product,) = _grad(inner, [u])
        except NotImplementedError as error:
            raise AnalysisError(
                f"the model has no Jacobian-vector product: {clean(error)[:200]} (nor a forward derivative)"
            ) from error
    return output.detach(), product


def _grad(
    output: Tensor, inputs: list[Tensor], cotangent: Tensor | None = None, create_graph: bool = False
) -> tuple[Tensor, ...]:
    """Return the gradients, zero where an input is not used."""
    return torch.autograd.grad(
        output, inputs, cotangent, create_graph=create_graph, allow_unused=True, materialize_grads=True
    )


def detached(program: Program, parameters: Tensors) -> dict[str, Tensor]:
    """Return the parameters that the program uses, in the dtype of the evaluation."""
    used = set(program.parameters)
    return {name: tensor.detach() for name, tensor in program.cast(parameters).items() if name in used}


def known_tangents(point: Tensors, tangents: Tensors) -> dict[str, Tensor]:
    """Return the tangents of floating parameters that the program uses, in their dtype."""
    found = {}
    for name, tensor in point.items():
        if name not in tangents or not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        tangent = tangents[name].detach()
        if tangent.shape != tensor.shape:
            raise UsageError(
                f"the tangent of {name!r} has the shape {tuple(tangent.shape)}, not {tuple(tensor.shape)}"
            )
        found[name] = tangent.to(tensor.dtype)
    return found


def _tracked(point: Tensors) -> dict[str, Tensor]:
    return {
        name: tensor.detach().requires_grad_(tensor.is_floating_point() or tensor.is_complex())
        for name, tensor in point.items()
    }


def real(part: Chunk, values: Tensor) -> Tensor:
    """Return `values` without the rows of padding."""
    return values if part.count < 0 else values[: part.count]
