"""What each layer's steps did to the predictions of a probe set, and to the loss there, to first order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tscope_format.results import Array

from tscope.replay.evaluation import Evaluation, difference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.optimizers import Loss

    Tensors = Mapping[str, Tensor]
    Values = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class ProbeLoss:
    """The training loss as the mean over a probe set's examples.

    Attributes:
        loss: The kind and its factor.
        labels: y (example, output) float64.
    """

    loss: Loss
    labels: Tensor

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


class Contributions:
    """The changes of a probe set's predictions, taken apart by layer (math.md §1).

    Args:
        evaluation: f on the probe set.
        layers: The parameters of each layer.
        loss: Of the probe set; None where it is not known.
    """

    def __init__(
        self, evaluation: Evaluation, layers: Mapping[str, Sequence[str]], loss: ProbeLoss | None
    ) -> None:
        self._evaluation = evaluation
        self._layers = [tuple(names) for names in layers.values()]
        self._loss = loss
        self._rows: dict[str, list[Values]] = {}

    def walk(self, states: Iterator[tuple[int, Tensors, Tensors]]) -> Iterator[int]:
        """Take in the states of increasing rows, and yield how many there were.

        A row costs a forward-mode pass over the probe set for each layer, from where it enters the model.
        """
        theta: Tensors = {}
        buffers: Tensors = {}
        for count, (_, after, buffers_after) in enumerate(states):
            if theta:
                before, parts = self._evaluation.jvp_layers(
                    theta, difference(after, theta), self._layers, buffers
                )
                self._add(before.double(), self._evaluation.value(after, buffers_after).double(), parts)
            else:
                self._start()
            theta, buffers = after, buffers_after
            yield count + 1

    def arrays(self) -> dict[str, Array]:
        """Return the series."""
        found = {name: np.stack(values) for name, values in self._rows.items()}
        return {
            name: Array(("step", "layer") if values.ndim == 2 else ("step",), values)
            for name, values in found.items()
        }

    def _start(self) -> None:
        """The first row ends no interval: nothing changed."""
        none = np.zeros(len(self._layers))
        for name in ("contribution", "contribution_signed"):
            self._keep(name, none)
        self._keep("residual_relative", np.zeros(()))
        if self._loss is not None:
            self._keep("loss_contribution", none)
            for name in ("loss_change", "loss_residual"):
                self._keep(name, np.zeros(()))

    def _add(self, before: Tensor, after: Tensor, parts: Tensor) -> None:
        parts, change = parts.double(), after - before
        square = float(change.square().sum())
        self._keep("contribution", parts.square().sum((1, 2)).sqrt().numpy())
        along = torch.tensordot(parts, change, 2)
        self._keep("contribution_signed", (along / square if square else torch.zeros_like(along)).numpy())
        rest = float((change - parts.sum(0)).square().sum())
        self._keep("residual_relative", np.asarray((rest / square) ** 0.5 if square else 0.0))
        if self._loss is not None:
            linear = torch.tensordot(parts, self._loss.gradient(before), 2)
            moved = self._loss.value(after) - self._loss.value(before)
            self._keep("loss_contribution", linear.numpy())
            self._keep("loss_change", np.asarray(moved))
            self._keep("loss_residual", np.asarray(moved - float(linear.sum())))

    def _keep(self, name: str, value: Values) -> None:
        self._rows.setdefault(name, []).append(value)
