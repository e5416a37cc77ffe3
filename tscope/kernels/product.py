"""Blocks of the tangent kernel from the factors of two sets of examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tscope.kernels.capture import Use
from tscope.kernels.factors import Affine, Explicit, Factor, Lookup
from tscope.program.derivatives import Tensors


def by_parameter(uses: Sequence[Use], rest: Mapping[str, Tensor]) -> dict[str, list[Factor]]:
    """Return every parameter's factors, one for each use; `rest` are Jacobians already."""
    found: dict[str, list[Factor]] = {}
    for use in uses:
        found.setdefault(use.operand.parameter, []).append(use.factor)
    for name, gradients in rest.items():
        found[name] = [Explicit(gradients)]
    return found


def merged_biases(uses: Sequence[Use]) -> dict[str, str]:
    """Return the bias of each weight where both are used in one layer and nowhere else.

    Their blocks share G Gᵀ: (A Aᵀ + 1) ∘ (G Gᵀ).
    """
    times: dict[str, int] = {}
    for use in uses:
        times[use.operand.parameter] = times.get(use.operand.parameter, 0) + 1
    weights = {use.site: use.operand.parameter for use in uses if isinstance(use.factor, Affine)}
    found = {}
    for use in uses:
        if isinstance(use.factor, Affine) or use.site not in weights:
            continue
        weight, bias = weights[use.site], use.operand.parameter
        if times[weight] == times[bias] == 1:
            found[weight] = bias
    return found


def add_block(
    rows: Mapping[str, Sequence[Factor]],
    columns: Mapping[str, Sequence[Factor]],
    biases: Mapping[str, str],
    preconditioner: Tensors | None,
    memory: int,
    K: Tensor,
) -> None:
    """Add Σ_p J_p(rows) D_p J_p(columns)ᵀ to K (row, output, column, output).

    Args:
        rows: for each parameter, the factors of its uses.
        columns: the same for the columns' examples.
        biases: by weight, the bias that may be done along with it.
        preconditioner: D by name; None for the identity.
        memory: bytes for intermediate values.
        K: what to add to.
    """
    done: set[str] = set()
    for name in sorted(rows, key=lambda name: name not in biases):  # a merged bias after its weight
        if name in done:
            continue
        first, second = rows[name][0], columns[name][0]
        once = len(rows[name]) == 1
        D = None if preconditioner is None else preconditioner[name]
        if (
            once
            and D is None
            and isinstance(first, Affine)
            and isinstance(second, Affine)
            and first.pairs_are_cheaper(second)
        ):
            first.add_pairs(second, memory, name in biases, K)
            done.update([biases[name]] if name in biases else [])
            continue
        if once and isinstance(first, Lookup) and isinstance(second, Lookup):
            entries = torch.unique(second.index)
            D = None if D is None else D[entries]
            _add(K, [first.among(entries)], [second.among(entries)], D, memory)
            continue
        _add(K, rows[name], columns[name], D, memory)


def _add(K: Tensor, rows: Sequence[Factor], columns: Sequence[Factor], D: Tensor | None, memory: int) -> None:
    """Add J(rows) D J(columns)ᵀ, with as many of the columns' Jacobians formed at a time as memory holds."""
    n, c, m, _ = K.shape
    shape = _shape(columns[0])
    each = 3 * c * shape * K.element_size()
    step = max(1, int(memory / 2 / each))
    for start in range(0, m, step):
        stop = min(start + step, m)
        V = columns[0].rows(start, stop).each()
        for factor in columns[1:]:
            V = V + factor.rows(start, stop).each()
        if D is not None:
            V = V * D
        for factor in rows:
            K[:, :, start:stop] += factor.push(V, memory // 2).view(n, c, stop - start, c)


def _shape(factor: Factor) -> int:
    """Return the number of the parameter's elements."""
    if isinstance(factor, (Affine, Lookup)):
        return int(torch.Size(factor.shape).numel())
    return factor.gradients.shape[2:].numel()
