"""The standard error of p from random probes: few of them, and of a skewed distribution.

What a probe says is nearly a scaled χ² of ν degrees of freedom, few where a few directions dominate S. Then
a mean that is too small comes with a spread that is too small, and the truth lies above the mean by more than
two standard errors too often. Spread over mean is independent of the mean for such a χ²: so the error is that
of log p, and p ± 2 se reaches on both sides as far as that does above p.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

_NORMAL = 1.959964  # its 97.5 % quantile


def standard_errors(columns: Values) -> Values:
    """Return standard errors of the mean of at least two columns (column, quantity), by Student's t."""
    count = len(columns)
    errors: Values = columns.std(0, ddof=1) / count**0.5 * _student(count - 1)
    return errors


def above(p: Values, se: Values) -> Values:
    """Return `se` (quantity), symmetric, of p > 0 as half of how far 2 se of log p reach above p."""
    relative = np.divide(se, p, out=np.zeros_like(p), where=p > 0)
    reach: Values = p * np.expm1(2 * relative) / 2
    return reach


def relative_bound(relative: float, count: int) -> float:
    """Return what the relative error `relative` of `count` probes, as `above` gives it, may be in truth.

    One standard deviation is added that the spread of the probes itself has: Var s²/σ⁴ ≈ (κ − 1)/r, where
    κ = 3 + 12/ν, and 2/ν is the variance of what a probe says over its square mean.
    """
    log = np.log1p(2 * relative) / 2
    log *= 1 + ((1 + 3 * count * log**2) / (2 * (count - 1))) ** 0.5
    return float(np.expm1(2 * log) / 2)


def _student(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t over the normal distribution's: Cornish and Fisher's series.

    It is within 1 % from 2 degrees of freedom on; with one it is 11 % too small.
    """
    z = _NORMAL
    terms = (
        (z**2 + 1) / 4,
        (5 * z**4 + 16 * z**2 + 3) / 96,
        (3 * z**6 + 19 * z**4 + 17 * z**2 - 15) / 384,
        (79 * z**8 + 776 * z**6 + 1482 * z**4 - 1920 * z**2 - 945) / 92160,
    )
    return 1 + sum(term / float(freedom) ** (k + 1) for k, term in enumerate(terms))
