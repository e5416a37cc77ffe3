"""Hidden units of one model put in the order of another's: weight matching [Ainsworth23].

    maximise Σ ⟨θ_A, π θ_B⟩ over the orders π of each layer's units

One layer at a time, its best order given those of its neighbours is a linear assignment; a sweep over the
layers repeats until nothing improves. That finds a local maximum, so several sweeps are made, the first in
the order of the graph, the others in random ones, and the best is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tscope_format.errors import MissingDataError

from tscope.averaging.interpolation import State

if TYPE_CHECKING:
    from tscope.averaging.units import Units

Orders = dict[int, Tensor]
Named = Mapping[str, Tensor]

_SWEEPS = 100
_LEAST_GAIN = 1e-12  # of the objective's size: less is rounding


@dataclass(frozen=True, eq=False)
class Matching:
    """Orders of the units of a model B that are like those of A.

    Attributes:
        orders: For each layer which of B's units stands in each place (unit,).
        before: ‖θ_A − θ_B‖² over the tensors with units.
        after: The same, of B in its new order.
    """

    orders: Orders
    before: float
    after: float

    @property
    def moved(self) -> float:
        """The share of units that are in another place."""
        places = [order != torch.arange(len(order)) for order in self.orders.values()]
        return float(torch.cat(places).double().mean())

    def apply(self, units: Units, state: State) -> State:
        """Return a model with its units in the new order; its outputs are those it had, up to rounding."""
        return State(_ordered(units, self.orders, state.theta), _ordered(units, self.orders, state.buffers))


def match(units: Units, a: Named, b: Named, *, seed: int, starts: int = 5) -> Matching:
    """Return the orders of B's units that bring its parameters nearest to those of A.

    Args:
        units: Of both models.
        a: Parameters of A by name.
        b: Parameters of B.
        seed: Of the random orders of the layers.
        starts: How many searches are made.

    Raises:
        MissingDataError: scipy is not installed.
    """
    kept = {name for name in units.axes if name in a}
    ours, theirs = ({name: values[name].double() for name in kept} for values in (a, b))
    generator = np.random.default_rng(seed)
    layers = list(units.sizes)
    found = []
    for start in range(starts):
        sequence = layers if start == 0 else [layers[i] for i in generator.permutation(len(layers))]
        found.append(_search(units, ours, theirs, sequence))
    best = max(found, key=lambda pair: pair[0])[1]
    return Matching(best, _distance(ours, theirs), _distance(ours, _ordered(units, best, theirs)))


def _search(units: Units, a: Named, b: Named, sequence: list[int]) -> tuple[float, Orders]:
    """Return a local maximum of the objective, and its orders."""
    orders: Orders = {layer: torch.arange(size) for layer, size in units.sizes.items()}
    objective = _product(a, b)
    for _ in range(_SWEEPS):
        for layer in sequence:
            orders[layer] = _assigned(_similarity(units, a, b, orders, layer))
        new = _product(a, _ordered(units, orders, b))
        if new - objective <= _LEAST_GAIN * abs(new):
            return new, orders
        objective = new
    return objective, orders


def _similarity(units: Units, a: Named, b: Named, orders: Orders, layer: int) -> Tensor:
    """Return ⟨unit i of A, unit j of B⟩ (unit, unit), with all other layers in their order."""
    size = units.sizes[layer]
    total = torch.zeros(size, size, dtype=torch.float64)
    for name, axes in units.axes.items():
        for place, (axis, own) in enumerate(axes):
            if own != layer or name not in a:
                continue
            others = [entry for index, entry in enumerate(axes) if index != place]
            turned = _turned(b[name], others, orders)
            total += _rows(a[name], axis, size) @ _rows(turned, axis, size).T
    return total


def _rows(value: Tensor, axis: int, size: int) -> Tensor:
    """Return a tensor as (unit, everything else)."""
    return value.movedim(axis, 0).reshape(size, -1)


def _assigned(similarity: Tensor) -> Tensor:
    """Return the order of the largest sum of similarities."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise MissingDataError(
            "matching hidden units needs scipy, which is not installed: pip install 'tscope[matching]'"
        ) from error
    _, columns = linear_sum_assignment(similarity.numpy(), maximize=True)
    return torch.from_numpy(np.asarray(columns, dtype=np.int64))


def _ordered(units: Units, orders: Orders, tensors: Named) -> dict[str, Tensor]:
    return {name: _turned(value, units.axes.get(name, ()), orders) for name, value in tensors.items()}


def _turned(
    value: Tensor, axes: tuple[tuple[int, int], ...] | list[tuple[int, int]], orders: Orders
) -> Tensor:
    """Return a tensor with each of its axes in the order of its units."""
    for axis, layer in axes:
        order = orders[layer]
        each = value.shape[axis] // len(order)
        index = (order[:, None] * each + torch.arange(each)).reshape(-1)
        value = value.index_select(axis, index)
    return value


def _product(a: Named, b: Named) -> float:
    return sum(float((value * b[name]).sum()) for name, value in a.items())


def _distance(a: Named, b: Named) -> float:
    return sum(float((value - b[name]).square().sum()) for name, value in a.items())
