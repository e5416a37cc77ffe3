"""Label sensitivity by autograd through the unrolled training with frozen Jacobians: short, slow, float64.

Every step's J is dense, on the original module; K, D and ρ are frozen, and nothing is linearised by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tests.reference.telescoping import jacobian, outputs
from tscope.optimizers import TrainingStep

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": nn.functional.mse_loss,
    "mse sum": lambda f, y: nn.functional.mse_loss(f, y, reduction="sum"),
    "bce": nn.functional.binary_cross_entropy_with_logits,
    "cross_entropy": nn.functional.cross_entropy,
}


@dataclass(frozen=True)
class Unrolled:
    predictions: Tensor  # f̃ after the last step (point, output)
    smoother: Tensor  # ∂f̃/∂y (point, output, example, label)
    real: Tensor  # f_0 + ΣJΔθ with the recorded Δθ (point, output)

    def p(self, start: int, stop: int, tangent: Tensor | None = None) -> float:
        """Effective parameters of the points start … stop, the labels moving within `tangent`."""
        S = self.smoother[start:stop]
        n, C = S.shape[2:]
        S = S if tangent is None else S @ tangent
        return n / (stop - start) * float(S.square().sum()) / C


def unrolled(
    module: nn.Module,
    steps: Sequence[TrainingStep],
    points: Tensor,
    labels: Tensor,
    loss: str,
    *,
    frozen: bool = False,
) -> Unrolled:
    """The points begin with the training examples, in the order of their numbers; so do the labels."""
    names = list(steps[0].gradient)
    sizes = [steps[0].theta[name].numel() for name in names]

    def flat(values) -> Tensor:
        return torch.cat([values[name].reshape(-1) for name in names])

    def spread(numbers) -> Tensor:
        pairs = zip(names, sizes, strict=True)
        return torch.cat([torch.full((k,), numbers.get(n, 0), dtype=torch.float64) for n, k in pairs])

    def diagonal(values) -> Tensor | float:
        return 1.0 if values is None else flat({n: values.get(n, torch.zeros_like(t)) for n, t in likes})

    likes = [(name, steps[0].theta[name]) for name in names]
    first = outputs(module, steps[0].theta, {}, (points,)).detach()
    dense = [
        torch.cat([jacobian(module, step.theta, {}, (points,))[n] for n in names], 2).detach()
        for step in steps
    ]

    def run(y: Tensor) -> Tensor:
        f, theta, momentum = first, flat(steps[0].theta), torch.zeros(sum(sizes)).double()
        for step, J in zip(steps, dense, strict=True):
            update, b = step.update, step.examples
            at = f[b] if f.requires_grad else f[b].detach().requires_grad_()
            total, start = torch.zeros(()).double(), 0
            for size in step.sizes:
                part = slice(start, start + size)
                total = total + LOSSES[loss](at[part], y[b][part]) / len(step.sizes)
                start += size
            (g,) = torch.autograd.grad(total, at, create_graph=True)
            theta_ = flat(step.theta) if frozen else theta
            G = spread(update.rho) * torch.einsum("bcp,bc->p", J[b], g) + spread(update.coupled) * theta_
            momentum = spread(update.mu) * momentum + spread(update.nu) * diagonal(update.d_in) * G
            change = -diagonal(update.d_out) * (spread(update.a) * momentum + spread(update.b) * G)
            change = change - spread(update.decoupled) * theta_
            theta, f = theta + change, f + J @ change
        return f

    change = [flat(step.after) - flat(step.theta) for step in steps]
    real = first + sum(J @ delta for J, delta in zip(dense, change, strict=True))
    y = labels.double()
    S = torch.autograd.functional.jacobian(run, y)
    return Unrolled(run(y).detach(), S, real)
