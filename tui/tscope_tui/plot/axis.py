"""Axes: the map from data to a unit interval, ticks, and short numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Spans are computed in float64; beyond this bound `high - low` would overflow, and below its inverse be lost.
_LARGEST = 1e300


@dataclass(frozen=True)
class Axis:
    """A closed interval of data, mapped to [0, 1] linearly or by its logarithm."""

    low: float
    high: float
    log: bool = False

    def unit(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map data to [0, 1] (values outside the interval fall outside); what log cannot show becomes NaN."""
        with np.errstate(all="ignore"):
            clipped = np.clip(values, -2 * _LARGEST, 2 * _LARGEST)
            if not self.log:
                return (clipped - self.low) / (self.high - self.low)
            low, high = math.log10(self.low), math.log10(self.high)
            return np.where(clipped > 0, (np.log10(clipped) - low) / (high - low), np.nan)

    def value(self, unit: float) -> float:
        """Return the data value at a position in [0, 1]."""
        if not self.log:
            return self.low + unit * (self.high - self.low)
        low, high = math.log10(self.low), math.log10(self.high)
        return float(10.0 ** min(300.0, low + unit * (high - low)))

    def ticks(self, count: int) -> list[tuple[float, str]]:
        """Return about `count` round values inside the interval with their labels, at least two."""
        values = (
            _log_ticks(self.low, self.high, count) if self.log else _linear_ticks(self.low, self.high, count)
        )
        if len(values) < 2:
            return [(self.low, compact(self.low, 2)), (self.high, compact(self.high, 2))]
        if self.log:
            return [(value, compact_power(value)) for value in values]
        return list(zip(values, _labels(values), strict=True))


def axis_over(values: Iterable[NDArray[np.float64]], log: bool) -> Axis:
    """Return the axis that just covers every finite (and, for `log`, positive) value.

    A constant gets room on both sides; no value at all gives [0, 1] (or [0.1, 1] on a log axis).
    """
    low, high = math.inf, -math.inf
    for array in values:
        keep = array[np.isfinite(array) & (array > 0)] if log else array[np.isfinite(array)]
        if keep.size:
            low, high = min(low, float(keep.min())), max(high, float(keep.max()))
    if low > high:
        return Axis(0.1, 1.0, True) if log else Axis(0.0, 1.0)
    low, high = (min(max(edge, -_LARGEST), _LARGEST) for edge in (low, high))
    if log:
        low = max(low, 1 / _LARGEST)
        high = max(high, low)
        if high / low < 1 + 1e-9:
            low, high = low / 1.5, high * 1.5
        return Axis(low, high, True)
    if high - low <= 1e-12 * max(abs(low), abs(high)) or high - low < 1 / _LARGEST:
        room = 0.05 * max(abs(low), abs(high)) or 1.0
        low, high = low - room, high + room
    return Axis(low, high)


def _linear_ticks(low: float, high: float, count: int) -> list[float]:
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)] if last - first < 64 else []


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last - first >= 1:
        stride = max(1, math.ceil((last - first + 1) / max(count, 2)))
        # An even grid through whole multiples of the stride keeps labels still while an axis slowly grows.
        start = first + (-first) % stride
        decades = [10.0**power for power in range(start, last + 1, stride)]
        return decades if len(decades) > 1 else [10.0**first, 10.0**last]
    steps = [m * 10.0**power for power in range(first - 1, last + 2) for m in (1, 2, 5)]
    inside = [value for value in steps if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    return inside if len(inside) > 1 else _linear_ticks(low, high, count)


def _labels(values: list[float]) -> list[str]:
    """Label linear ticks with just enough digits to tell neighbours apart."""
    step = values[1] - values[0]
    largest = max(abs(value) for value in values)
    if largest >= 1e5 or largest < 1e-3:
        digits = min(8, max(0, math.floor(math.log10(largest / step) + 1e-9)))
        return [_scientific(value, digits) if abs(value) > step / 2 else "0" for value in values]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if decimals and abs(step * 10**decimals - round(step * 10**decimals)) > 1e-6:
        decimals += 1
    return [f"{value:.{decimals}f}" if abs(value) > step / 2 else "0" for value in values]


def _scientific(value: float, digits: int) -> str:
    mantissa, _, power = f"{value:.{digits}e}".partition("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(power)}"


def compact_power(value: float) -> str:
    """Label a tick of a log axis: `1e-3`, `2e0`, or the plain number when it is not a round one."""
    label = _scientific(value, 3)
    return label if len(label) <= 5 else compact(value)


def compact(value: float, digits: int = 3) -> str:
    """Return `value` in about `digits` significant digits and few characters: `0.0123`, `18.4k`, `3.1e-5`."""
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3 or size >= 1e15:
        return _scientific(value, max(0, digits - 2))
    for bound, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        # 999 950 rounds to 1000k: hand it to the next suffix.
        if size >= bound * (1 - 0.5 * 10.0**-digits):
            return f"{_plain(value / (bound if bound != 1e4 else 1e3), digits)}{suffix}"
    return _plain(value, digits)


def _plain(value: float, digits: int) -> str:
    size = abs(value)
    whole = math.floor(math.log10(size)) + 1 if size >= 1 else math.ceil(math.log10(size) + 1e-12)
    text = f"{value:.{max(0, digits - whole)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
