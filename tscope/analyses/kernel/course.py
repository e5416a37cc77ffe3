"""How one kernel goes along the run: its numbers at each row, and its way from the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tscope_format.results import Array

from tscope.analyses.kernel.statistics import (
    NAN,
    distance,
    inner,
    movement,
    statistics,
    weight_norms,
    whole,
)

Row = dict[str, Tensor | float]

_SERIES = (
    "trace",
    "frobenius",
    "effective_rank",
    "participation_ratio",
    "alignment",
    "alignment_centered",
    "distance",
    "velocity",
    "movement",
)


@dataclass(eq=False)
class Course:
    """The numbers of the kernels of one set of examples, row by row.

    Attributes:
        labels: y (example, output) float64; None where they are not known.
        count: How many eigenvalues are kept.
    """

    labels: Tensor | None
    count: int
    _rows: list[Row] = field(default_factory=list)
    _first: tuple[Tensor, Tensor] | None = None  # K_0 by layers, and whole
    _last: tuple[int, Tensor] | None = None

    def add(self, step: int, parts: Tensor) -> bool:
        """Add the kernel of a row, by layers (layer, example, output, example, output).

        Returns:
            Whether it is finite; one that is not is left out.
        """
        K = whole(parts)
        if not bool(torch.isfinite(K).all()):
            return False
        found = statistics(parts, K, self.labels, self.count)
        row: Row = {
            entry.name: getattr(found, entry.name) for entry in fields(found) if entry.name != "shares"
        }
        shares = dict(found.shares)
        if self._first is None:
            self._first = (parts, K)
        first_parts, first = self._first
        row["movement"] = movement(K, first)
        row["distance"] = distance(K, first)
        row["velocity"] = NAN
        if self._last is not None:
            before, last = self._last
            row["velocity"] = distance(K, last) / (step - before)
        if shares:
            change = K - first
            moved = inner(parts, change) - inner(first_parts, change)
            shares["movement"] = moved / change.norm() ** 2
        row |= {f"share_{name}": value for name, value in shares.items()}
        self._last = (step, K)
        self._rows.append(row)
        return True

    def arrays(self, name: str, count: int) -> dict[str, Array]:
        """Return the series of the first `count` rows under the set's name; those of labels where known."""
        rows = self._rows[:count]
        found = {}
        for series in _SERIES:
            if self.labels is None and series.startswith("alignment"):
                continue
            found[f"{series}_{name}"] = Array(("step",), np.array([row[series] for row in rows]))
        found[f"eigenvalues_{name}"] = Array(("step", "eigenvalue"), _stacked(rows, "eigenvalues"))
        for series in (key for key in rows[0] if key.startswith("share_")):
            dims = ("step", "eigenvalue", "layer") if series == "share_eigenvalues" else ("step", "layer")
            found[f"{series}_{name}"] = Array(dims, _stacked(rows, series))
        return found


@dataclass(eq=False)
class Weights:
    """‖k(x, ·)‖ over the training examples, of every example x of one set, row by row."""

    _norms: list[Tensor] = field(default_factory=list)
    _shares: list[Tensor] = field(default_factory=list)

    def add(self, parts: Tensor) -> None:
        """Add the block of a row, by layers (layer, example, output, train, output)."""
        self._norms.append(weight_norms(parts).double())
        if len(parts) > 1:
            K = whole(parts)
            self._shares.append(inner(parts, K) / K.square().sum())

    def arrays(self, name: str, count: int) -> dict[str, Array]:
        """Return the norms of the first `count` rows, their mean and maximum, and the layers' shares."""
        norms = torch.stack(self._norms[:count]).numpy()
        found = {
            f"weight_norm_{name}": Array(("step", name), norms),
            f"weight_norm_mean_{name}": Array(("step",), norms.mean(1)),
            f"weight_norm_max_{name}": Array(("step",), norms.max(1)),
        }
        if self._shares:
            shares = torch.stack(self._shares[:count]).numpy()
            found[f"share_weight_norm_{name}"] = Array(("step", "layer"), shares)
        return found


@dataclass(eq=False)
class Courses:
    """The kernels of both sets, and the weights k(x, ·) between them, row by row.

    Attributes:
        train: Of training × training examples.
        test: Of held-out × held-out examples; None without any.
        rows: How many rows are complete.
    """

    train: Course
    test: Course | None
    rows: int = 0
    _weights: dict[str, Weights] = field(default_factory=lambda: {"train": Weights(), "test": Weights()})

    def add(self, step: int, blocks: Iterator[Tensor], *, keep: bool) -> tuple[bool, Tensor | None]:
        """Add the blocks of a row: training × training, held-out × training, held-out × held-out.

        Each is by layers (layer, row, output, column, output), and let go before the next is computed.

        Returns:
            Whether all is finite; and the matrix of all points (point, output, point, output), training
            examples first, if it is to be kept.
        """
        parts = next(blocks)
        pieces = [parts.sum(0)] if keep else []
        if not self.train.add(step, parts):
            return False, None
        self._weights["train"].add(parts)
        if self.test is not None:
            parts = next(blocks)
            pieces += [parts.sum(0)] if keep else []
            self._weights["test"].add(parts)
            parts = next(blocks)
            pieces += [parts.sum(0)] if keep else []
            if not self.test.add(step, parts):
                return False, None
        self.rows += 1
        return True, _assembled(pieces) if keep else None

    def arrays(self) -> dict[str, Array]:
        """Return every series of the complete rows."""
        found = self.train.arrays("train", self.rows) | self._weights["train"].arrays("train", self.rows)
        if self.test is not None:
            found |= self.test.arrays("test", self.rows) | self._weights["test"].arrays("test", self.rows)
        return found


def kept_matrices(matrices: Mapping[int, Tensor]) -> dict[str, Array]:
    """Return the matrices (point, output, point, output) that were kept, by step; nothing without any."""
    if not matrices:
        return {}
    dims = ("matrix_step", "point", "output", "point_column", "output_column")
    return {
        "matrix_step": Array(("matrix_step",), np.array(list(matrices), dtype=np.int64)),
        "kernel": Array(dims, torch.stack(list(matrices.values())).numpy()),
    }


def _assembled(pieces: list[Tensor]) -> Tensor:
    if len(pieces) == 1:
        return pieces[0]
    train, cross, test = pieces
    return torch.cat([torch.cat([train, cross.permute(2, 3, 0, 1)], 2), torch.cat([cross, test], 2)], 0)


def _stacked(rows: list[Row], name: str) -> NDArray[np.float64]:
    found: NDArray[np.float64] = torch.stack([torch.as_tensor(row[name]) for row in rows]).double().numpy()
    return found
