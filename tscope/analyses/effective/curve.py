"""Effective parameters along a run, from the smoother's columns at the kept rows.

    p(I) = (n/|I|) ‖S_I‖_F² / C      [Curth23], I the training or the held-out examples

From all columns of a basis this is exact; from random columns it is a mean with a standard error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tscope.analyses.effective.error import above, standard_errors

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from tscope.analyses.effective.recursion import Kept

    Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Series:
    """p over the kept rows, of the training and of the held-out examples.

    Attributes:
        train: p_train (step).
        test: p_test (step); NaN without held-out examples.
        train_se: Its standard error (step), as `above` gives it; 0 where it is exact.
        test_se: Likewise.
        gap_se: That of p_test − p_train (step), from the same probes on both: their errors go together.
        train_norms: ‖s(x)‖² of each training example (step, train).
        test_norms: Likewise (step, test).
    """

    train: Values
    test: Values
    train_se: Values
    test_se: Values
    gap_se: Values
    train_norms: Values
    test_norms: Values


@dataclass
class Squares:
    """Squares of the smoother's columns, gathered row by row and pass by pass.

    Attributes:
        counts: n and m.
        outputs: C.
        exact: The columns are a basis: their squares add up. Else they are probes: squares are averaged.
    """

    counts: tuple[int, int]
    outputs: int
    exact: bool
    _rows: list[list[Tensor]] = field(default_factory=list)  # (column, 2), one entry for each pass
    _norms: list[Tensor] = field(default_factory=list)  # (point)

    def add(self, index: int, smoother: Tensor) -> None:
        """Take in the columns of S (point, output, column) at the kept row `index`."""
        square = smoother.double().square().sum(1)
        if index == len(self._rows):
            self._rows.append([])
            self._norms.append(torch.zeros(len(square), dtype=torch.float64))
        n = self.counts[0]
        parts = torch.stack([square[:n].sum(0), square[n:].sum(0)], 1)
        self._rows[index].append(parts.sum(0, keepdim=True) if self.exact else parts)
        self._norms[index] = self._norms[index] + square.sum(1)

    def join(self, other: Squares) -> None:
        """Take in the rows that another share of the columns has too; the others are dropped."""
        rows = min(len(self._rows), len(other._rows))
        self._rows = [[*mine, *theirs] for mine, theirs in zip(self._rows, other._rows, strict=False)]
        self._norms = [a + b for a, b in zip(self._norms[:rows], other._norms[:rows], strict=True)]

    def series(self, rows: int) -> Series:
        """Return p of the first `rows` kept rows."""
        n, m = self.counts
        factor = np.array([1.0, n / m if m else np.nan]) / self.outputs
        # (column, 3): what each column says of p_train, of p_test and of their difference.
        columns = [torch.cat(parts).numpy() * factor for parts in self._rows[:rows]]
        columns = [np.concatenate([part, part[:, 1:] - part[:, :1]], 1) for part in columns]
        if self.exact:
            p, se = np.array([part.sum(0) for part in columns]), np.zeros((len(columns), 3))
            norms = torch.stack(self._norms[:rows]).numpy()
        else:
            count = len(columns[0])
            p = np.array([part.mean(0) for part in columns])
            se = np.array([standard_errors(part) for part in columns])
            # The gap has no logarithm: it may be negative.
            se[:, :2] = above(p[:, :2], se[:, :2])
            norms = torch.stack(self._norms[:rows]).numpy() / count
        return Series(p[:, 0], p[:, 1], se[:, 0], se[:, 1], se[:, 2], norms[:, :n], norms[:, n:])


@dataclass
class Discrepancies:
    """How far the network, and the two rollouts of the recursion, are apart at the kept rows.

    Attributes:
        step: The optimizer steps.
        telescoped: Root mean square of f_θ − f̃_tel over points and outputs (row).
        anchored: Likewise of f_θ − f̃_anch.
        between: Likewise of f̃_tel − f̃_anch.
        scale: Likewise of f_θ.
    """

    step: list[int] = field(default_factory=list)
    telescoped: list[float] = field(default_factory=list)
    anchored: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    scale: list[float] = field(default_factory=list)

    def add(self, kept: Kept) -> None:
        """Take in a kept row."""
        telescoped, anchored = kept.state.rollouts[..., 0], kept.state.anchored
        self.step.append(kept.step)
        self.telescoped.append(_rms(kept.output - telescoped))
        self.anchored.append(_rms(kept.output - anchored))
        self.between.append(_rms(telescoped - anchored))
        self.scale.append(_rms(kept.output))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the series by name, each (step)."""
        return {
            "discrepancy_telescoped": np.array(self.telescoped),
            "discrepancy_anchored": np.array(self.anchored),
            "discrepancy_between": np.array(self.between),
            "prediction_scale": np.array(self.scale),
        }

    def first(self, rows: int) -> Discrepancies:
        """Return those of the first `rows` kept rows."""
        return Discrepancies(
            self.step[:rows],
            self.telescoped[:rows],
            self.anchored[:rows],
            self.between[:rows],
            self.scale[:rows],
        )


def in_mean_space(kind: str, output: Tensor, smoother: Tensor) -> Tensor:
    """Return S^μ = μ'(f) S (point, output, column): what labels do to probabilities (math.md §3).

    μ' is diag p − ppᵀ for cross-entropy and diag p(1 − p) for binary cross-entropy.
    """
    if kind == "bce":
        p = torch.sigmoid(output)
        return (p * (1 - p))[..., None] * smoother
    p = torch.softmax(output, 1)[..., None]
    weighted = p * smoother
    return weighted - p * weighted.sum(1, keepdim=True)


def _rms(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())
