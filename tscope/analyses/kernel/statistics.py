"""What is read off one tangent kernel: size, spectrum, agreement with the labels, distance to another.

A kernel is K = Σ_l K^(l), one part for each layer (layer, row, output, column, output). Everything here is
computed in float64, whatever the parts' dtype.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

NAN = float("nan")
_STRIP = 1 << 19  # entries of a matrix at a time


@dataclass(frozen=True, eq=False)
class Statistics:
    """The numbers of one symmetric kernel K, q = n·C rows.

    A share is the part of a number that a layer brings; over the layers shares add up to one.

    Attributes:
        trace: tr K.
        frobenius: ‖K‖_F.
        eigenvalues: (eigenvalue,) the largest λ_i, decreasing.
        effective_rank: exp(−Σ p_i log p_i), p = λ/Σλ over all eigenvalues [Roy07].
        participation_ratio: (tr K)² / ‖K‖_F².
        alignment: yᵀKy / (‖K‖_F ‖y‖²) = ⟨K, yyᵀ⟩ / (‖K‖ ‖yyᵀ‖) [Cristianini01]; NaN without labels,
            or where all are 0.
        alignment_centered: the same of HKH and Hy, H taking off each output's mean over the examples
            [Cortes12]; NaN also where all examples have one label.
        shares: (layer,) of `trace`, `frobenius`, `alignment`, and (eigenvalue, layer) of `eigenvalues`: of
            ‖K‖² it is ⟨K^(l), K⟩, of λ_i = u_iᵀKu_i it is u_iᵀK^(l)u_i, of yᵀKy it is yᵀK^(l)y. Empty where
            there is one part only.
    """

    trace: float
    frobenius: float
    eigenvalues: Tensor
    effective_rank: float
    participation_ratio: float
    alignment: float
    alignment_centered: float
    shares: dict[str, Tensor]


def whole(parts: Tensor) -> Tensor:
    """Return K = Σ_l K^(l) (row·output, column·output) float64; one matrix is held beside the parts."""
    _, n, c, m, d = parts.shape
    K = torch.zeros(n * c, m * d, dtype=torch.float64, device=parts.device)
    for part in parts:
        K += part.reshape(n * c, m * d)
    return K


def statistics(parts: Tensor, K: Tensor, labels: Tensor | None, count: int) -> Statistics:
    """Return the numbers of a symmetric kernel; some 9q³ flops for its eigenvalues, and 2Lq² for the shares.

    Args:
        parts: K^(l) (layer, example, output, example, output).
        K: `whole(parts)`.
        labels: y (example, output) float64; None where they are not known.
        count: How many eigenvalues to keep.
    """
    n, c = parts.shape[1:3]
    layered = len(parts) > 1
    trace, frobenius = float(K.diagonal().sum()), float(K.norm())
    if layered:
        values, vectors = torch.linalg.eigh(K)
        vectors = vectors.flip(1)[:, :count]
    else:
        values, vectors = torch.linalg.eigvalsh(K), None
    values = values.flip(0)
    y = None if labels is None else labels.reshape(-1)
    shares: dict[str, Tensor] = {}
    if layered and vectors is not None:
        traces = torch.stack(
            [part.reshape(n * c, n * c).diagonal().sum(dtype=torch.float64) for part in parts]
        )
        shares = {
            "trace": traces / trace,
            "frobenius": inner(parts, K) / frobenius**2,
            "eigenvalues": _forms(parts, vectors) / values[:count, None],
        }
        if y is not None:
            shares["alignment"] = _forms(parts, y[:, None])[0] / (y @ K @ y)
    alignment = centered = NAN
    if y is not None and labels is not None:
        alignment = _alignment(K, y)
        if not bool((labels == labels[0]).all()):
            centered = _alignment(_centred(K, n, c), (labels - labels.mean(0)).reshape(-1))
    return Statistics(
        trace=trace,
        frobenius=frobenius,
        eigenvalues=values[:count].clone(),
        effective_rank=_effective_rank(values),
        participation_ratio=_ratio(trace**2, frobenius**2),
        alignment=alignment,
        alignment_centered=centered,
        shares=shares,
    )


def distance(K: Tensor, other: Tensor) -> float:
    """Return the kernel distance 1 − ⟨K, K'⟩ / (‖K‖‖K'‖) [Fort20].

    As ½‖K/‖K‖ − K'/‖K'‖‖²: 1 − cos would lose its digits where the two are nearly the same.
    """
    norms = float(K.norm()), float(other.norm())
    if not min(norms) > 0:
        return NAN
    parts = (float((K[rows] / norms[0] - other[rows] / norms[1]).square().sum()) for rows in _strips(K))
    return sum(parts) / 2


def movement(K: Tensor, first: Tensor) -> float:
    """Return ‖K − K_0‖_F / ‖K_0‖_F."""
    square = sum(float((K[rows] - first[rows]).square().sum()) for rows in _strips(K))
    return _ratio(math.sqrt(square), float(first.norm()))


def weight_norms(parts: Tensor) -> Tensor:
    """Return ‖k(x, ·)‖_F of each row (row,): over its outputs, and all columns and outputs."""
    norms: Tensor = torch.linalg.vector_norm(whole(parts).reshape(parts.shape[1], -1), dim=1)
    return norms


def inner(parts: Tensor, K: Tensor) -> Tensor:
    """Return ⟨K^(l), K⟩ of each part (layer,), for K (row·output, column·output)."""
    found = [
        sum(float((part.reshape(K.shape)[rows] * K[rows]).sum()) for rows in _strips(K)) for part in parts
    ]
    return torch.tensor(found, dtype=torch.float64)


def _forms(parts: Tensor, vectors: Tensor) -> Tensor:
    """Return uᵀK^(l)u (vector, layer) of vectors u (example·output, vector)."""
    found = torch.zeros(vectors.shape[1], len(parts), dtype=torch.float64, device=vectors.device)
    for place, part in enumerate(parts):
        matrix = part.reshape(len(vectors), -1)
        for rows in _strips(matrix):
            found[:, place] += (vectors[rows] * (matrix[rows].double() @ vectors)).sum(0)
    return found


def _strips(K: Tensor) -> Iterator[slice]:
    """Yield slices of rows of a few MB: temporary values of a whole matrix would be most of the memory."""
    step = max(1, _STRIP // max(1, K.shape[1]))
    for start in range(0, len(K), step):
        yield slice(start, start + step)


def _alignment(K: Tensor, y: Tensor) -> float:
    return _ratio(float(y @ K @ y), float(K.norm()) * float(y @ y))


def _centred(K: Tensor, n: int, c: int) -> Tensor:
    """Return HKH, each output centred over the examples."""
    K = K.reshape(n, c, n, c)
    rows, columns = K.mean(0, keepdim=True), K.mean(2, keepdim=True)
    centred = K - rows
    centred -= columns
    centred += rows.mean(2, keepdim=True)
    return centred.reshape(n * c, n * c)


def _effective_rank(values: Tensor) -> float:
    """Return exp of the entropy of λ/Σλ; what rounding made negative counts as zero."""
    positive = values.clamp(min=0)
    total = float(positive.sum())
    if not total > 0:
        return NAN
    return float(torch.exp(torch.special.entr(positive / total).sum()))


def _ratio(part: float, of: float) -> float:
    return part / of if of > 0 else NAN
