"""The training steps once more: what each layer's did to its batch's loss, and to balancedness.

For two consecutive linear layers (`pairs`) with Q = W₂ᵀW₂ − W₁W₁ᵀ − b₁b₁ᵀ a step of plain gradient descent,
Δθ = −γ(ρg + λθ) − wθ, gives exactly

    Q_t = (1 − γλ − w)² Q_{t−1} + γ²ρ² (g₂ᵀg₂ − g₁g₁ᵀ − g_bg_bᵀ),

g being the gradients of W₂, W₁ and b₁: the terms of first order cancel. Without decay gradient flow (γ → 0)
keeps Q as it was; with it, Q_0e^{−2Σ(γλ + w)}.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from tscope_format.errors import clean

from tscope.optimizers import LinearStep, TrainingStep

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.analyses.layerwise.pairs import Pair

    Tensors = Mapping[str, Tensor]
    Values = NDArray[np.floating[Any]]


class Expected:
    """What the identity makes of one pair's Q_0.

    Attributes:
        pair: The layers.
        Q: What Q should be now, in float64.
        flow: Σ (γλ + w), so that gradient flow leaves e^{−2·flow} of Q_0.
        broken: Why the identity does not hold for this run; None as long as it does.
    """

    def __init__(self, pair: Pair, theta: Tensors) -> None:
        self.pair = pair
        self.Q = pair.balance(theta)
        self.flow = 0.0
        self.broken: str | None = None

    def add(self, step: TrainingStep) -> None:
        """Take a step. Two products of the gradients."""
        if self.broken is not None or step.update is None:
            return
        self.broken = _reason(step.update, self.pair.names)
        if self.broken is not None:
            self.broken = f"{clean(self.pair)} at step {step.step}: {self.broken}"
            return
        update, name = step.update, self.pair.below
        decay = update.rate[name] * update.coupled[name] + update.decoupled[name]
        scale = update.rate[name] * update.rho[name]
        self.Q = (1 - decay) ** 2 * self.Q + scale**2 * self.pair.balance(step.gradient)
        self.flow += decay

    def off(self, theta: Tensors) -> float:
        """Return ‖Q_t − Q‖ for the parameters that were recorded; NaN where the identity does not hold."""
        if self.broken is not None:
            return math.nan
        return float((self.pair.balance(theta) - self.Q).norm())


def _reason(update: LinearStep, names: Sequence[str]) -> str | None:
    """Return why a step is not one of plain gradient descent with one rate for these parameters."""
    if any(name not in update.mu for name in names):
        return "not all of its parameters were trained"
    if update.d_in is not None or update.d_out is not None:
        return "the optimizer has a preconditioner"
    if any(update.mu[n] or update.a[n] * update.nu[n] + update.b[n] != update.rate[n] for n in names):
        return "the optimizer has a memory of earlier gradients"
    for what in (update.rate, update.rho, update.coupled, update.decoupled):
        if len({what[name] for name in names}) > 1:
            return "its parameters have different learning rates, clips or decays"
    return None


class Descent:
    """Sums over the steps of each interval, and how far the identity is from the recorded run at its end.

    Args:
        layers: The parameters of each layer.
        rows: The rows of the result; the first is where the steps begin.
        expected: The pairs to follow.

    Attributes:
        expected: Those.
        loss: Σ ⟨g_l, Δθ_l⟩ over the steps of each interval (layer,), g the gradient of the batch's loss.
        off: ‖Q_t − what it should be‖ of each pair (pair,).
        flow: What gradient flow leaves of Q_0, as a factor (pair,).
    """

    def __init__(
        self, layers: Mapping[str, Sequence[str]], rows: Sequence[int], expected: Sequence[Expected]
    ) -> None:
        self._layers = list(layers.values())
        self._rows = set(rows)
        self._sum = np.zeros(len(self._layers))
        self.expected = expected
        self.loss: list[Values] = [np.zeros(len(self._layers))]
        self.off: list[Values] = [np.zeros(len(expected))]
        self.flow: list[Values] = [np.ones(len(expected))]

    def walk(self, steps: Iterable[TrainingStep]) -> Iterator[int]:
        """Take in every step from the first, and yield its row."""
        for step in steps:
            change = step.change
            for place, names in enumerate(self._layers):
                # A parameter that the loss does not reach has a gradient of zero.
                self._sum[place] += sum(
                    float((step.gradient[name].double() * change[name].double()).sum()) for name in names
                )
            for part in self.expected:
                part.add(step)
            if step.row in self._rows:
                self.loss.append(self._sum)
                self._sum = np.zeros(len(self._layers))
                self.off.append(np.array([part.off(step.after) for part in self.expected]))
                self.flow.append(np.array([math.exp(-2 * part.flow) for part in self.expected]))
            yield step.row
