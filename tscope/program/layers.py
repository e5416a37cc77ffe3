"""Jacobian-vector products split by groups of parameters: what each layer's change does to the output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tscope.program.derivatives import (
    Chunk,
    Tensors,
    chunks,
    detached,
    double_backward,
    known_tangents,
    real,
)
from tscope.program.forward import dual_level, forward_ad
from tscope.program.functional import OutputFunctional
from tscope.program.graph import references
from tscope.program.program import Program

Group = Mapping[str, Tensor]


def jvp_layers(
    program: Program,
    functional: OutputFunctional,
    parameters: Tensors,
    tangents: Tensors,
    groups: Sequence[Sequence[str]],
    buffers: Tensors,
    inputs: Sequence[Tensor],
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return f(x; θ) (example, output), and J^(l)(x)·v^(l) (group, example, output) for each group l.

    J^(l) is J restricted to the group's parameters, so over a partition of the parameters the products add
    up to `jvp`. The model is evaluated once and its intermediate values are kept; a group then needs a
    forward-mode pass only from where its parameters are first used, half the model on average. Groups whose
    parameters the program does not use, or without tangents, contribute zero.
    """
    point = detached(program, parameters)
    direction = known_tangents(point, tangents)
    split = [{name: direction[name] for name in group if name in direction} for group in groups]
    reached = [_reached(program, group) for group in split]
    outputs, products = [], []
    for part in chunks(program, functional, inputs, chunk):
        output, product = _layers(program, point, split, reached, buffers, part)
        outputs.append(real(part, output))
        products.append(torch.stack([real(part, value) for value in product]))
    return torch.cat(outputs), torch.cat(products, 1)


def _layers(
    program: Program,
    point: Tensors,
    split: Sequence[Group],
    reached: Sequence[Sequence[int]],
    buffers: Tensors,
    part: Chunk,
) -> tuple[Tensor, list[Tensor]]:
    if program.forward_derivatives:
        try:
            return _forward(program, point, split, reached, buffers, part)
        except NotImplementedError:
            program.forward_derivatives = False
    found = [double_backward(program, point, group, buffers, part) for group in split]
    return found[0][0], [product for _, product in found]


def _forward(
    program: Program,
    point: Tensors,
    split: Sequence[Group],
    reached: Sequence[Sequence[int]],
    buffers: Tensors,
    part: Chunk,
) -> tuple[Tensor, list[Tensor]]:
    with torch.no_grad():
        values = program.slots(point, buffers, part.inputs)
        program.run(values, program.steps, range(len(program.steps)), keep=True)
        output = part.functional(values[program.graph.output])
        products = []
        for group, positions in zip(split, reached, strict=True):
            with dual_level():
                slots = values.copy()
                for slot, entry in enumerate(program.graph.inputs, 1):
                    if entry.kind == "parameter" and entry.name in group:
                        slots[slot] = forward_ad.make_dual(slots[slot], group[entry.name])
                program.run(slots, program.forward_steps, positions)
                dual = part.functional(slots[program.graph.output])
                product = forward_ad.unpack_dual(dual).tangent
                products.append(torch.zeros_like(output) if product is None else product)
    return output, products


def _reached(program: Program, group: Group) -> list[int]:
    """Return the positions of the nodes that depend on the group's parameters."""
    inputs = program.graph.inputs
    moving = {
        slot for slot, entry in enumerate(inputs, 1) if entry.kind == "parameter" and entry.name in group
    }
    positions = []
    for position, node in enumerate(program.graph.nodes):
        if any(slot in moving for slot in references((node.args, node.kwargs))):
            moving.add(1 + len(inputs) + position)
            positions.append(position)
    return positions
