"""Quadrature rules along a training step.

The change of f over a step is the path integral Δf = ∫₀¹ J(θ_{t−1} + sΔθ)Δθ ds (buffers held). A rule with
places s_k and weights w_k approximates it by Σ_k w_k J(θ_{t−1} + s_kΔθ)Δθ. The left rule is the telescoping
model of the paper: its error of one step is O(‖Δθ‖²), that of a path refined n times O(1/n).
"""

from __future__ import annotations

from math import sqrt
from typing import Literal

Rule = Literal["left", "midpoint", "simpson", "gauss3"]

_GAUSS = sqrt(3 / 5) / 2

RULES: dict[str, tuple[tuple[float, float], ...]] = {
    "left": ((0.0, 1.0),),
    "midpoint": ((0.5, 1.0),),
    "simpson": ((0.0, 1 / 6), (0.5, 4 / 6), (1.0, 1 / 6)),
    "gauss3": ((0.5 - _GAUSS, 5 / 18), (0.5, 8 / 18), (0.5 + _GAUSS, 5 / 18)),
}
"""For each rule its (place on the segment, weight) pairs."""
