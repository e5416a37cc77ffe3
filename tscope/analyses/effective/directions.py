"""Directions in which labels change: the columns that the recursion follows.

Squared loss and binary cross-entropy: each label by itself. Cross-entropy: labels stay on the simplex's
tangent, so an example has C − 1 directions, orthonormal and of zero sum (math.md §3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from tscope.optimizers import Loss

# Labels whose perturbation is rolled out to check the smoother.
_PERTURBED = 8


@dataclass(frozen=True, eq=False)
class Directions:
    """An orthonormal basis of the changes of all labels.

    Attributes:
        examples: n.
        tangent: The basis of one example's changes (output, direction).
    """

    examples: int
    tangent: Tensor

    @classmethod
    def of(cls, loss: Loss, examples: int, outputs: int, dtype: torch.dtype) -> Directions:
        """Return the directions that a loss's labels have."""
        identity = torch.eye(outputs, dtype=dtype)
        return cls(examples, _zero_sum(identity) if loss.kind == "cross_entropy" else identity)

    @property
    def count(self) -> int:
        """The number q of basis vectors."""
        return self.examples * self.tangent.shape[1]

    def basis(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Return the vectors start … stop − 1 (example, output, column), by default all q of them."""
        n, (C, D) = self.examples, self.tangent.shape
        column = torch.arange(start, self.count if stop is None else stop)
        whole = self.tangent.new_zeros((n, C, len(column)))
        whole[column // D, :, torch.arange(len(column))] = self.tangent.T[column % D]
        return whole

    def labelled(self, S: Tensor) -> Tensor:
        """Return the columns of a basis (point, output, q) as those of labels (point, output, train, output).

        Where labels have fewer directions than outputs it is the smoother of changes along these.
        """
        parts = S.reshape(*S.shape[:2], self.examples, self.tangent.shape[1])
        return parts @ self.tangent.T

    def probes(self, count: int, generator: torch.Generator) -> Tensor:
        """Return Rademacher combinations of the basis vectors (example, output, probe).

        E‖S ε‖² = ‖S‖_F² over the basis.
        """
        n, D = self.examples, self.tangent.shape[1]
        signs = torch.randint(0, 2, (n, D, count), generator=generator).to(self.tangent.dtype).mul_(2).sub_(1)
        return torch.einsum("cd,ndk->nck", self.tangent, signs)

    def perturbation(self, generator: torch.Generator) -> Tensor:
        """Return a random change of a few examples' labels (example, output)."""
        n, D = self.examples, self.tangent.shape[1]
        chosen = torch.randperm(n, generator=generator)[:_PERTURBED]
        change = torch.randn((len(chosen), D), generator=generator, dtype=torch.float64)
        delta = self.tangent.new_zeros((n, self.tangent.shape[0]))
        delta[chosen] = change.to(delta.dtype) @ self.tangent.T
        return delta


def _zero_sum(identity: Tensor) -> Tensor:
    """Return an orthonormal basis of the vectors of zero sum (output, direction), Helmert's."""
    outputs = len(identity)
    basis = identity.new_zeros((outputs, outputs - 1))
    for k in range(1, outputs):
        basis[:k, k - 1] = 1
        basis[k, k - 1] = -k
        basis[:, k - 1] /= (k * (k + 1)) ** 0.5
    return basis
