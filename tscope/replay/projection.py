"""Projections by replay: what each recorded step did to the outputs of a probe set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tscope.replay.evaluation import Evaluation, along, difference
from tscope.replay.flat import Tensors
from tscope.replay.lazy import LazyModel
from tscope.replay.replay import Replay

Nodes = Sequence[tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Projection:
    """The effect of the interval that ends at one row.

    Attributes:
        row: The row t.
        output: f(θ_t, b_t) (example, output).
        held: f(θ_t, b_{t−1}), the output with the buffers held (example, output).
        gradient: Σ_k w_k J(θ_{t−1} + s_kΔθ)Δθ with buffers b_{t−1} (example, output).
        layers: The same for each layer (layer, example, output), if layers were asked for.
        lazy: J_0(θ_t − θ_0) with buffers b_0 (example, output).
    """

    row: int
    output: Tensor
    held: Tensor
    gradient: Tensor
    layers: Tensor | None
    lazy: Tensor


def project(
    replay: Replay,
    evaluation: Evaluation,
    rows: Sequence[int],
    nodes: Nodes,
    layers: Mapping[str, Sequence[str]] | None,
    lazy: LazyModel,
) -> Iterator[Projection]:
    """Yield the projection of each of `rows`, the first of which is the start of the run.

    A row costs one forward-mode pass for each node of the rule (times about the number of layers, if they are
    asked for), which at place 0 gives f(θ_{t−1}, b_{t−1}) too (another rule: one forward pass more), and one
    linear pass for the lazy model. A change of the buffers costs one forward pass more.

    Args:
        replay: The run.
        evaluation: The probe set under the model.
        rows: Increasing rows; each stands for the interval from the one before it.
        nodes: (place, weight) pairs of the rule along each interval.
        layers: The parameters of each layer, or None for the whole only.
        lazy: The model linearised at the first row.
    """
    groups = None if layers is None else [tuple(names) for names in layers.values()]
    states = replay.at(rows)
    _, theta, buffers = next(states)
    output = evaluation.value(theta, buffers)
    none = torch.zeros_like(output)
    start = None if groups is None else output.new_zeros((len(groups), *output.shape))
    yield Projection(rows[0], output, output, none, start, none)
    step: _Step | None = None
    for row, after, buffers_after in states:
        change = difference(after, theta)
        here, gradient, parts = _along_segment(evaluation, theta, change, buffers, nodes, groups)
        if step is not None:
            yield step.seen(evaluation.value(theta, buffers) if here is None else here)
        held = None if _same(buffers, buffers_after) else evaluation.value(after, buffers)
        step = _Step(row, gradient, parts, lazy(after), held)
        theta, buffers = after, buffers_after
    if step is not None:
        yield step.seen(evaluation.value(theta, buffers))


@dataclass(frozen=True, eq=False)
class _Step:
    """A projection that waits for its output, which the next row's pass gives for nothing."""

    row: int
    gradient: Tensor
    layers: Tensor | None
    lazy: Tensor
    held: Tensor | None

    def seen(self, output: Tensor) -> Projection:
        held = output if self.held is None else self.held
        return Projection(self.row, output, held, self.gradient, self.layers, self.lazy)


def _along_segment(
    evaluation: Evaluation,
    theta: Tensors,
    change: Tensors,
    buffers: Tensors,
    nodes: Nodes,
    groups: Sequence[Sequence[str]] | None,
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """Return f(θ) if the rule has a node there, ∫J(θ + sΔθ)Δθ ds by the rule, and its parts by layer."""
    here: Tensor | None = None
    parts: list[Tensor] = []
    for place, weight in nodes:
        point = along(theta, change, place)
        if groups is None:
            output, value = evaluation.jvp(point, change, buffers)
        else:
            output, value = evaluation.jvp_layers(point, change, groups, buffers)
        here = output if place == 0.0 else here
        parts.append(weight * value)
    total = torch.stack(parts).sum(0)
    return (here, total, None) if groups is None else (here, total.sum(0), total)


def _same(before: Tensors, after: Tensors) -> bool:
    return all(torch.equal(value, after[name]) for name, value in before.items())
