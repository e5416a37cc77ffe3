"""Weighted means of models, and the maximum of a curve between two of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from torch import Tensor

_GOLDEN = (sqrt(5) - 1) / 2


@dataclass(frozen=True, eq=False)
class State:
    """Parameters θ and buffers b of a model, by name."""

    theta: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]


def mixed(states: Sequence[State], weights: Sequence[float]) -> State:
    """Return Σ_i w_i θ_i, and of the buffers; weights of 0 and 1 give a state bit for bit.

    Tensors of integers (the batches that BatchNorm has counted) are those of the first state.
    """
    parts = [(state, weight) for state, weight in zip(states, weights, strict=True) if weight != 0]
    return State(
        _mixed([state.theta for state, _ in parts], [weight for _, weight in parts]),
        _mixed([state.buffers for state, _ in parts], [weight for _, weight in parts]),
    )


def _mixed(tensors: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, first in tensors[0].items():
        if not first.is_floating_point() or len(tensors) == 1:
            found[name] = first
            continue
        total = first * weights[0]
        for others, weight in zip(tensors[1:], weights[1:], strict=True):
            total = total + others[name] * weight
        found[name] = total
    return found


def highest(curve: Callable[[float], float], low: float, high: float, *, tolerance: float) -> None:
    """Look for the maximum of a curve between two places by golden sections, to `tolerance` of its place.

    The curve is called at each place that is tried, and keeps what it finds: of a curve with several maxima
    in between one is found.
    """
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = curve(left), curve(right)
    while high - low > tolerance:
        if at_left >= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = curve(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = curve(right)
