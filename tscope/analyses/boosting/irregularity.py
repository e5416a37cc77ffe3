"""How irregular a test example is, seen from the training inputs. float64 throughout.

X = training inputs less their mean μ (example, feature) = U diag(σ) Vᵀ
pca:          |v_1ᵀ(x − μ)|
mahalanobis:  √((x − μ)ᵀ Σ⁺ (x − μ)),   Σ = XᵀX/(n − 1)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tscope_format.errors import AnalysisError, UsageError, clean

from tscope.npz import read_npz

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

RTOL = 1e-10
"""Σ⁺ leaves out the eigenvalues of Σ below this share of the largest: what rounding in float32 makes of a
feature that is a combination of others is some 1e-14."""


def pca(train: Values, test: Values) -> Values:
    """Return |v_1ᵀ(x − μ)| of each test example (test,); an SVD of the training inputs.

    Args:
        train: (example, feature).
        test: (test, feature).

    Raises:
        AnalysisError: The training inputs are all the same.
    """
    mean, _, directions = _spectrum(train)
    found: Values = np.abs((test - mean) @ directions[0])
    return found


def mahalanobis(train: Values, test: Values) -> Values:
    """Return √((x − μ)ᵀ Σ⁺ (x − μ)) of each test example (test,); an SVD of the training inputs.

    What lies outside of the span of the training inputs counts nothing.

    Args:
        train: (example, feature).
        test: (test, feature).

    Raises:
        AnalysisError: The training inputs are all the same.
    """
    mean, spread, directions = _spectrum(train)
    kept = spread**2 > RTOL * spread[0] ** 2
    whitened = (test - mean) @ directions[kept].T / spread[kept]
    found: Values = np.linalg.norm(whitened, axis=1) * np.sqrt(len(train) - 1)
    return found


def column(spec: str, examples: int) -> Values:
    """Read the score of each test example (test,) from a file.

    Args:
        spec: `FILE.npz:NAME`, or `FILE.npz` where it holds one array.
        examples: How many there must be.

    Raises:
        UsageError: There is no such file or array, or it is not one finite number for each example.
    """
    place, mark, name = spec.rpartition(":")
    if not mark or not place.endswith(".npz"):
        place, name = spec, ""
    arrays = read_npz(Path(place), "irregularity file", "a number for each test example")
    names = ", ".join(clean(found) for found in sorted(arrays)) or "nothing"
    if not name and len(arrays) == 1:
        name = next(iter(arrays))
    if name not in arrays:
        what = f"has no array {clean(name)!r}" if name else "holds several arrays: name one, `FILE.npz:NAME`"
        raise UsageError(f"irregularity file {clean(place)} {what}; it holds {names}")
    return _scores(f"{clean(place)}:{clean(name)}", arrays[name], examples)


def _scores(what: str, array: NDArray[Any], examples: int) -> Values:
    if array.shape not in ((examples,), (examples, 1)) or array.dtype.kind not in "fiub":
        raise UsageError(
            f"irregularity {what} must be one number for each of the {examples} test examples; it is "
            f"{array.dtype} of shape {array.shape}"
        )
    scores = array.reshape(examples).astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(scores))
    if bad.size:
        raise UsageError(f"irregularity {what} is {scores[bad[0]]} at example {bad[0]}; numbers are needed")
    return scores


def _spectrum(train: Values) -> tuple[Values, Values, Values]:
    """Return μ (feature,), σ (k,) and Vᵀ (k, feature), σ decreasing."""
    mean = train.mean(0)
    _, spread, directions = np.linalg.svd(train - mean, full_matrices=False)
    # A mean of equal numbers can miss them by rounding.
    if not spread[0] > 1e-12 * np.abs(train).max() * np.sqrt(len(train)):
        raise AnalysisError(
            "the training inputs are all the same, so no test example is more irregular than another; give "
            "a score of your own: `--irregularity FILE.npz:NAME`"
        )
    return mean, spread, directions
