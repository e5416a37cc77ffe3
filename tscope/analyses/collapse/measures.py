"""NC1 to NC4 of the features of one set of examples [Papyan20; math.md §7], in float64.

With μ_c the mean of class c's features and μ_G the mean of the C class means, so that every class counts the
same: M = (μ_1 − μ_G, …, μ_C − μ_G) (feature, class), Σ_B = MMᵀ/C, and Σ_W the mean over classes of each one's
covariance E(h − μ_c)(h − μ_c)ᵀ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RTOL = 1e-6
"""Singular values of M below this share of the largest count as zero in Σ_B⁺; no more than C − 1 are kept."""


@dataclass(frozen=True, eq=False)
class Means:
    """What a set's features come to by class.

    Attributes:
        classes: The class of each example (example,).
        counts: How many examples each class has (class,).
        mean: μ (class, feature).
        centred: Mᵀ (class, feature).
    """

    classes: Tensor
    counts: Tensor
    mean: Tensor
    centred: Tensor

    @classmethod
    def of(cls, h: Tensor, classes: Tensor, count: int) -> Means:
        """Return those of features h (example, feature), float64."""
        counts = torch.bincount(classes, minlength=count)
        sums = torch.zeros(count, h.shape[1], dtype=h.dtype).index_add_(0, classes, h)
        mean = sums / counts[:, None]
        return cls(classes, counts, mean, mean - mean.mean(0))

    def nearest(self, h: Tensor) -> Tensor:
        """Return the class of the nearest mean of each example (example,)."""
        found: Tensor = torch.cdist(h, self.mean, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
        return found


def variability(h: Tensor, means: Means) -> tuple[float, float, float, int]:
    """Return NC1 = tr(Σ_W Σ_B⁺)/C, tr Σ_W, tr Σ_B, and the rank that Σ_B⁺ was given.

    With M = USVᵀ, tr(Σ_W Σ_B⁺) = Σ_k C/s_k² · u_kᵀΣ_W u_k: no matrix of features by features is formed.
    """
    C = len(means.counts)
    apart = h - means.mean[means.classes]
    weight = 1 / (C * means.counts[means.classes].to(h.dtype))
    within = float((apart.square().sum(1) * weight).sum())
    between = float(means.centred.square().sum()) / C
    U, S, _ = torch.linalg.svd(means.centred.T, full_matrices=False)
    rank = min(C - 1, int((S / S[0] > RTOL).sum()))
    if rank == 0:
        return float("nan"), within, between, 0
    along = ((apart @ U[:, :rank]).square() * weight[:, None]).sum(0)
    return float((along / S[:rank].square()).sum()), within, between, rank


def simplex(means: Means) -> tuple[float, float, float]:
    """Return NC2: sd/mean of ‖μ_c − μ_G‖, the sd of their cosines, and the mean of |cos + 1/(C − 1)|.

    Cosines are of all pairs of classes.
    """
    norms = means.centred.norm(dim=1)
    C = len(norms)
    left, right = torch.triu_indices(C, C, 1)
    unit = means.centred / norms[:, None]
    cosines = (unit @ unit.T)[left, right]
    spread = float(norms.std(correction=0) / norms.mean())
    return spread, float(cosines.std(correction=0)), float((cosines + 1 / (C - 1)).abs().mean())


def duality(W: Tensor, means: Means) -> float:
    """Return NC3 = ‖Wᵀ/‖W‖_F − M/‖M‖_F‖_F of the weight W (class, feature)."""
    return float((W / W.norm() - means.centred / means.centred.norm()).norm())
