"""How a program's Jacobian is taken: which parameters by their layers, which by differentiation."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from tscope_format.errors import AnalysisError

from tscope.kernels.capture import Pass, elements_each, forward
from tscope.kernels.differentiate import can_be_batched
from tscope.kernels.layout import Layout, candidates, fitting, overlap
from tscope.kernels.sites import Operand, Site, aligned_shape, find_sites
from tscope.program.derivatives import Chunk, Tensors, chunks
from tscope.program.functional import OutputFunctional
from tscope.program.program import Program

# Examples of the trial pass. A prime beyond the usual numbers of heads, channels and positions, so that an
# axis of another meaning is seldom taken for a multiple of it.
_ROWS = 7

_PLANS: weakref.WeakKeyDictionary[Program, dict[object, Plan]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Plan:
    """How the Jacobian of a program is taken. It depends on the graph alone, not on the parameters' values.

    Attributes:
        sites: the nodes whose parameters are done by layers, and where their examples are.
        rest: the parameters that need differentiation of the whole program.
        outputs: how many an example has.
        elements: that a pass takes for each example, with the gradients of every output.
        single: the same with those of a single combination of them.
        tried: what `batched` found; empty until it is asked for.
    """

    sites: dict[Site, Layout]
    rest: tuple[str, ...]
    outputs: int
    elements: float
    single: float
    tried: list[bool] = field(default_factory=list)

    def batched(self, program: Program, point: Tensors, buffers: Tensors, part: Chunk) -> bool:
        """Return whether the whole can be differentiated for many examples at once; tried on some of a chunk.

        Tried when it is first needed, since it takes the memory of a whole Jacobian of a few examples.
        """
        if not self.tried:
            self.tried.append(can_be_batched(program, self.rest, point, buffers, part))
        return self.tried[0]


def plan_for(
    program: Program,
    functional: OutputFunctional,
    names: frozenset[str],
    point: Tensors,
    buffers: Tensors,
    inputs: Sequence[Tensor],
) -> Plan:
    """Return the plan of a program, made once from a trial pass over a few examples.

    Where the examples are in a value is not written in the graph. Each of three examples' outputs is
    differentiated by every value that a parameter enters through, and the gradient must lie in one part of
    it, a different one for each example. The trial is at parameters moved at random, since at those of a run
    whole layers may have no gradient (a head that starts at zero). What cannot be told is differentiated as a
    whole: slower, and as exact.

    Raises:
        AnalysisError: if examples influence each other's outputs.
    """
    plans = _PLANS.setdefault(program, {})
    key = (functional.kind, functional.index, names)
    if key not in plans:
        plans[key] = _plan(program, functional, names, point, buffers, inputs)
    return plans[key]


def _plan(
    program: Program,
    functional: OutputFunctional,
    names: frozenset[str],
    point: Tensors,
    buffers: Tensors,
    inputs: Sequence[Tensor],
) -> Plan:
    sites, other = find_sites(program)
    part = _trial(program, functional, inputs)
    run = forward(program, sites, _moved(point), buffers, part, measure=True)
    if not run.output.isfinite().all():  # a parameter that must be positive, say
        run = forward(program, sites, point, buffers, part, measure=True)
    layouts = _layouts(program, sites, run, part) if part.count > 0 else {}
    # A parameter is done by layers only if every use of it is understood.
    known = {o.parameter for site in layouts for o in site.operands} - other
    lost = {o.parameter for site in sites if site not in layouts for o in site.operands}
    known = (known - lost) & names
    kept = {
        replace(site, operands=operands): layout
        for site, layout in layouts.items()
        if (operands := tuple(o for o in site.operands if o.parameter in known))
    }
    rest = tuple(name for name in program.parameters if name in names - known and name in other | lost)
    outputs = run.output.shape[1]
    elements = elements_each(sites, run, outputs)
    single = elements_each(sites, run, 1)
    if rest:  # in full, and a pass of its own for each output
        least = program.graph.least_rows
        elements += 2 * outputs * sum(point[name].numel() for name in rest)
        elements += least * (1 + outputs) * run.elements / len(run.output)
    return Plan(kept, rest, outputs, max(1.0, elements), max(1.0, single))


def _trial(program: Program, functional: OutputFunctional, inputs: Sequence[Tensor]) -> Chunk:
    """Return the first rows, repeated if there are not enough."""
    batched = {entry.index for entry in program.arguments if entry.batch}
    rows = max(_ROWS, program.graph.least_rows)
    rows = min(rows, program.graph.most_rows or rows) if program.batch else program.rows or rows
    index = torch.arange(rows)
    inputs = [
        value[(index % len(value)).to(value.device)] if place in batched else value
        for place, value in enumerate(inputs)
    ]
    return next(chunks(program, functional, inputs, rows))


def _moved(point: Tensors) -> dict[str, Tensor]:
    """Return parameters of the usual size nearby, none of them special."""
    generator = torch.Generator().manual_seed(0)
    moved = {}
    for name, value in point.items():
        if not value.is_floating_point():
            moved[name] = value
            continue
        spread = (value.shape[-1] if value.dim() > 1 else 16) ** -0.5
        noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        moved[name] = value + (0.5 * spread * noise).to(value.dtype).to(value.device)
    return moved


def _layouts(program: Program, sites: Sequence[Site], run: Pass, part: Chunk) -> dict[Site, Layout]:
    rows = sorted({0, min(1, part.count - 1), part.count - 1})
    if len(rows) < 2 or not run.output.isfinite().all():
        return {}
    generator = torch.Generator().manual_seed(1)
    weights = 0.5 + torch.rand(run.output.shape[1], generator=generator).to(run.output)
    supports = []
    for row in rows:
        cotangent = torch.zeros_like(run.output)
        cotangent[row] = weights
        gradients = run.gradients(cotangent, last=row == rows[-1])
        if not all(bool(gradient.isfinite().all()) for gradient in gradients):
            return {}
        supports.append([gradient != 0 for gradient in gradients])
    found = {}
    examples = len(part.inputs[next(entry.index for entry in program.arguments if entry.batch)])
    for index, site in enumerate(sites):
        support = [supported[index] for supported in supports]
        if site.data and overlap(support):
            node = program.graph.nodes[site.position]
            raise AnalysisError(
                f"the model's examples influence each other (at the node {node.name!r}, before "
                f"{site.operands[0].parameter!r}): a tangent kernel between examples is not defined; "
                "export the model without batch statistics"
            )
        value = run.values[index]
        axes = set(range(value.dim()))
        for operand in site.operands:
            axes &= _axes(site, operand, run, index)
        layout = fitting(candidates(value.shape, sorted(axes), examples), support, rows)
        if layout is not None:
            found[site] = layout
    return found


def _axes(site: Site, operand: Operand, run: Pass, index: int) -> set[int]:
    """Return the axes of the value that the operand does not lie along."""
    value = run.values[index]
    if operand.role == "broadcast":
        dims = value.dim()
        return {axis for axis, size in enumerate(aligned_shape(site, operand, dims)) if size == 1}
    x = run.given[index][site.factor]
    if operand.role == "convolution":
        return {0} if x.dim() == site.dims else set()
    if operand.role == "affine" and x.dim() != value.dim():
        return set()
    return set(range(value.dim() - 1))
