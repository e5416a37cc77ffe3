"""Averages along one run, as weights of its rows: θ̄ = Σ_r w_r θ_r.

    tail      the mean of every row from a start on
    SWA       the mean of the checkpoints from a start on [Izmailov18]
    EMA       θ̄_1 = θ_1, θ̄_r = d θ̄_{r−1} + (1 − d) θ_r, as torch.optim.swa_utils does after every step
    LAWA      the mean of the latest k checkpoints [Kaddour22]

Checkpoints are the rows `every` rows apart, counted from the start of the run: the ends of epochs, if `every`
is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Weights = NDArray[np.float64]

# Of an EMA's weights, far below the rounding of their sum: these rows need not be read.
_LEAST = 1e-30

Family = Literal["tail", "swa", "ema", "lawa"]
FAMILIES: tuple[Family, ...] = ("tail", "swa", "ema", "lawa")


@dataclass(frozen=True)
class Schedule:
    """One way of averaging along a run.

    Attributes:
        family: Which.
        value: Its parameter: the row of the start, the decay, or the number of checkpoints.
        every: How many rows checkpoints are apart.
    """

    family: Family
    value: float
    every: int = 1

    def weights(self, row: int) -> Weights | None:
        """Return the weight of each row 0 … `row` in the average that is known at `row`; None before any."""
        if self.family == "tail":
            return tail(row, int(self.value))
        if self.family == "swa":
            return swa(row, int(self.value), self.every)
        return ema(row, self.value) if self.family == "ema" else lawa(row, int(self.value), self.every)


def checkpoints(row: int, every: int) -> NDArray[np.int64]:
    """Return the rows of the checkpoints up to `row`: `every`, 2·`every`, …; never the start of the run."""
    return np.arange(every, row + 1, every, dtype=np.int64)


def tail(row: int, start: int) -> Weights | None:
    """Return the weights of the mean of the rows `start` … `row`."""
    return _mean(row, np.arange(start, row + 1))


def swa(row: int, start: int, every: int) -> Weights | None:
    """Return the weights of the mean of the checkpoints from row `start` on."""
    rows = checkpoints(row, every)
    return _mean(row, rows[rows >= start])


def ema(row: int, decay: float) -> Weights | None:
    """Return the weights of an exponential moving average of the rows 1 … `row`."""
    if row < 1:
        return None
    weights = np.zeros(row + 1)
    weights[1:] = (1 - decay) * decay ** np.arange(row - 1, -1, -1.0)
    weights[1] = decay ** float(row - 1)
    weights[weights < _LEAST] = 0
    return weights


def lawa(row: int, count: int, every: int) -> Weights | None:
    """Return the weights of the mean of the latest `count` checkpoints; None before there are as many."""
    rows = checkpoints(row, every)
    return _mean(row, rows[-count:]) if len(rows) >= count else None


def _mean(row: int, rows: NDArray[np.int64]) -> Weights | None:
    if not len(rows):
        return None
    weights = np.zeros(row + 1)
    weights[rows] = 1 / len(rows)
    return weights
