"""What first order around a common point leaves out of models that were trained from there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tscope.averaging.interpolation import State

Push = Callable[[Mapping[str, Tensor]], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Curvature:
    """Models linearised at θ_t': f_i = f_t' + J_t'(θ_i − θ_t') + c_i, with curvature terms c_i.

    For weights w that sum to one, with θ_w = Σ w_i θ_i and c_w its own curvature term,

        f(θ_w) − Σ w_i f_i = c_w − Σ w_i c_i

    since J_t'(θ_w − θ_t') is linear: an average differs from the ensemble by curvature alone [Jeffares24].

    Attributes:
        origin: f_t' (example, output).
        moved: J_t'(θ_i − θ_t') (member, example, output).
        terms: c_i (member, example, output).
        bends: q_ij (example, output) of each two members i > j, see `bend`.
    """

    origin: Tensor
    moved: Tensor
    terms: Tensor
    bends: Mapping[tuple[int, int], Tensor]

    def linear(self, weights: Sequence[float]) -> Tensor:
        """Return f_t' + J_t'(θ_w − θ_t') (example, output)."""
        return self.origin + self._weighted(self.moved, weights)

    def members(self, weights: Sequence[float]) -> Tensor:
        """Return Σ w_i c_i (example, output)."""
        return self._weighted(self.terms, weights)

    def predicted(self, weights: Sequence[float]) -> Tensor:
        """Return −Σ_{i>j} w_i w_j q_ij (example, output): average − ensemble to second order around θ_t'.

        Exact where f is quadratic. Of two members at α it is −α(1−α) q, q the curvature of f along the line
        between the two, but taken at the fork.
        """
        total = torch.zeros_like(self.origin)
        for (i, j), value in self.bends.items():
            total -= weights[i] * weights[j] * value
        return total

    def alone(self, weights: Sequence[float]) -> Tensor:
        """Return −Σ w_i(1 − w_i) c_i (example, output): what the members' own terms say of it.

        That of a quadratic f whose members went independent ways from θ_t', Δ_iᵀ∇²f Δ_j = 0. Members that
        went the same way share their curvature, and little of it is left between them.
        """
        return -self._weighted(self.terms, [weight * (1 - weight) for weight in weights])

    def _weighted(self, values: Tensor, weights: Sequence[float]) -> Tensor:
        factors = torch.tensor(list(weights), dtype=values.dtype, device=values.device)
        total: Tensor = torch.tensordot(factors, values, 1)
        return total


def bend(origin: State, a: State, b: State) -> tuple[State, State]:
    """Return θ_t' ± (θ_a − θ_b), with the origin's buffers: the places whose outputs make q_ab.

        q_ab = ½ [f(θ_t' + d) + f(θ_t' − d)] − f_t',   d = θ_a − θ_b

    is ½ d·∇²f·d up to fourth order, and c of θ_t' + d without its odd part.
    """
    found = []
    for sign in (1, -1):
        theta = {
            name: value + sign * (a.theta[name] - b.theta[name]) if value.is_floating_point() else value
            for name, value in origin.theta.items()
        }
        found.append(State(theta, origin.buffers))
    return found[0], found[1]


def linearised(
    origin: State,
    members: Sequence[State],
    outputs: Sequence[Tensor],
    push: Push,
    ends: Mapping[tuple[int, int], tuple[Tensor, Tensor]],
) -> Curvature:
    """Return the models' linear parts and curvature terms. One forward-mode pass a member.

    Args:
        origin: θ_t'.
        members: θ_i.
        outputs: f_i (example, output) of each, in the dtype to compute in.
        push: Gives f and J·v (example, output) at θ_t' for a direction v by name.
        ends: f at the two places of `bend` for members i > j; without them there is no second order.
    """
    moved = []
    first = torch.empty(0)
    for member in members:
        change = {n: v - origin.theta[n] for n, v in member.theta.items() if v.is_floating_point()}
        first, product = push(change)
        moved.append(product.to(outputs[0].dtype))
    base = first.to(outputs[0].dtype)
    terms = [output - base - product for output, product in zip(outputs, moved, strict=True)]
    bends = {pair: (plus + minus) / 2 - base for pair, (plus, minus) in ends.items()}
    return Curvature(base, torch.stack(moved), torch.stack(terms), bends)
