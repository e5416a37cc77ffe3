"""What each layer's steps did to the predictions of a probe set, and to the loss there, to first order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tscope_format.results import Array

from tscope.replay.evaluation import Evaluation, difference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.analyses.layerwise.probe_loss import KnownLoss

    Tensors = Mapping[str, Tensor]
    Values = NDArray[np.floating[Any]]


class Contributions:
    """The changes of a probe set's predictions, taken apart by layer (math.md §1).

    Args:
        evaluation: f on the probe set.
        layers: The parameters of each layer.
        loss: Of the probe set; None where it is not known.
    """

    def __init__(
        self, evaluation: Evaluation, layers: Mapping[str, Sequence[str]], loss: KnownLoss | None
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
