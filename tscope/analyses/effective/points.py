"""Evaluation points: every training example, then the held-out ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from tscope_format.errors import AnalysisError

if TYPE_CHECKING:
    from torch import Tensor

    Inputs = tuple[Tensor, ...]
    Tensors = Mapping[str, Tensor]


class Jacobian(Protocol):
    """J at one θ, as products with many columns at once; `tscope.kernels.Jacobian` is one.

    Attributes:
        names: The parameters that J is over.
    """

    names: tuple[str, ...]

    def pullback(self, inputs: Inputs, cotangents: Tensor) -> dict[str, Tensor]:
        """Return JᵀR by parameter name (column, …) for R (example, output, column)."""
        ...

    def pushforward(self, inputs: Inputs, tangents: Tensors) -> Tensor:
        """Return JV (example, output, column) for V by parameter name (column, …)."""
        ...

    def block(self, rows: Inputs, columns: Inputs, preconditioner: Tensors | None = None) -> Tensor:
        """Return J(rows) D J(columns)ᵀ (row, output, column, output)."""
        ...


@dataclass(frozen=True, eq=False)
class Points:
    """Where the smoother is followed.

    Attributes:
        examples: The recorded numbers of the training examples, increasing (train).
        train: Their inputs, each (train, …).
        test: The inputs of the held-out examples, each (test, …); None without any.
    """

    examples: Tensor
    train: Inputs
    test: Inputs | None

    @property
    def counts(self) -> tuple[int, int]:
        """The numbers of training and of held-out examples."""
        return len(self.examples), 0 if self.test is None else len(self.test[0])

    @property
    def total(self) -> int:
        """N = n + m."""
        return sum(self.counts)

    def rows(self, examples: Tensor) -> Tensor:
        """Return the points (slot,) of training examples given by their recorded numbers (slot,).

        Raises:
            AnalysisError: One of them is not among the points.
        """
        places = torch.searchsorted(self.examples, examples).clamp_(max=len(self.examples) - 1)
        if not torch.equal(self.examples[places], examples):
            raise AnalysisError("a batch holds an example that is not among the run's training examples")
        return places

    def groups(self) -> Iterator[Inputs]:
        """Yield the inputs of the training examples, then those of the held-out ones."""
        yield self.train
        if self.test is not None:
            yield self.test

    def pushforward(self, jacobian: Jacobian, tangents: Tensors) -> Tensor:
        """Return J V at every point (point, output, column)."""
        return torch.cat([jacobian.pushforward(inputs, tangents) for inputs in self.groups()])

    def block(self, jacobian: Jacobian, columns: Inputs, preconditioner: Tensors | None) -> Tensor:
        """Return K^D of every point with the batch (point, output, slot, output)."""
        return torch.cat([jacobian.block(inputs, columns, preconditioner) for inputs in self.groups()])
