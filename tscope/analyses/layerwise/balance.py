"""Balancedness of consecutive linear layers along a run, from θ alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from tscope_format.errors import AnalysisError, clean

from tscope.analyses.layerwise.pairs import Pair, find_pairs
from tscope.program import Program

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Tensors = Mapping[str, Tensor]
    Values = NDArray[np.floating[Any]]

# Q_0, what Q should be, Q itself, and what their products and differences need.
_COPIES = 8


class Balance:
    """Q of each pair, row by row.

    Args:
        pairs: The layers.

    Attributes:
        norm: ‖Q_t‖_F of each pair and row.
        drift: ‖Q_t − Q_0‖_F.
        size: ‖W₁‖² + ‖b₁‖² + ‖W₂‖².
    """

    def __init__(self, pairs: tuple[Pair, ...]) -> None:
        self.pairs = pairs
        self.norm: list[Values] = []
        self.drift: list[Values] = []
        self.size: list[Values] = []
        self._first: list[Tensor] = []

    def add(self, theta: Tensors) -> None:
        """Take in θ of the next row. Two products for each pair, 2·units²·(inputs + outputs) flops."""
        found = [pair.balance(theta) for pair in self.pairs]
        self._first = self._first or found
        self.norm.append(np.array([float(Q.norm()) for Q in found]))
        moved = zip(found, self._first, strict=True)
        self.drift.append(np.array([float((Q - start).norm()) for Q, start in moved]))
        self.size.append(np.array([pair.size(theta) for pair in self.pairs]))


def balanced_pairs(program: Program, limit: float) -> tuple[Pair, ...]:
    """Return the pairs of a program whose matrices fit in `limit` bytes, all together.

    Raises:
        AnalysisError: There are none, or they do not fit.
    """
    pairs = find_pairs(program)
    if not pairs:
        raise AnalysisError(
            "the model has no two linear layers or convolutions that follow each other directly, or with a "
            "ReLU or pooling in between, and nothing else (a normalisation, a sum)"
        )
    need = sum(_COPIES * 8 * (pair.units**2 if pair.linear else pair.units) for pair in pairs)
    if need > limit:
        widest = max(pairs, key=lambda pair: pair.units * pair.linear)
        raise AnalysisError(
            f"balancedness of {len(pairs)} pairs of layers needs {need / 1e6:,.3g} MB ({clean(widest)}: a "
            f"matrix of {widest.units}²) of the {limit / 1e6:,.3g} MB allowed (`--max-memory MB`)"
        )
    return pairs
