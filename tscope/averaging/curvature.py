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
    """

    origin: Tensor
    moved: Tensor
    terms: Tensor

    def linear(self, weights: Sequence[float]) -> Tensor:
        """Return f_t' + J_t'(θ_w − θ_t') (example, output)."""
        return self.origin + self._weighted(self.moved, weights)

    def members(self, weights: Sequence[float]) -> Tensor:
        """Return Σ w_i c_i (example, output)."""
        return self._weighted(self.terms, weights)

    def predicted(self, weights: Sequence[float]) -> Tensor:
        """Return −Σ w_i(1 − w_i) c_i (example, output): what the members' terms say of average − ensemble.

        It is exact where curvature is quadratic along each member's way, c(sΔ_i) = s² c_i, and the ways do
        not interact, Δ_iᵀ∇²f Δ_j = 0: then c_w = Σ w_i² c_i. Of two members at α it is −α(1−α)(c_A + c_B).
        """
        return -self._weighted(self.terms, [weight * (1 - weight) for weight in weights])

    def _weighted(self, values: Tensor, weights: Sequence[float]) -> Tensor:
        factors = torch.tensor(list(weights), dtype=values.dtype, device=values.device)
        total: Tensor = torch.tensordot(factors, values, 1)
        return total


def linearised(origin: State, members: Sequence[State], outputs: Sequence[Tensor], push: Push) -> Curvature:
    """Return the models' linear parts and curvature terms. One forward-mode pass a member.

    Args:
        origin: θ_t'.
        members: θ_i.
        outputs: f_i (example, output) of each, in the dtype to compute in.
        push: Gives f and J·v (example, output) at θ_t' for a direction v by name.
    """
    moved = []
    first = torch.empty(0)
    for member in members:
        change = {n: v - origin.theta[n] for n, v in member.theta.items() if v.is_floating_point()}
        first, product = push(change)
        moved.append(product.to(outputs[0].dtype))
    base = first.to(outputs[0].dtype)
    terms = [output - base - product for output, product in zip(outputs, moved, strict=True)]
    return Curvature(base, torch.stack(moved), torch.stack(terms))
