"""What the layers read in one forward pass, and the gradients of each output behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tscope.kernels import recurrent
from tscope.kernels.factors import Affine, Explicit, Factor, Lookup, Unfolding
from tscope.kernels.layout import Layout, split
from tscope.kernels.sites import Operand, Site, aligned_shape, arguments, multiplier
from tscope.program.derivatives import Chunk, Tensors, real
from tscope.program.graph import Node
from tscope.program.program import Program


@dataclass(frozen=True)
class Use:
    """One operand of one site, and its Jacobian on some examples."""

    site: Site
    operand: Operand
    factor: Factor


@dataclass(frozen=True)
class Pass:
    """A forward pass with its graph, ready to be differentiated by the values at the sites.

    Attributes:
        output: (example, output), padding left out.
        given: each site's arguments, by name.
        values: y, each site's output.
        elements: that all intermediate values together take.
    """

    output: Tensor
    given: tuple[dict[str, Any], ...]
    values: tuple[Tensor, ...]
    elements: int

    def gradients(self, cotangent: Tensor, *, last: bool) -> tuple[Tensor, ...]:
        """Return ∂(output·cotangent)/∂y for each site, zero where there is no path."""
        if not self.values or not self.output.requires_grad:
            return tuple(torch.zeros_like(value) for value in self.values)
        return torch.autograd.grad(
            self.output,
            self.values,
            cotangent,
            retain_graph=not last,
            allow_unused=True,
            materialize_grads=True,
        )


def forward(
    program: Program, sites: Sequence[Site], point: Tensors, buffers: Tensors, part: Chunk, *, measure: bool
) -> Pass:
    """Evaluate the program on a chunk, and keep the arguments and outputs of the sites.

    No parameter is differentiated: the graph that is built leads to the sites' outputs only, which saves the
    weights' gradients in the backward passes.

    Args:
        program: the model.
        sites: what to keep.
        point: parameters by name, without gradient.
        buffers: by name.
        part: the examples.
        measure: count the elements of all intermediate values (they are then all kept meanwhile).
    """
    given: list[dict[str, Any]] = [{} for _ in sites]
    values: list[Tensor] = [torch.empty(0)] * len(sites)

    def keeping(index: int, function: Callable[..., Any], node: Node) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            y = result if isinstance(result, Tensor) else result[0]
            if not y.requires_grad:
                y.requires_grad_()  # the first of its path: everything before it is constant
            given[index], values[index] = arguments(node, args, kwargs), y
            return result

        return call

    def unrolled(indices: Sequence[int], node: Node) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result, taps = recurrent.evaluate(node.target, arguments(node, args, kwargs))
            for index in indices:
                tap = taps[sites[index].tap]
                given[index], values[index] = {"input": tap.inputs}, tap.value
            return result

        return call

    steps = list(program.steps)
    at: dict[int, list[int]] = {}
    for index, site in enumerate(sites):
        at.setdefault(site.position, []).append(index)
    for position, indices in at.items():
        node = program.graph.nodes[position]
        function, bind, frees = steps[position]
        inner = sites[indices[0]].tap >= 0
        steps[position] = (
            unrolled(indices, node) if inner else keeping(indices[0], function, node),
            bind,
            frees,
        )
    with torch.enable_grad():
        slots = program.slots(point, buffers, part.inputs)
        program.run(slots, steps, range(len(steps)), keep=measure)
        output = real(part, part.functional(slots[program.graph.output]))
    elements = 0
    if measure:
        first = 1 + len(program.graph.inputs)
        elements = _elements(slots[first:], [*point.values(), *buffers.values(), *part.inputs])
    return Pass(output, tuple(given), tuple(values), elements)


def _elements(results: Sequence[Any], others: Sequence[Tensor]) -> int:
    """Return how many elements the results take in memory, views of each other and of the others left out."""
    known = {value.untyped_storage().data_ptr() for value in others}
    held = {}
    for value in results:
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes() // value.itemsize
    return sum(count for address, count in held.items() if address not in known)


def capture(
    program: Program,
    sites: Mapping[Site, Layout],
    point: Tensors,
    buffers: Tensors,
    part: Chunk,
    dtype: torch.dtype,
    along: Tensor | None = None,
) -> list[Use]:
    """Return the Jacobian of every operand at the sites, on the examples of a chunk, in `dtype`.

    One forward pass and a backward pass for each output; the examples must not influence each other, since
    all of them are differentiated at once.

    Args:
        program: the model.
        sites: what to differentiate by, and where its examples are.
        point: parameters by name, without gradient.
        buffers: by name.
        part: the examples.
        dtype: of the result.
        along: u (example, output): instead of every output, differentiate the single one u·f.
    """
    if not sites:
        return []
    run = forward(program, tuple(sites), point, buffers, part, measure=False)
    n, outputs = len(run.output), run.output.shape[1] if along is None else 1
    found = [torch.empty(0)] * len(sites)  # each (n, c, …, before, after, …)
    for c in range(outputs):
        if along is None:
            cotangent = torch.zeros_like(run.output)
            cotangent[:, c] = 1
        else:
            cotangent = along.to(run.output.dtype)
        gradients = run.gradients(cotangent, last=c == outputs - 1)
        for index, (gradient, layout) in enumerate(zip(gradients, sites.values(), strict=True)):
            column = layout.examples_first(gradient)[:n]
            if outputs == 1:
                found[index] = column.unsqueeze(1).to(dtype)
                continue
            if c == 0:
                found[index] = column.new_empty(n, outputs, *column.shape[1:], dtype=dtype)
            found[index][:, c] = column
    uses = []
    with torch.no_grad(), program.settings():
        for index, (site, layout) in enumerate(sites.items()):
            node, given = program.graph.nodes[site.position], run.given[index]
            uses += [Use(site, o, _factor(node, site, o, layout, given, found[index])) for o in site.operands]
    return uses


def _factor(
    node: Node, site: Site, operand: Operand, layout: Layout, given: Mapping[str, Any], G: Tensor
) -> Factor:
    """Return the factor of an operand from y's gradient G (example, output, …), in the layout's form."""
    if operand.role == "broadcast":
        return Explicit(_broadcast(node, site, operand, layout, given, G))
    n, c = G.shape[:2]
    x = layout.examples_first(given[site.factor].detach())[:n]
    if operand.role == "lookup":
        index = x.reshape(n, -1).long()
        G = G.reshape(n, c, index.shape[1], -1)
        padding = given["padding_idx"]
        if padding >= 0:
            G = G * (index != padding)[:, None, :, None]
        return Lookup(index, G, operand.shape)
    x = x.to(G.dtype)
    if operand.role == "affine":
        G = G.reshape(n, c, 1, -1, G.shape[-1])
        return Affine(x.reshape(n, -1, x.shape[-1]), G, operand.shape, operand.flipped)
    unfolding = _unfolding(operand, given)
    # (n, c, before, after, channel, *space) → (n, c, g, s, o): images of an example, then their positions
    G = split(G.flatten(2, 3), 3, (unfolding.groups, -1)).flatten(5)
    G = G.permute(0, 1, 3, 2, 5, 4).flatten(3, 4)
    return Affine(x.flatten(1, 2), G, operand.shape, unfolding=unfolding)


def _broadcast(
    node: Node, site: Site, operand: Operand, layout: Layout, given: Mapping[str, Any], G: Tensor
) -> Tensor:
    """Return ∂f/∂operand (example, output, *operand): G times its multiplier, summed where it broadcasts."""
    n, c = G.shape[:2]
    factor = multiplier(node, operand, given)
    dims = G.dim() - 4 + 1  # of y: the examples and what is around them are one axis there
    if isinstance(factor, Tensor):
        # Against y its missing dimensions are in front, and its examples may be all alike.
        factor = factor.reshape((1,) * (dims - factor.dim()) + factor.shape)
        if factor.shape[layout.axis] != 1:
            factor = layout.examples_first(factor)[:n]
        else:
            factor = factor.unsqueeze(layout.axis).unsqueeze(layout.axis).movedim(layout.axis, 0)
        G = (G * factor.unsqueeze(1)).to(G.dtype)
    elif factor != 1:
        G = G * factor
    # G is (n, c, *y before the axis, before, after, *y behind it)
    axis = layout.axis
    aligned = aligned_shape(site, operand, dims)
    sizes = (*aligned[:axis], 1, 1, *aligned[axis + 1 :])
    summed = [place for place, size in enumerate(sizes, 2) if size == 1]
    return G.sum(summed).reshape(n, c, *operand.shape)


def _unfolding(operand: Operand, given: Mapping[str, Any]) -> Unfolding:
    kernel = operand.shape[2:]
    dims = len(kernel)
    stride, dilation = (_each(given[name], dims) for name in ("stride", "dilation"))
    padding = given["padding"]
    if padding == "same":
        # As torch pads: what is left over goes behind.
        totals = [d * (size - 1) for d, size in zip(dilation, kernel, strict=True)]
        pairs = tuple((total // 2, total - total // 2) for total in totals)
    elif padding == "valid":
        pairs = ((0, 0),) * dims
    else:
        pairs = tuple((size, size) for size in _each(padding, dims))
    return Unfolding(kernel, stride, pairs, dilation, given["groups"])


def _each(value: Sequence[int] | int, dims: int) -> tuple[int, ...]:
    sizes = (value,) if isinstance(value, int) else tuple(value)
    return sizes * dims if len(sizes) == 1 else sizes


def elements_each(sites: Sequence[Site], run: Pass, outputs: int) -> float:
    """Return how many elements a pass over one example takes: what is kept, and the sites' gradients."""
    n = len(run.output)
    kept = 2 * run.elements + outputs * sum(value.numel() for value in run.values)
    # What a recurrent layer computes inside: its gates, their nonlinearities, the states.
    kept += 8 * sum(value.numel() for site, value in zip(sites, run.values, strict=True) if site.tap >= 0)
    # A weight's own Jacobian never is held, a broadcast operand's is.
    held = sum(math.prod(o.shape) for site in sites for o in site.operands if o.role == "broadcast")
    return kept / n + outputs * held
