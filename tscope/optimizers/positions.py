"""Cross-entropies at each position of a sequence, an image or the like, and their labels.

`torch.nn.functional.cross_entropy` of outputs (example, …, class) or (example, class, …) with an integer
label at each position; where it is `ignore_index`, or masked, the gradient is zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tscope_format.errors import AnalysisError

from tscope.optimizers.batches import Batches, counted
from tscope.optimizers.rounding import half_unit, spread_limit

if TYPE_CHECKING:
    from tscope.trace import Trace

IGNORED = -1
# What a softmax's gradients add up to, relative to their size.
_ZERO_SUM = 1e-5


@dataclass(frozen=True)
class Positions:
    """Where a model's flat outputs (example, output) hold the scores of classes at positions.

    Attributes:
        count: T, how many positions there are.
        classes: V.
        classes_first: Outputs are (example, class, position), as those of images, not (…, position, class).
    """

    count: int
    classes: int
    classes_first: bool = False

    @classmethod
    def within(cls, shape: Sequence[int]) -> list[Positions]:
        """Return the ways in which an example's output of some shape can be read, the likeliest first.

        Outputs that a script takes apart only in its loss have one axis: any number of classes may be in it.
        """
        if len(shape) == 1:
            sizes = (size for size in range(2, shape[0] // 2 + 1) if shape[0] % size == 0)
            return [cls(shape[0] // size, size) for size in sizes]
        last, first = cls(math.prod(shape[:-1]), shape[-1]), cls(math.prod(shape[1:]), shape[0], True)
        return [own for own in (last, first) if own.classes > 1]

    def scores(self, outputs: Tensor) -> Tensor:
        """Return (example, position, class) of flat outputs (example, output); no copy of the values."""
        if self.classes_first:
            return outputs.view(len(outputs), self.classes, self.count).movedim(1, 2)
        return outputs.view(len(outputs), self.count, self.classes)

    def labels(self, target: Tensor) -> Tensor | None:
        """Return labels (example, position), negative ones as `IGNORED`; None if these are not of classes."""
        if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
            return None
        flat = target.reshape(len(target), -1).long()
        if flat.shape[1] != self.count or (flat.numel() and int(flat.max()) >= self.classes):
            return None
        return flat.clamp(min=IGNORED)


@dataclass(frozen=True, eq=False)
class PositionLoss:
    """A cross-entropy at each position, ∂L/∂f = c·(softmax f − y), with one c for a micro-batch.

    Attributes:
        positions: Where they are in the outputs.
        labels: Classes (example, position) by rows of `examples/`, `IGNORED` where the loss ignores them.
        visited: (example,), whether it was trained on.
        spread: How far the recorded gradients are from it, relative to softmax f − y (root mean square).
        factor: c times the positions that count in a micro-batch, on average: 1 for a mean over positions.
    """

    positions: Positions
    labels: Tensor
    visited: Tensor
    spread: float
    factor: float


def infer_positions(trace: Trace, shape: Sequence[int]) -> PositionLoss | None:
    """Return the loss at positions that the run was trained with; None where its gradients are of another.

    One pass over the recorded outputs and gradients; no model is evaluated. A label is where the gradient is
    smallest: there alone softmax f − y is negative.

    Args:
        trace: The run, at the root that is analysed.
        shape: Of one example's output.

    Raises:
        AnalysisError: The labels of an example were others at another visit.
        MissingDataError: The trace holds no outputs, gradients or identities.
    """
    batches = Batches(trace, torch.float64)
    for positions in Positions.within(shape):
        found = _fitted(trace, batches, positions)
        if found is not None:
            return found
    return None


def _fitted(trace: Trace, batches: Batches, positions: Positions) -> PositionLoss | None:
    labels = torch.full((batches.examples, positions.count), IGNORED, dtype=torch.int64)
    visited = torch.zeros(batches.examples, dtype=torch.bool)
    changed: int | None = None
    off = size = means = weighted = 0.0
    count = 0
    for batch in counted(trace, batches):
        sums = positions.scores(batch.output_grad).sum(2)
        if float(sums.square().sum()) > _ZERO_SUM**2 * float(batch.output_grad.square().sum()):
            return None
        start = 0
        for rows in batch.sizes:
            part = slice(start, start + rows)
            start += rows
            u, mu = positions.scores(batch.output_grad[part]), positions.scores(batch.output[part]).softmax(2)
            known = (u != 0).any(2)
            own = torch.where(known, u.argmin(2), IGNORED)
            found = _remember(labels, visited, batch.examples[part], own)
            changed = found if changed is None else changed
            u, mu, y = u[known], mu[known], own[known]  # (position, class)
            residual = mu - functional.one_hot(y, positions.classes)
            square = float(residual.square().sum())
            c = float((u * residual).sum()) / square if square else 0.0
            if not known.any() or c == 0:
                continue
            off += float((u / c - residual).square().sum())
            size += square
            means += float(mu.square().sum())
            weighted += c * len(y)
            count += 1
    if not size:
        return None
    spread = math.sqrt(off / size)
    if not spread <= spread_limit(half_unit(batches.gradient_dtype), math.sqrt(means / size)):
        return None
    if changed is not None:
        raise AnalysisError(
            f"the loss is a cross-entropy at each of {positions.count} positions, and example {changed} had "
            "other labels at another visit; an example is known by its inputs, and can have one label at "
            "each position only"
        )
    return PositionLoss(positions, labels, visited, spread, weighted / count)


def _remember(labels: Tensor, visited: Tensor, examples: Tensor, found: Tensor) -> int | None:
    """Enter the labels (slot, position) of some visits; return an example that had others, if there is."""
    known = found != IGNORED
    differ = known & (labels[examples] != IGNORED) & (labels[examples] != found)
    np.maximum.at(labels.numpy(), examples.numpy(), found.numpy())  # it may be in a batch twice
    visited[examples] = True
    differ |= known & (labels[examples] != found)
    rows = torch.nonzero(differ.any(1))
    return int(examples[rows[0, 0]]) if len(rows) else None
