"""The loss of a probe set, as the run's own loss is, of labels that are known there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor
from tscope_format.errors import AnalysisError, MissingDataError, clean

from tscope.analyses.kernel.setup import Examples, probe_labels, taken
from tscope.analyses.target import Target, held_out_labels, read_target
from tscope.optimizers import Loss, Positions, infer_loss, read_labels
from tscope.optimizers.batches import ExampleInputs
from tscope.replay import replay_dtype
from tscope.replay.flat import tensor

if TYPE_CHECKING:
    from tscope.analyses.layerwise.options import Options
    from tscope.probes import ProbeSet
    from tscope.trace import Trace

_COMPARED = 256


class KnownLoss(Protocol):
    """A loss of the probe set's outputs f (example, output)."""

    @property
    def kind(self) -> str:
        """Return mse, cross_entropy or bce."""

    def value(self, f: Tensor) -> float:
        """Return the loss."""

    def gradient(self, f: Tensor) -> Tensor:
        """Return its gradient at f (example, output)."""


@dataclass(frozen=True, eq=False)
class ProbeLoss:
    """The training loss as the mean over a probe set's examples.

    Attributes:
        loss: The kind and its factor.
        labels: y (example, output) float64.
    """

    loss: Loss
    labels: Tensor

    @property
    def kind(self) -> str:
        """Its kind."""
        return self.loss.kind

    def value(self, f: Tensor) -> float:
        """Return (1/m) Σ_x ℓ(f(x), y(x)), of the ℓ with ∂ℓ/∂f = factor·(μ(f) − y)."""
        if self.loss.kind == "mse":
            each = (f - self.labels).square().sum(1) / 2
        elif self.loss.kind == "bce":
            each = torch.nn.functional.binary_cross_entropy_with_logits(f, self.labels, reduction="none").sum(
                1
            )
        else:
            each = -(self.labels * torch.log_softmax(f, 1)).sum(1)
        return float(self.loss.factor * each.mean())

    def gradient(self, f: Tensor) -> Tensor:
        """Return its gradient at f (example, output)."""
        return (self.loss.mean(f) - self.labels) * (self.loss.factor / len(f))


@dataclass(frozen=True, eq=False)
class PositionLoss:
    """The training loss as the mean over the positions of a probe set that count.

    Attributes:
        positions: Where they are in the outputs.
        labels: Classes (example, position), negative where they do not count.
        factor: How much larger the run's loss is than its mean over positions.
    """

    positions: Positions
    labels: Tensor
    factor: float
    kind: str = "cross_entropy"

    def value(self, f: Tensor) -> float:
        """Return factor times the mean of −log softmax(f)_y."""
        counts = self.labels >= 0
        chosen = self.positions.scores(f)[counts]
        return self.factor * float(torch.nn.functional.cross_entropy(chosen, self.labels[counts]))

    def gradient(self, f: Tensor) -> Tensor:
        """Return its gradient at f (example, output)."""
        counts = self.labels >= 0
        found = torch.zeros_like(f)
        y = torch.nn.functional.one_hot(self.labels[counts], self.positions.classes)
        scale = self.factor / int(counts.sum())
        self.positions.scores(found)[counts] = (self.positions.scores(f)[counts].softmax(1) - y) * scale
        return found


def read_probe_loss(
    trace: Trace, options: Options, probe: ProbeSet, functional: str, shape: Sequence[int]
) -> tuple[KnownLoss | None, str]:
    """Return the loss of a probe set, or None and why it is not known.

    Args:
        trace: The run.
        options: They may name the loss.
        probe: The probe set.
        functional: Which functional of the output is followed.
        shape: Of the outputs (example, …).

    Raises:
        AnalysisError: The loss cannot be told although it was asked for.
        MissingDataError: Likewise.
    """
    if functional != "full":
        return None, f"{functional} of the output is followed, not the output itself (`--probe-output full`)"
    unfit = f"{clean(probe.name)} has no labels that fit the model's outputs (`--probe FILE.npz` with y)"
    try:
        target = read_target(trace, options, shape[1:]) if len(shape) > 2 else None
        if target is not None and target.positions is not None:
            found = _at_positions(trace, options, target, probe, shape[1:])
            return found, "" if found is not None else unfit
        labels = probe_labels(probe, math.prod(shape[1:]))
        if labels is None:
            return None, unfit
        loss = infer_loss(
            trace,
            kind=None if options.loss == "auto" else options.loss,
            labels=None if options.labels is None else read_labels(trace, options.labels),
        )
    except (AnalysisError, MissingDataError) as error:
        if options.loss != "auto" or options.labels is not None:
            raise
        return None, clean(error)
    return ProbeLoss(loss, labels), ""


def _at_positions(
    trace: Trace, options: Options, target: Target, probe: ProbeSet, shape: Sequence[int]
) -> PositionLoss | None:
    """Return the loss at each position of a probe set; None where its labels do not fit.

    Raises:
        AnalysisError: Training examples have different shapes.
    """
    dtype = replay_dtype(trace, options.dtype)
    inputs = ExampleInputs(trace)
    # Some training examples tell whether labels are among the model's inputs.
    few = np.arange(min(inputs.count, _COMPARED))
    train = Examples(few, taken(trace, inputs, few, dtype), target.training(few, 0))
    given = tuple(tensor(array, str(array.dtype)) for array in probe.inputs)
    held = Examples(np.arange(probe.examples), given, None)
    positions, labels, _ = held_out_labels(target, probe, held, train, shape)
    if positions is None or labels is None or not bool((labels >= 0).any()):
        return None
    return PositionLoss(positions, labels, target.factor)
