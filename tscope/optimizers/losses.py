"""The losses whose gradient at the output is c·(μ(f) − y): squared, cross-entropy and binary cross-entropy.

Their second derivatives are what the recursion needs (math.md §3):

    H = ∂²ℓ/∂f² = c μ'(f)        N = ∂²ℓ/∂f∂y
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["mse", "cross_entropy", "bce"]
Reduction = Literal["mean", "sum"]

KINDS: tuple[Kind, ...] = ("mse", "cross_entropy", "bce")


@dataclass(frozen=True, eq=False)
class Loss:
    """A loss with ∂L/∂f = c·(μ(f) − y) for each example of a batch.

    c = factor/B in a micro-batch of B examples ("mean"), or c = factor ("sum"). For `mse_loss` of mean
    reduction factor = 2/C, so that c = κ = 2/(BC); for `cross_entropy` it is 1, for
    `binary_cross_entropy_with_logits` 1/C.

    Attributes:
        kind: μ(f) is f ("mse"), softmax f ("cross_entropy") or the logistic function of f ("bce").
        factor: see above.
        reduction: how c depends on the size of the micro-batch. Where all are of one size it is "mean".
        labels: y (example, output) float64, by rows of `examples/`; NaN for an example never trained on.
        spread: root mean square of (μ(f) − ∂L/∂f / c − y) over all visits, relative to that of μ(f) − y: how
            far the recorded gradients are from this loss with these labels.
        visits: on how many visits of examples `spread` was measured.
    """

    kind: Kind
    factor: float
    reduction: Reduction
    labels: Tensor
    spread: float = math.nan
    visits: int = 0

    def mean(self, output: Tensor) -> Tensor:
        """Return μ(f) (slot, output) of f (slot, output)."""
        return mean(self.kind, output)

    def coefficients(self, sizes: Sequence[int], like: Tensor) -> Tensor:
        """Return c (slot,) for micro-batches of these sizes, in the dtype and on the device of `like`."""
        return self.factor * reduction_weights(self.reduction, sizes, like)

    def gradient(self, output: Tensor, examples: Tensor, sizes: Sequence[int]) -> Tensor:
        """Return ∂L/∂f (slot, output).

        Args:
            output: f (slot, output).
            examples: (slot,) rows of `labels`.
            sizes: sizes of the micro-batches that the slots belong to, in order.
        """
        y = self.labels[examples].to(output)
        return self.coefficients(sizes, output)[:, None] * (self.mean(output) - y)

    def hessian(self, output: Tensor, sizes: Sequence[int]) -> Tensor:
        """Return H = ∂²L/∂f² (slot, output, output), the reduction's factor included.

        MSE: κI. BCE: c·diag(p(1 − p)). Cross-entropy: c·(diag p − ppᵀ), for labels that sum to one.
        """
        c = self.coefficients(sizes, output)[:, None, None]
        if self.kind == "mse":
            return c * torch.eye(output.shape[1], dtype=output.dtype, device=output.device)
        p = self.mean(output)
        if self.kind == "bce":
            return c * torch.diag_embed(p * (1 - p))
        return c * (torch.diag_embed(p) - p[:, :, None] * p[:, None, :])

    def cross(self, output: Tensor, sizes: Sequence[int]) -> Tensor:
        """Return N = ∂²L/∂f∂y (slot, output, label), the reduction's factor included.

        −cI for MSE and BCE. Cross-entropy: c·(p1ᵀ − I) since ℓ = −Σ_k y_k log p_k; for changes of y that keep
        its sum it acts as −cI.
        """
        c = self.coefficients(sizes, output)[:, None, None]
        identity = torch.eye(output.shape[1], dtype=output.dtype, device=output.device)
        if self.kind != "cross_entropy":
            return -c * identity
        return c * (self.mean(output)[:, :, None] - identity)


def mean(kind: Kind, output: Tensor) -> Tensor:
    """Return μ(f) of f (slot, output)."""
    if kind == "mse":
        return output
    return torch.softmax(output, 1) if kind == "cross_entropy" else torch.sigmoid(output)


def reduction_weights(reduction: Reduction, sizes: Sequence[int], like: Tensor) -> Tensor:
    """Return 1/B ("mean") or 1 ("sum") for each slot (slot,) of micro-batches of these sizes."""
    counts = torch.tensor(list(sizes), device=like.device)
    weights = (
        1.0 / counts.to(like.dtype) if reduction == "mean" else torch.ones_like(counts, dtype=like.dtype)
    )
    return torch.repeat_interleave(weights, counts)
