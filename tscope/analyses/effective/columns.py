"""Columns of the recursion in parameter space: what a step makes of gradients that are linear in y."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from tscope_format.errors import AnalysisError, clean

if TYPE_CHECKING:
    from torch import Tensor

    from tscope.optimizers import LinearStep

    Tensors = Mapping[str, Tensor]


class FormError(AnalysisError):
    """A step of the run does not admit the chosen form of the recursion.

    Attributes:
        momentum: Because it has momentum.
        decay: Because it has weight decay.
    """

    def __init__(self, message: str, *, momentum: bool = False, decay: bool = False) -> None:
        super().__init__(message)
        self.momentum = momentum
        self.decay = decay


class Columns:
    """k columns of Θ and of the optimizer's momentum M.

        G = ρ JᵀR + λΘ,   M ← μM + ν D_in∘G,   Δ = −D_out∘(aM + bG) − wΘ,   Θ ← Θ + Δ

    (math.md §2). Everything is kept by parameter name with a leading column axis (column, …).

    Attributes:
        count: k.
        theta: Θ, if weight decay acts on columns of their own; else None.
    """

    def __init__(self, count: int, theta: Tensors | None = None, *, momentum: bool = True) -> None:
        self.count = count
        self.theta = None if theta is None else {name: value.clone() for name, value in theta.items()}
        self._keeps_momentum = momentum
        self._momentum: dict[str, Tensor] = {}

    def change(
        self, update: LinearStep, gradient: Tensors, fixed: Tensors | None = None
    ) -> dict[str, Tensor]:
        """Take one step and return Δ (column, …) by parameter name.

        Parameters that the optimizer does not hold do not change.

        Args:
            update: The optimizer's row of the table for this step.
            gradient: JᵀR before clipping (column, …). It is overwritten.
            fixed: What decay acts on instead of Θ: the recorded parameters, the same for every column.

        Raises:
            FormError: The step has momentum, and none was to be kept.
        """
        decaying = self.theta if self.theta is not None else fixed
        changes = {}
        for name, raw in gradient.items():
            if name not in update.mu:
                continue
            theta = None if decaying is None else decaying[name]
            G = raw.mul_(update.rho[name])
            if theta is not None and update.coupled[name]:
                G.add_(theta, alpha=update.coupled[name])
            M = self._advance_momentum(update, name, G)
            delta = M.mul(-update.a[name]).sub_(G, alpha=update.b[name])
            if update.d_out is not None:
                delta.mul_(update.d_out[name])
            if theta is not None and update.decoupled[name]:
                delta.sub_(theta, alpha=update.decoupled[name])
            if self.theta is not None:
                self.theta[name].add_(delta)
            changes[name] = delta
        return changes

    def memory(self) -> dict[str, Tensor]:
        """Return Θ and M by kind and parameter name; they are the tensors themselves, not copies."""
        theta = {} if self.theta is None else {f"theta/{name}": value for name, value in self.theta.items()}
        return theta | {f"momentum/{name}": value for name, value in self._momentum.items()}

    def recall(self, memory: Tensors) -> None:
        """Take over what `memory` returned of columns of the same kind."""
        for key, value in memory.items():
            kind, name = key.split("/", 1)
            if kind == "momentum":
                self._momentum[name] = value
            elif self.theta is not None:
                self.theta[name] = value

    def _advance_momentum(self, update: LinearStep, name: str, G: Tensor) -> Tensor:
        """Return M after the step (column, …)."""
        fresh = G * update.nu[name]
        if update.d_in is not None:
            fresh.mul_(update.d_in[name])
        mu = update.mu[name]
        if not self._keeps_momentum:
            if mu:
                raise _momentum_came(name, mu)
            return fresh
        if name in self._momentum and mu:
            self._momentum[name].mul_(mu).add_(fresh)
        else:
            self._momentum[name] = fresh
        return self._momentum[name]


def preconditioner(update: LinearStep, shapes: Tensors) -> tuple[float, dict[str, Tensor] | None]:
    """Return a step without momentum as γ and D: Δ = −γ D∘JᵀR, D None for the identity.

    D = ρ D_out∘(aν D_in + b) is the identity times γ where every parameter has the same number.

    Args:
        update: The optimizer's row of the table for this step.
        shapes: Tensors of the parameters' shapes.

    Raises:
        FormError: The step has momentum.
    """
    for name, mu in update.mu.items():
        if mu:
            raise _momentum_came(name, mu)
    names = [name for name in shapes if name in update.mu]
    if update.d_in is None and update.d_out is None and len(names) == len(shapes):
        factors = {update.rho[n] * (update.a[n] * update.nu[n] + update.b[n]) for n in names}
        if len(factors) == 1:
            return factors.pop(), None
    diagonals = {}
    for name, like in shapes.items():
        if name not in update.mu:
            diagonals[name] = torch.zeros_like(like)
            continue
        inner = torch.full_like(like, update.a[name] * update.nu[name])
        if update.d_in is not None:
            inner.mul_(update.d_in[name])
        inner.add_(update.b[name])
        if update.d_out is not None:
            inner.mul_(update.d_out[name])
        diagonals[name] = inner.mul_(update.rho[name])
    return 1.0, diagonals


def _momentum_came(name: str, mu: float) -> FormError:
    return FormError(f"the optimizer took up momentum ({mu:g}) for {clean(name)}", momentum=True)
