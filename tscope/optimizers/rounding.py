"""What rounding of recorded outputs and gradients makes of a loss that is fitted to them."""

from __future__ import annotations

import numpy as np

# A fit may be off by so many roundings of the residual and of the mean; one of each was measured.
_ROUNDINGS, _EACH = 20.0, 10.0
_LARGEST, _LEAST_LIMIT = 1e3, 1e-10


def half_unit(dtype: str) -> float:
    """Return half a unit in the last place of numbers of a dtype, relative to them."""
    return float(np.finfo(dtype).eps) / 2


def spread_limit(half: float, larger: float) -> float:
    """Return what rounding may make of a spread: that of μ(f) counts for more, where μ(f) − y is small.

    Args:
        half: Half a unit in the last place of what was recorded.
        larger: How much larger μ(f) is than μ(f) − y.
    """
    return max(_LEAST_LIMIT, half * (_ROUNDINGS + _EACH * min(larger, _LARGEST)))
