"""An event, and how sure it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.float64]
    Steps = NDArray[np.int64]

KINDS = (
    "interpolation",
    "grokking",
    "effective-parameter peak",
    "alignment jump",
    "loss spike",
    "divergence",
)
"""Every kind; their order is the code in a result's array `event_kind`."""

_GAUSSIAN = 0.6745  # median |x| of a standard normal


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        kind: One of `KINDS`.
        step: When.
        low: The last step at which it had not begun, as far as the rows tell.
        high: The step at which it was over, or complete.
        confidence: 1 − the chance that noise of the curve's own scatter does the same anywhere in it, times
            the share of the rows after it in which it still holds.
        before: The value that it starts from.
        value: The value that it leads to.
        text: It in a few words.
    """

    kind: str
    step: int
    low: int
    high: int
    confidence: float
    before: float
    value: float
    text: str


def confidence(height: float, scatter: float, looks: int) -> float:
    """Return max(0, 1 − looks·Φ̄(height/scatter)).

    Φ̄ is the upper tail of a standard normal: the bound of Bonferroni for the largest of `looks` values. A
    curve without scatter leaves no doubt.
    """
    if scatter <= 0 or math.isinf(scatter):
        return float(height > 0 and scatter <= 0)
    return max(0.0, 1 - looks * 0.5 * math.erfc(height / scatter / math.sqrt(2)))


def tail_confidence(height: float, values: NDArray[Any], looks: int) -> float:
    """Return max(0, 1 − looks·P(x > height)), with the tail that the values themselves show.

    Beyond u, which a twentieth of them exceed, P(x > h) = (1/20)·exp(−(h − u)/β), with β = median(x − u)/ln
    2: an exponential tail, longer than a Gaussian's, as far as the noise itself strays.
    """
    u = float(np.quantile(values, 0.95))
    if not height > u:
        return 0.0
    beta = float(np.median(values[values > u] - u)) / math.log(2)
    return max(0.0, 1 - looks / 20 * math.exp(-(height - u) / beta))


def spread(values: NDArray[Any]) -> float:
    """Return the standard deviation of Gaussian values with outliers: median |x − median| / 0.6745."""
    if values.size == 0:
        return 0.0
    return float(np.median(np.abs(values - np.median(values)))) / _GAUSSIAN


def scatter(values: Values) -> float:
    """Return how far a curve's values lie off a smooth course: the largest over several scales.

    At lag ℓ = 1, 2, 4, … ≤ rows/8 it is that of x_i − 2x_{i+ℓ} + x_{i+2ℓ}, over √6: σ for white noise. Larger
    lags see noise that is alike in neighbouring rows.
    """
    found, lag = 0.0, 1
    while lag == 1 or lag <= len(values) // 8:
        if len(values) <= 2 * lag:
            break
        second = values[: -2 * lag] - 2 * values[lag:-lag] + values[2 * lag :]
        found = max(found, float(np.median(np.abs(second))) / _GAUSSIAN / math.sqrt(6))
        lag *= 2
    return found


def smooth(values: Values, width: int) -> Values:
    """Return the running median over `width` rows (odd), the ends repeated."""
    if width < 2 or len(values) < 2:
        return values
    padded = np.pad(values, width // 2, mode="edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1))
