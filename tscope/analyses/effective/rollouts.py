"""Predictions that the recursion makes by itself, with the run's labels and with perturbed ones.

They are what the smoother is held against: with K, D and ρ frozen, a change δ of the labels must change the
rolled-out predictions by S δ. The derivatives of the loss come from autograd here, not from the formulas that
the smoother uses, so that the two can disagree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

    from tscope.optimizers import Loss, TrainingStep

COUNT = 2
"""The rollouts: telescoped, with the run's labels, and perturbed."""


class Rollouts:
    """Residuals of the rolled-out predictions.

    For squared loss the perturbed rollout is a second run from the same start, with labels y + sδ; for
    others, whose gradient is not linear in y, it is the derivative of the first one along δ. s makes sδ as
    large as the labels: what it does is a difference of predictions, which loses few digits so.

    Attributes:
        perturbation: δ (train, output).
        tangents: Which rollouts are derivatives (rollout,).
    """

    def __init__(self, loss: Loss, labels: Tensor, perturbation: Tensor) -> None:
        self._loss = loss
        self._labels = labels
        self.perturbation = perturbation
        size, change = float(labels.norm()), float(perturbation.norm())
        self._scale = size / change if size > 0 and change > 0 else 1.0
        self.tangents = torch.tensor([False, loss.kind != "mse"])

    def start(self, value: Tensor) -> Tensor:
        """Return what the rollouts start from (…, rollout): `value`, nothing for a derivative."""
        return torch.stack([torch.zeros_like(value) if tangent else value for tangent in self.tangents], -1)

    def residuals(self, step: TrainingStep, rows: Tensor, predictions: Tensor) -> Tensor:
        """Return ∂ℓ/∂f on the batch (slot, output, rollout).

        Args:
            step: The step.
            rows: The training points in the batch (slot,).
            predictions: The rollouts on the batch (slot, output, rollout).
        """
        f, other = predictions.unbind(-1)
        y, delta = self._labels[rows], self.perturbation[rows]
        c = self._loss.coefficients(step.sizes, f)[:, None]

        if not self.tangents[1]:
            pairs = ((f, y), (other, y + self._scale * delta))
            return torch.stack([_gradient(self._loss.kind, c, *pair).detach() for pair in pairs], -1)
        with torch.enable_grad():
            point = (f.detach().requires_grad_(), y.detach().requires_grad_())
            g = _gradient(self._loss.kind, c, *point)
            # The derivative of g along (other, δ) is that in u of uᵀg's derivative, which is linear in u.
            u = torch.zeros_like(g, requires_grad=True)
            by_f, by_y = torch.autograd.grad((g * u).sum(), point, create_graph=True)
            (along,) = torch.autograd.grad((by_f * other).sum() + (by_y * delta).sum(), u)
        return torch.stack([g.detach(), along], -1)

    def change(self, predictions: Tensor) -> Tensor:
        """Return what δ did to the predictions (point, output) of the rollouts (point, output, rollout)."""
        telescoped, perturbed = predictions.unbind(-1)
        return perturbed if self.tangents[1] else (perturbed - telescoped) / self._scale

    def cancellation(self, predictions: Tensor, change: Tensor) -> float:
        """Return ‖f̃‖ / ‖sSδ‖, which is how much rounding of f̃ weighs in `change`, at least 1.

        It is large where the outputs are much larger than the labels, as after an initialisation that is.
        """
        size = self._scale * float(change.double().norm())
        if self.tangents[1] or size == 0:
            return 1.0
        return max(1.0, float(predictions[..., 0].double().norm()) / size)


def _gradient(kind: str, c: Tensor, f: Tensor, y: Tensor) -> Tensor:
    """Return ∂ℓ/∂f (slot, output) at coefficients c (slot, 1), by autograd, differentiable once more."""
    with torch.enable_grad():
        at = f if f.requires_grad else f.detach().requires_grad_()
        (found,) = torch.autograd.grad((c * _value(kind, at, y)).sum(), at, create_graph=True)
    return found


def _value(kind: str, f: Tensor, y: Tensor) -> Tensor:
    """Return the loss of each slot and output, up to the reduction's coefficient (slot, output)."""
    if kind == "mse":
        return (f - y).square() / 2
    if kind == "bce":
        return functional.softplus(f) - y * f
    return -y * torch.log_softmax(f, 1)
