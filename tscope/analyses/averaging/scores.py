"""The loss and the accuracy of predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from tscope.analyses.decision import decision

if TYPE_CHECKING:
    from tscope.optimizers import Positions
    from tscope.optimizers.losses import Kind


@dataclass(frozen=True)
class Score:
    """Means over examples.

    Attributes:
        loss: `mse_loss`, `cross_entropy` or `binary_cross_entropy_with_logits` of torch, with mean reduction
            whatever the run's was.
        accuracy: The share of examples (with several binary outputs, of outputs) whose class is right; None
            of a regression.
    """

    loss: float
    accuracy: float | None


def score(kind: Kind, outputs: Tensor, labels: Tensor, threshold: float | None = None) -> Score:
    """Return the loss and accuracy of outputs (example, output) for labels (example, output), both float64.

    Args:
        kind: The loss.
        outputs: f.
        labels: Values, or classes as unit vectors.
        threshold: The border between the classes of a single output trained on values; see `decision`.
    """
    if kind == "cross_entropy":
        loss = -(labels * functional.log_softmax(outputs, 1)).sum(1).mean()
        right = (outputs.argmax(1) == labels.argmax(1)).double().mean()
        return Score(float(loss), float(right))
    if kind == "bce":
        loss = functional.binary_cross_entropy_with_logits(outputs, labels)
        return Score(float(loss), float(((outputs > 0) == (labels > 0.5)).double().mean()))
    loss = (outputs - labels).square().mean()
    chosen = decision(labels.numpy(), labels.shape[1], threshold)
    if chosen is None or chosen.labels is None:
        return Score(float(loss), None)
    right = torch.from_numpy(chosen.classes(outputs.numpy()) == chosen.labels)
    return Score(float(loss), float(right.double().mean()))


def score_positions(positions: Positions, outputs: Tensor, labels: Tensor) -> Score:
    """Return the mean cross-entropy and the share of right classes over all positions that count.

    That is `cross_entropy` of torch with mean reduction and an `ignore_index`, of all examples as one batch.

    Args:
        positions: Where they are in the outputs.
        outputs: f (example, output), float64.
        labels: Classes (example, position), negative where they do not count; NaN if none does.
    """
    counts = labels >= 0
    f, y = positions.scores(outputs)[counts], labels[counts]
    loss = functional.cross_entropy(f, y)
    return Score(float(loss), float((f.argmax(1) == y).double().mean()))
