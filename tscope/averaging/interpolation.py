"""Weighted means of models, and the maximum of a curve between two of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import copysign, inf, sqrt

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


def highest(
    curve: Callable[[float], float], low: float, middle: float, high: float, *, tolerance: float
) -> None:
    """Look for the maximum of a curve between two places, to `tolerance` of its place [Brent73, chapter 5].

    Each place is the vertex of the parabola through the best three so far; where that leads nowhere, a golden
    section of what is left. A smooth curve takes some 5 places beside the three given, any other no more than
    golden sections do alone, about 14 for a thousandth.

    The curve is called at each place that is tried, and keeps what it finds: of a curve with several maxima
    in between one is found.

    Args:
        curve: What to look for the maximum of.
        low: Where to begin.
        middle: The best place so far, which may be one of the ends.
        high: Where to end.
        tolerance: Of the place.
    """
    close = tolerance / 2
    step = before = 0.0
    if low < middle < high:
        best, at_best = middle, curve(middle)
        (at_third, third), (at_second, second) = sorted((curve(end), end) for end in (low, high))
        before = high - low
    else:
        best = second = third = low + (1 - _GOLDEN) * (high - low)
        at_best = at_second = at_third = curve(best)
    while abs(best - (half := (low + high) / 2)) > 2 * close - (high - low) / 2:
        shift = _vertex((best, second, third), (at_best, at_second, at_third)) - best
        # The parabola counts if its steps halve, so that they cannot go on for ever.
        if abs(shift) < abs(before) / 2 and low < best + shift < high:
            before, step = step, shift
            if min(best + shift - low, high - best - shift) < 2 * close:
                step = copysign(close, half - best)  # to close the other side
        else:
            before = (high if best < half else low) - best
            step = (1 - _GOLDEN) * before
        place = best + (step if abs(step) >= close else copysign(close, step))
        value = curve(place)
        if value >= at_best:
            low, high = (best, high) if place >= best else (low, best)
            third, second, best = second, best, place
            at_third, at_second, at_best = at_second, at_best, value
            continue
        low, high = (place, high) if place < best else (low, place)
        if value >= at_second or second == best:
            third, second = second, place
            at_third, at_second = at_second, value
        elif value >= at_third or third in (best, second):
            third, at_third = place, value


def _vertex(places: tuple[float, float, float], values: tuple[float, float, float]) -> float:
    """Return where the parabola through three points has its vertex; infinity if there is none."""
    (x, w, v), (at_x, at_w, at_v) = places, values
    toward_w, toward_v = (x - w) * (at_x - at_v), (x - v) * (at_x - at_w)
    bend = 2 * (toward_v - toward_w)
    return x - ((x - v) * toward_v - (x - w) * toward_w) / bend if bend else inf
