"""Sets of test examples with a growing share of irregular ones, and the figures of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tscope_format.errors import AnalysisError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Values = NDArray[np.float64]
    Places = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Subsets:
    """Drawn sets of test examples, all of one size: a maximum grows with the number it is of.

    Attributes:
        irregular: Which test examples are irregular (test,).
        places: The examples of each set (share, draw, member).
    """

    irregular: NDArray[np.bool_]
    places: Places

    @property
    def size(self) -> int:
        """How many examples a set has: as many as are irregular."""
        return int(self.places.shape[2])


def draw(scores: Values, irregular: float, shares: Sequence[float], draws: int, seed: int) -> Subsets:
    """Draw the sets.

    In one draw they follow each other: the next share replaces regular examples by irregular ones and keeps
    the others, so that curves differ by what was replaced.

    Args:
        scores: How irregular each test example is (test,).
        irregular: The share of them that counts as irregular, from the top; of equal ones, the first.
        shares: Of irregular examples in the sets.
        draws: How many sets for each share.
        seed: Of the generator.

    Raises:
        AnalysisError: None is irregular, or all are equally so.
    """
    size = round(irregular * len(scores))
    if size == 0:
        raise AnalysisError(
            f"the {irregular:.0%} most irregular of {len(scores)} test examples are none; give more test "
            "examples, or a larger share (`--irregular SHARE`)"
        )
    if scores.min() == scores.max():
        raise AnalysisError(f"all {len(scores)} test examples are equally irregular ({scores[0]:g})")
    order = np.argsort(-scores, kind="stable")
    generator = np.random.default_rng(seed)
    places = np.empty((len(shares), draws, size), dtype=np.intp)
    for place in range(draws):
        top, rest = generator.permutation(order[:size]), generator.permutation(order[size:])
        for row, share in enumerate(shares):
            count = round(share * size)
            places[row, place] = np.concatenate([top[:count], rest[: size - count]])
    chosen = np.zeros(len(scores), dtype=np.bool_)
    chosen[order[:size]] = True
    return Subsets(chosen, places)


def normalized_maxima(test: Values, train: Values, subsets: Subsets) -> Values:
    """Return (1/T) Σ_t max_{j in set} ‖k_t(x_j)‖ / (1/T) Σ_t max_i ‖k_t(x_i)‖ (share, draw) [Jeffares24].

    T·(share·draw·member) comparisons.

    Args:
        test: ‖k_t(x_j)‖ of the test examples (step, test).
        train: Of the training examples (step, train).
        subsets: The sets.

    Raises:
        AnalysisError: The weights of the training examples are zero at every step.
    """
    largest = float(train.max(1).mean())
    if not largest > 0:
        raise AnalysisError("the kernel weights of all training examples are zero at every step")
    found = np.zeros(subsets.places.shape[:2])
    for norms in test:
        found += norms[subsets.places].max(2)
    return found / len(test) / largest


def mean_errors(errors: Values, subsets: Subsets) -> Values:
    """Return the mean of the examples' errors (test,) over each set (share, draw)."""
    found: Values = errors[subsets.places].mean(2)
    return found
