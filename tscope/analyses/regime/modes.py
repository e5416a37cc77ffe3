"""Singular modes of a linear network along gradient descent, and what theory says of them [Nam25].

The loss is ½‖Y − XWᵀ‖² up to a factor. Σ = YᵀX/n = U diag(σ) Vᵀ splits the dynamics into modes if the inputs
do not correlate them, XᵀX/n v_k = D_k v_k: then each has a target s_k = σ_k/D_k of its own, and a rate
that grows with its frequency D_k. Whitened inputs have D_k = 1 and s_k = σ_k.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tscope_format.errors import AnalysisError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from tscope.analyses.regime.chain import Chain

    Values = NDArray[np.floating[Any]]

_MOST = 10
_SMALLEST = 1e-6  # of the largest singular value
_STEP = 0.02  # of the integration, in units of the fastest rate


@dataclass(eq=False)
class Modes:
    """The modes of a chain, row by row.

    Args:
        chain: The network.
        inputs: X (example, input), float64.
        labels: Y (example, output), float64.
        visits: How often each example was trained on (example,): its weight in means over examples.

    Attributes:
        frequency: D_k = v_kᵀ XᵀX v_k/n (mode,).
        target: s_k = σ_k/D_k, in the order of the singular values σ_k of YᵀX/n (mode,).
        whiteness: ‖XᵀX/n − I‖_F/√d: 0 for whitened inputs.
        mixing: The largest ‖XᵀX/n v_k − D_k v_k‖/D_k: 0 where modes are independent of each other.
        strength: u_kᵀ W v_k at every row.
        imbalance: Λ_k = ‖W_2ᵀu_k‖² − ‖W_1 v_k‖² at every row, of two layers.
        invariant: √(E_k² − 4u²) at every row, E_k = ‖W_2ᵀu_k‖² + ‖W_1 v_k‖²: gradient flow keeps it, as it
            does Λ, while modes do not share directions of hidden units. |Λ| where the two are parallel.
    """

    chain: Chain
    inputs: Tensor
    labels: Tensor
    visits: Tensor
    strength: list[Values] = field(default_factory=list)
    imbalance: list[Values] = field(default_factory=list)
    invariant: list[Values] = field(default_factory=list)

    def __post_init__(self) -> None:
        width = self.inputs.shape[1]
        weighted = self.inputs * (self.visits / self.visits.sum())[:, None]
        U, S, Vh = torch.linalg.svd(self.labels.T @ weighted, full_matrices=False)
        kept = int((S[:_MOST] > _SMALLEST * S[0]).sum())
        if not kept:
            raise AnalysisError("the labels do not depend linearly on the inputs: there is no mode to follow")
        self._left, self._right = U[:, :kept], Vh[:kept].T
        covariance = self.inputs.T @ weighted
        carried = covariance @ self._right
        frequency = (self._right * carried).sum(0)
        self.mixing = float(((carried - frequency * self._right).norm(dim=0) / frequency).max())
        self.frequency: Values = frequency.numpy()
        self.target: Values = S[:kept].numpy() / self.frequency
        self.whiteness = float((covariance - torch.eye(width, dtype=torch.float64)).norm()) / math.sqrt(width)

    def add(self, theta: Mapping[str, Tensor]) -> None:
        """Add a row."""
        W = self.chain.product(theta)
        self.strength.append(torch.einsum("ck,cd,dk->k", self._left, W, self._right).numpy())
        if len(self.chain.names) == 2:
            W1, W2 = self.chain.matrices(theta)
            above, below = W2.T @ self._left, W1 @ self._right
            up, down = above.square().sum(0), below.square().sum(0)
            self.imbalance.append((up - down).numpy())
            # E² − 4u² is Λ² and what the two factors lack in being parallel: 0 but for rounding if they are.
            apart = (up * down - (above * below).sum(0).square()).clamp(min=0)
            self.invariant.append(((up - down).square() + 4 * apart).sqrt().numpy())


def balanced(target: Values, start: Values, time: Values, frequency: Values) -> Values:
    """Return s e^(2sDt)/(e^(2sDt) − 1 + s/u_0) (time, mode): two layers, balanced and aligned [Nam25].

    NaN where the start is not between 0 and s: the mode then does not grow from where it is.

    Args:
        target: s (mode,).
        start: u_0 (mode,).
        time: (time,)
        frequency: D (mode,).
    """
    known = (start > 0) & (start <= target)
    decay = np.exp(-2 * np.multiply.outer(time, target * frequency))
    ratio = target / np.where(known, start, target)
    return np.where(known, target / (1 + (ratio - 1) * decay), np.nan)


def single(target: Values, start: Values, time: Values, frequency: Values) -> Values:
    """Return s + (u_0 − s)e^(−Dt) (time, mode): one layer, all modes of whitened inputs at one rate."""
    return np.asarray(target + (start - target) * np.exp(-np.multiply.outer(time, frequency)))


def unbalanced(target: Values, start: Values, imbalance: Values, time: Values, frequency: Values) -> Values:
    """Return c of ċ = √(Λ² + 4c²)(s − c)D from u_0 at every time (time, mode): two layers [Nam25].

    A mode's factors a = W_1 v and b = W_2ᵀu follow ȧ = (s − c)D b, ḃ = (s − c)D a, c = a·b. So with
    E = ‖a‖² + ‖b‖² is ċ = E(s − c)D and Ė = 4c(s − c)D, and E² − 4c² stays what it was: Λ² if a and b are
    parallel, as in [Nam25], and more if not.

    Runge-Kutta of order 4, in steps of a fiftieth of the fastest mode's time: exact to 1e-8 or so. 0 for Λ
    gives `balanced`.

    Args:
        target: s (mode,).
        start: u_0 (mode,).
        imbalance: √(E² − 4u_0²), which is Λ but for the sign of parallel factors (mode,).
        time: Increasing (time,).
        frequency: D (mode,).
    """

    def slope(c: Values) -> Values:
        return np.sqrt(imbalance**2 + 4 * c**2) * (target - c) * frequency

    largest = np.maximum(np.abs(start), target)
    fastest = float((np.sqrt(imbalance**2 + 4 * largest**2) * frequency).max())
    found, c = [start], start
    for span in np.diff(time):
        count = max(1, math.ceil(float(span) * fastest / _STEP))
        h = float(span) / count
        for _ in range(count):
            k1 = slope(c)
            k2 = slope(c + h / 2 * k1)
            k3 = slope(c + h / 2 * k2)
            c = c + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(c + h * k3))
        found.append(c)
    return np.stack(found)


def half_time(target: Values, start: Values, frequency: Values) -> Values:
    """Return ln(s/u_0 − 1)/(2sD) (mode,), when a balanced mode is halfway; NaN where it starts beyond."""
    known = (start > 0) & (start < target / 2)
    ratio = target / np.where(known, start, target / 3)
    return np.where(known, np.log(ratio - 1) / (2 * target * frequency), np.nan)


def unbalanced_half_time(target: Values, start: Values, imbalance: Values, frequency: Values) -> Values:
    """Return when a mode of two layers is halfway by `unbalanced` (mode,); NaN where it starts beyond.

    The time that ċ = √(Λ² + 4c²)(s − c)D takes from u_0 to s/2, as an integral in closed form: with
    R² = Λ² + 4s², t = [ln((Λ² + 4sc + R√(Λ² + 4c²))/(s − c))]/(RD) between the two. Λ = 0 gives `half_time`.

    Args:
        target: s (mode,).
        start: u_0 (mode,).
        imbalance: As for `unbalanced` (mode,).
        frequency: D (mode,).
    """
    known = (start < target / 2) & ((start > 0) | (imbalance != 0))
    rate = np.sqrt(imbalance**2 + 4 * target**2)

    def gone(c: Values) -> Values:
        above = imbalance**2 + 4 * target * c + rate * np.sqrt(imbalance**2 + 4 * c**2)
        return np.asarray(np.log(above / (target - c)))

    begin = np.where(known, start, target / 4)
    return np.where(known, (gone(target / 2) - gone(begin)) / (rate * frequency), np.nan)


def crossing(axis: Values, strength: Values, level: Values) -> Values:
    """Return where each mode first reaches its level (mode,), by a straight line between rows; else NaN.

    Args:
        axis: Increasing (row,).
        strength: (row, mode)
        level: (mode,)
    """
    found = np.full(len(level), np.nan)
    for mode, wanted in enumerate(level):
        over = np.flatnonzero(strength[:, mode] >= wanted)
        if over.size and over[0] > 0:
            row = int(over[0])
            low, high = strength[row - 1, mode], strength[row, mode]
            share = (wanted - low) / (high - low)
            found[mode] = axis[row - 1] + share * (axis[row] - axis[row - 1])
    return found
