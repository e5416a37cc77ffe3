"""Curves with events planted at known places, and noise without any."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tscope.analyses.events.onsets import Fit

Values = NDArray[np.float64]
Random = np.random.Generator


def white(random: Random, rows: int) -> Values:
    return random.normal(size=rows)


def heavy(random: Random, rows: int) -> Values:
    """Student's t with 5 degrees of freedom, of variance 1."""
    return random.standard_t(5, size=rows) / np.sqrt(5 / 3)


def correlated(random: Random, rows: int) -> Values:
    """x_t = 0.9·x_(t−1) + noise, of variance 1."""
    found = np.empty(rows)
    found[0] = random.normal()
    for row in range(1, rows):
        found[row] = 0.9 * found[row - 1] + np.sqrt(1 - 0.81) * random.normal()
    return found


NOISES: dict[str, Callable[[Random, int], Values]] = {
    "white": white,
    "heavy": heavy,
    "correlated": correlated,
}


def sigmoid(steps: NDArray[np.int64], middle: float, width: float) -> Values:
    """A rise from 0 to 1 over log(step), half of it at `middle`."""
    return 1 / (1 + np.exp(-(np.log(np.maximum(steps, 1)) - np.log(middle)) / width))


def falling(rows: int, end: float = 0.02) -> Values:
    """A training loss that falls from 1 to `end`."""
    return end + (1 - end) * np.exp(-np.arange(rows) / (rows / 8))


def counted(random: Random, share: Values, examples: int) -> Values:
    """Measured shares of so many examples, drawn anew in each row."""
    return random.binomial(examples, np.clip(share, 0, 1)) / examples


def fit(steps: NDArray[np.int64], value: Values, examples: int) -> Fit:
    return Fit(steps, value, examples, "accuracy", "made up")
