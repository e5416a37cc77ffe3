"""The loss of a run, and the labels of training and held-out examples: one each, or one at each position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor
from tscope_format.errors import AnalysisError, MissingDataError, clean

from tscope.analyses.kernel.setup import chosen_labels, probe_labels
from tscope.optimizers import Positions, infer_loss, infer_positions, read_labels
from tscope.optimizers.positions import IGNORED
from tscope.probes import ProbeSet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.analyses.kernel.setup import Examples
    from tscope.optimizers.losses import Kind
    from tscope.trace import Trace

    Numbers = NDArray[np.int64]


class Named(Protocol):
    """Options that name the loss, or give labels of the training examples."""

    @property
    def loss(self) -> str:
        """Return auto, mse, cross_entropy or bce."""

    @property
    def labels(self) -> str | None:
        """Return an `.npz` with x and y."""


_AS_GIVEN = "loss and labels are as given: the recorded gradients are not of them"
_FACTOR = 1e-3  # further from 1 than that, a run's loss is no mean over positions


@dataclass(frozen=True, eq=False)
class Target:
    """The loss of a run.

    Attributes:
        kind: The loss.
        positions: Of a label at each position: where they are in the outputs; else None.
        labels: Of all training examples (example, output), or classes (example, position); None where they
            are not known. NaN, or no `known`, where an example was never trained on.
        known: Of classes at positions: which examples (example,) were trained on.
        factor: Of classes at positions: how much larger the run's loss is than the mean over them.
        notes: What is not known of the loss, one line each.
    """

    kind: Kind
    positions: Positions | None
    labels: Tensor | None
    known: Tensor | None = None
    factor: float = 1.0
    notes: tuple[str, ...] = ()

    def training(self, numbers: Numbers, outputs: int) -> Tensor | None:
        """Return the labels of drawn training examples; None if one is not known."""
        if self.positions is None:
            return chosen_labels(self.labels, numbers, None, outputs)
        chosen = torch.from_numpy(numbers)
        if self.labels is None or (self.known is not None and not bool(self.known[chosen].all())):
            return None
        return self.labels[chosen]


def read_target(trace: Trace, options: Named, shape: Sequence[int]) -> Target:
    """Return the loss that a run was trained with, for outputs (example, *shape).

    A loss that was named is taken as it is: its labels may still be those of a file, where the run's own
    gradients do not tell them (of a model that ends in a softmax, for one).

    Raises:
        AnalysisError: The loss cannot be told, or labels are not those of the gradients.
        MissingDataError: There are no gradients that would tell it.
        UsageError: The labels do not fit.
    """
    labels = None if options.labels is None else read_labels(trace, options.labels)
    named = None if options.loss == "auto" else options.loss
    classes = named in (None, "cross_entropy")
    if labels is not None and classes:
        at = positions_of(shape, labels)
        if at is not None:
            return _given(trace, shape, *at)
    try:
        found = infer_loss(trace, kind=named, labels=labels)
    except (AnalysisError, MissingDataError) as error:
        if not isinstance(error, MissingDataError) and labels is None and classes:
            several = infer_positions(trace, shape)
            if several is not None:
                return Target(
                    "cross_entropy",
                    several.positions,
                    several.labels,
                    several.visited,
                    several.factor,
                    _weighing(several.factor),
                )
        if named is None:
            raise type(error)(
                f"the training loss cannot be told ({clean(error)}); name it with `--loss`, and give the "
                "training labels with `--labels FILE.npz` (x, y)"
            ) from error
        kind: Kind = "mse" if named == "mse" else "bce" if named == "bce" else "cross_entropy"
        if labels is None:
            told = f"the training labels cannot be told ({clean(error)}): no loss on them"
            return Target(kind, None, None, notes=(told,))
        known = probe_labels(ProbeSet("labels", (), labels.numpy()), math.prod(shape))
        return Target(kind, None, known, notes=(_AS_GIVEN,))
    return Target(found.kind, None, found.labels)


def positions_of(shape: Sequence[int], target: Tensor) -> tuple[Positions, Tensor] | None:
    """Return where in outputs (example, *shape) labels at several positions belong, and them as classes."""
    for positions in Positions.within(shape):
        labels = positions.labels(target)
        if labels is not None and positions.count > 1:
            return positions, labels
    return None


def equal_input(inputs: Sequence[Tensor], labels: Tensor) -> tuple[int, int | None] | None:
    """Return which of a model's inputs holds the labels, and the value there of positions to ignore.

    A language model is often given its targets, to return the loss.

    Args:
        inputs: Of some examples, each (example, …).
        labels: Theirs (example, position), `IGNORED` where they do not count.
    """
    counts = labels != IGNORED
    for place, values in enumerate(inputs):
        if values.is_floating_point() or values.numel() != labels.numel() or not bool(counts.any()):
            continue
        flat = values.reshape(labels.shape)
        ignored = sorted(set(flat[~counts].tolist()))
        if not bool((flat[counts] == labels[counts]).all()) or len(ignored) > 1:
            continue
        if not ignored or not bool((labels == ignored[0]).any()):
            return place, ignored[0] if ignored else None
    return None


def held_out_labels(
    target: Target, probe: ProbeSet, held: Examples, train: Examples, shape: Sequence[int]
) -> tuple[Positions | None, Tensor | None, list[str]]:
    """Return the labels of drawn held-out examples, where their positions are, and what there is to say.

    Args:
        target: The loss.
        probe: The probe set that they are of.
        held: They, without labels.
        train: The drawn training examples.
        shape: Of one example's output.
    """
    outputs, chosen = math.prod(shape), torch.from_numpy(held.numbers)
    given = None if probe.target is None else torch.from_numpy(np.asarray(probe.target))
    if target.positions is None:
        labels = chosen_labels(probe_labels(probe, outputs), held.numbers, None, outputs)
        if labels is None and given is not None and target.labels is None and target.kind == "cross_entropy":
            at = positions_of(shape, given)
            if at is not None:
                return at[0], at[1][chosen], []
        return None, labels, []
    if given is not None:
        labels = target.positions.labels(given)
        return target.positions, None if labels is None else labels[chosen], []
    equal = None if train.labels is None else equal_input(train.inputs, train.labels)
    if equal is None:
        return target.positions, None, []
    place, ignored = equal
    values = held.inputs[place]
    labels = target.positions.labels(values if ignored is None else values.where(values != ignored, IGNORED))
    told = f"held-out labels are the model's input {place}, as those of training are"
    return target.positions, labels, [] if labels is None else [told]


def _given(trace: Trace, shape: Sequence[int], positions: Positions, labels: Tensor) -> Target:
    """Return the target of labels from a file, checked by the recorded gradients where there are some.

    Raises:
        AnalysisError: The run was trained on others.
    """
    try:
        found = infer_positions(trace, shape)
    except MissingDataError:
        found = None
    if found is None or found.positions != positions:
        return Target("cross_entropy", positions, labels, notes=(_AS_GIVEN,))
    both = (found.labels != IGNORED) & (labels != IGNORED)
    off = int((found.labels != labels)[both].sum())
    if off:
        raise AnalysisError(
            f"{off} of {int(both.sum())} labels given are not those that the run was trained on; leave out "
            "`--labels`: the recorded gradients tell them"
        )
    # What the loss ignored is known from the gradients alone.
    own = torch.where(found.visited[:, None], found.labels, labels)
    return Target("cross_entropy", positions, own, None, found.factor, _weighing(found.factor))


def _weighing(factor: float) -> tuple[str, ...]:
    if abs(factor - 1) <= _FACTOR:
        return ()
    return (f"the run's loss is {factor:.4g} times the mean over positions that figures are of",)
