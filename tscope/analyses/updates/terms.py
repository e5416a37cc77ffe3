"""The terms of an optimizer's step: plain gradient descent, and what each further rule changes about it.

With g = J_bᵀ∂L/∂f, γ the learning rate and the symbols of `LinearStep`, five updates lead from plain gradient
descent to what the optimizer did, and a term is the difference that one rule makes:

    U₀ = −γ s g                          gradient            s = −1 with `maximize`, else 1
    U₁ = −γ ρ g                          clipping            U₁ − U₀
    U₂ = −γ D_in∘D_out∘ρg                preconditioning     U₂ − U₁
    U₃ = −D_out∘(aM^g + bρg)             memory              U₃ − U₂
    U₄ = U₃ − D_out∘(aM^λ + bλθ)         coupled decay       U₄ − U₃
    U₅ = U₄ − wθ                         decoupled decay     U₅ − U₄
    Δθ                                   adapter residual    Δθ − U₅

M is linear in what it averages, so M = M^g + M^λ, the moments of ρg and of λθ. U₂ is the optimizer without
momentum, D as it was: in Adam β1 = 0. D, ρ and γ are the recorded run's, numbers like any other: that decay
and earlier gradients are in D too is not taken apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from tscope.optimizers import LinearStep, TrainingStep

TERMS = (
    "gradient",
    "clipping",
    "preconditioning",
    "memory",
    "coupled_decay",
    "decoupled_decay",
    "adapter_residual",
)
"""The terms, in their order."""

LEARNED = TERMS[:4]
"""Those that gradients made: U₃, which is a sum over training examples."""

Parts = dict[str, dict[str, Tensor]]


class Splitter:
    """Takes the steps of a run apart, in their order: it carries M^g and M^λ along."""

    def __init__(self) -> None:
        self._of_gradients: dict[str, Tensor] = {}
        self._of_decay: dict[str, Tensor] = {}

    def split(self, step: TrainingStep) -> Parts:
        """Return the terms of one step, by term and parameter name; what is left out is zero.

        A few passes over the parameters. They add up to the recorded Δθ.
        """
        parts: Parts = {term: {} for term in TERMS}
        change = step.change
        for name, gradient in step.gradient.items():
            rest = change[name]
            if step.update is not None and name in step.update.mu:
                learned, found = self._learned(step.update, name, gradient)
                decays = self._decays(step.update, name, step.theta[name])
                for term, value in {**found, **decays}.items():
                    parts[term][name] = value
                rest = rest - learned
                for value in decays.values():
                    rest = rest - value
            parts["adapter_residual"][name] = rest
        return parts

    def _learned(self, update: LinearStep, name: str, gradient: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return U₃, and the terms that it is the sum of."""
        rho, rate = update.rho[name], update.rate[name]
        sign = math.copysign(1.0, rho)
        found = {"gradient": gradient * (-rate * sign)}
        if rho != sign:
            found["clipping"] = gradient * (-rate * (rho - sign))
        used = gradient * rho
        clipped = used * -rate
        scaled = _times(_times(clipped, update.d_in, name), update.d_out, name)
        if scaled is not clipped:
            found["preconditioning"] = scaled - clipped
        a, b, mu = update.a[name], update.b[name], update.mu[name]
        moment = _advance(self._of_gradients, name, mu, update.nu[name] * _times(used, update.d_in, name))
        # Without momentum the two are the same, and differ by rounding only.
        if (mu and a) or a * update.nu[name] + b != rate:
            whole = _times(moment * -a - used * b, update.d_out, name)
            found["memory"] = whole - scaled
            scaled = whole
        return scaled, found

    def _decays(self, update: LinearStep, name: str, theta: Tensor) -> dict[str, Tensor]:
        found = {}
        coupled, decoupled = update.coupled[name], update.decoupled[name]
        if coupled or name in self._of_decay:
            used = theta * coupled
            inner = update.nu[name] * _times(used, update.d_in, name)
            moment = _advance(self._of_decay, name, update.mu[name], inner)
            found["coupled_decay"] = _times(
                moment * -update.a[name] - used * update.b[name], update.d_out, name
            )
        if decoupled:
            found["decoupled_decay"] = theta * -decoupled
        return found


def _advance(moments: dict[str, Tensor], name: str, mu: float, fresh: Tensor) -> Tensor:
    """Return M ← μM + fresh, M = 0 before the first time."""
    before = moments.get(name)
    moments[name] = fresh if before is None or mu == 0 else fresh.add(before, alpha=mu)
    return moments[name]


def _times(values: Tensor, diagonal: Mapping[str, Tensor] | None, name: str) -> Tensor:
    return values if diagonal is None else values * diagonal[name]
