"""Norms of each tensor in a flat vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tscope_format.dtypes import Dtype, NDArray
from tscope_format.tensors import Tensor

# Sums of this many squares are taken in float32, and then added in float64.
_RUN = 4096
# Beyond, BLAS would start threads for a dot product, and the cores belong to the training.
_ONE_CALL = 8192
# Below, squares lose digits to denormals; above, they overflow.
_SMALL, _LARGE = 1e-30, 1e37


def tensor_norms(vector: NDArray, tensors: Sequence[Tensor], dtype: Dtype) -> npt.NDArray[np.float64]:
    """Return the Euclidean norm of each tensor's slice of a flat vector.

    Args:
        vector: (param,) values as float32 or float64.
        tensors: the tensors of `dtype`, whose offsets count elements.
        dtype: their element type.

    Returns:
        (tensor,) norms.
    """
    norms = np.empty(len(tensors))
    for index, tensor in enumerate(tensors):
        start = tensor.offset * dtype.words
        norms[index] = _norm(vector[start : start + tensor.size * dtype.words])
    return norms


def _norm(part: NDArray) -> float:
    total = float(np.dot(part, part)) if part.size <= _ONE_CALL else _sum_of_squares(part)
    if not _SMALL < total < _LARGE and part.size:
        exact = part.astype(np.float64)
        total = float(np.einsum("i,i->", exact, exact))
    return float(np.sqrt(total))


def _sum_of_squares(part: NDArray) -> float:
    whole = part.size - part.size % _RUN
    runs = part[:whole].reshape(-1, _RUN)
    rest = part[whole:]
    return float(np.einsum("ij,ij->i", runs, runs).sum(dtype=np.float64)) + float(np.dot(rest, rest))
