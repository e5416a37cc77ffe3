"""Blocks of the tangent kernel from the factors of two sets of examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tscope.kernels.capture import Use
from tscope.kernels.factors import Affine, Explicit, Factor, Lookup
from tscope.program.derivatives import Tensors


@dataclass
class Columns:
    """The columns' examples, against which the rows come in several passes.

    Attributes:
        factors: for each parameter, the factors of its uses.
        memory: bytes for Jacobians that are kept from one pass to the next.
        formed: those that are.
    """

    factors: Mapping[str, Sequence[Factor]]
    memory: int
    formed: dict[str, Tensor] = field(default_factory=dict)

    def keep(self, name: str, V: Tensor) -> None:
        """Keep a parameter's Jacobian if there is room."""
        taken = sum(value.nbytes for value in self.formed.values())
        if taken + V.nbytes <= self.memory:
            self.formed[name] = V


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
    columns: Columns,
    biases: Mapping[str, str],
    preconditioner: Tensors | None,
    memory: int,
    K: Tensor,
) -> None:
    """Add Σ_p J_p(rows) D_p J_p(columns)ᵀ to K (row, output, column, output).

    Args:
        rows: for each parameter, the factors of its uses.
        columns: the columns' examples.
        biases: by weight, the bias that may be done along with it.
        preconditioner: D by name; None for the identity.
        memory: bytes for intermediate values.
        K: what to add to.
    """
    done: set[str] = set()
    for name in sorted(rows, key=lambda name: name not in biases):  # a merged bias after its weight
        if name in done:
            continue
        first, second = rows[name][0], columns.factors[name][0]
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
        if name in columns.formed:
            _add_formed(K, rows[name], columns.formed[name], memory)
            continue
        V = _add(K, rows[name], columns.factors[name], D, memory)
        if V is not None:
            columns.keep(name, V)


def _add(
    K: Tensor, rows: Sequence[Factor], columns: Sequence[Factor], D: Tensor | None, memory: int
) -> Tensor | None:
    """Add J(rows) D J(columns)ᵀ, with as many of the columns' Jacobians formed at a time as memory holds.

    Returns:
        D J(columns)ᵀ as (column·output, *parameter) if all of it was formed at once.
    """
    c, m = K.shape[1:3]
    each = 3 * c * _size(columns[0]) * K.element_size()
    step = max(1, int(memory / 2 / each))
    V = None
    for start in range(0, m, step):
        stop = min(start + step, m)
        V = columns[0].rows(start, stop).each()
        for factor in columns[1:]:
            V = V + factor.rows(start, stop).each()
        if D is not None:
            V = V * D
        _add_formed(K[:, :, start:stop], rows, V, memory)
    return V if step >= m else None


def _add_formed(K: Tensor, rows: Sequence[Factor], V: Tensor, memory: int) -> None:
    for factor in rows:
        K += factor.push(V, memory // 2).view(K.shape)


def _size(factor: Factor) -> int:
    """Return the number of the parameter's elements."""
    if isinstance(factor, (Affine, Lookup)):
        return int(torch.Size(factor.shape).numel())
    return factor.gradients.shape[2:].numel()
