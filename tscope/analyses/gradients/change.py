"""The gradients of some examples at every row, against those at the rows t'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tscope.kernels import Jacobian

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.analyses.gradients.rows import Plan
    from tscope.analyses.kernel.setup import Examples
    from tscope.analyses.kernel.states import KernelState

    Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over examples and outputs.

    Attributes:
        square: ‖∇_l f_t‖² (row, layer).
        apart: ‖∇_l f_t − ∇_l f_t'‖² (since, row, layer); NaN for rows before t'.
        examples: How many there are.
    """

    square: Values
    apart: Values
    examples: int

    def change(self, starts: Sequence[int]) -> tuple[Values, Values]:
        """Return E‖∇_l f_t − ∇_l f_t'‖²/E‖∇_l f_t'‖² and the cosines, each (since, row, layer + 1).

        The last entry is of all layers together.

        Args:
            starts: Which row each t' is.
        """
        square, apart = _with_whole(self.square), _with_whole(self.apart)
        first = square[list(starts)][:, None]
        # 2⟨a, b⟩ = ‖a‖² + ‖b‖² − ‖a − b‖²: what this loses is rounding of a cosine.
        inner = (first + square[None] - apart) / 2
        return _ratio(apart, first), _ratio(inner, np.sqrt(first * square[None]))


def compare(
    plan: Plan, states: Sequence[KernelState], examples: Examples, memory: int
) -> Iterator[tuple[int, Sums]]:
    """Yield how many examples were done, and the sums so far.

    C backward passes over each group of examples at each row; the gradients themselves are held for the rows
    t' alone.
    """
    layers, rows = list(plan.layers.values()), [state.row for state in states]
    since = [row for row in plan.since if row in rows]
    square = np.zeros((len(rows), len(layers)))
    apart = np.zeros((len(since), len(rows), len(layers)))
    for place, row in enumerate(since):
        apart[place, [other < row for other in rows]] = np.nan
    for start in range(0, examples.count, plan.together):
        inputs = tuple(value[start : start + plan.together] for value in examples.inputs)
        held: list[dict[str, Tensor]] = []
        for at, state in enumerate(states):
            here = _gradients(plan, state, inputs, memory)
            if state.row in since:
                held.append(here)
            square[at] += _squares(here, None, layers)
            for place, before in enumerate(held):
                apart[place, at] += _squares(here, before, layers)
        yield min(start + plan.together, examples.count), Sums(square, apart, examples.count)


def _gradients(plan: Plan, state: KernelState, inputs: tuple[Tensor, ...], memory: int) -> dict[str, Tensor]:
    """Return J by parameter name (example·output, …)."""
    setup = plan.setup
    jacobian = Jacobian(
        setup.program, setup.functional, state.theta, state.buffers, wrt=plan.names, memory=memory
    )
    return jacobian.each(inputs)


def _squares(
    here: Mapping[str, Tensor], before: Mapping[str, Tensor] | None, layers: Sequence[Sequence[str]]
) -> NDArray[Any]:
    """Return ‖here‖², or ‖here − before‖², of each layer (layer,), summed in float64.

    The difference is formed first: that of squares would have lost the digits of a small one.
    """

    def square(name: str) -> float:
        value = here[name] if before is None else here[name] - before[name]
        return float(torch.linalg.vector_norm(value, dtype=torch.float64)) ** 2

    return np.array([sum(square(name) for name in names) for names in layers])


def _with_whole(values: Values) -> Values:
    """Return values (…, layer) with their sum over the layers as one more."""
    return np.concatenate([values, values.sum(-1, keepdims=True)], -1)


def _ratio(part: Values, whole: Values) -> Values:
    """Return part/whole, NaN where the whole is zero."""
    whole = np.broadcast_to(whole, part.shape)
    found: Values = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return found
