"""Which axis of an intermediate value counts the examples, and how it is brought to the front."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """The example axis of a value: of size before·examples·after, the examples in the middle.

    A plain batch axis has before = after = 1; positions flattened behind the examples, after > 1 (a view of
    (example, position, …) as (example·position, …)); in front of them, before > 1.
    """

    axis: int
    before: int
    after: int

    def examples_first(self, value: Tensor, lead: int = 0) -> Tensor:
        """Return (example, *lead, …, before, after, …) from (*lead, …, before·example·after, …)."""
        axis = self.axis + lead
        return split(value, axis, (self.before, -1, self.after)).movedim(axis + 1, 0)


def split(value: Tensor, axis: int, sizes: Sequence[int]) -> Tensor:
    """Return the value with one axis in several, of which one size may be -1."""
    return value.reshape(*value.shape[:axis], *sizes, *value.shape[axis + 1 :])


def candidates(shape: Sequence[int], axes: Iterable[int], examples: int) -> list[Layout]:
    """Return the layouts that a value of a given shape may have."""
    found = []
    for axis in axes:
        if shape[axis] == 0 or shape[axis] % examples:
            continue
        others = shape[axis] // examples
        divisors = (before for before in range(1, others + 1) if others % before == 0)
        found += [Layout(axis, before, others // before) for before in divisors]
    return found


def fitting(layouts: Sequence[Layout], supports: Sequence[Tensor], rows: Sequence[int]) -> Layout | None:
    """Return the one layout under which each example's gradient lies in that example's part.

    Args:
        layouts: the candidates.
        supports: for each of `rows`, where ∂(its outputs)/∂(value) is not zero.
        rows: examples, at least two of which must have a gradient for the answer to count.

    Returns:
        None if no layout fits, or several do.
    """
    alive = [(row, support) for row, support in zip(rows, supports, strict=True) if support.any()]
    if len(alive) < 2:
        return None
    fits = [layout for layout in layouts if all(_within(layout, support, row) for row, support in alive)]
    return fits[0] if len(fits) == 1 else None


def overlap(supports: Sequence[Tensor]) -> bool:
    """Tell whether some element matters to the outputs of two of the examples."""
    return bool((torch.stack([support.int() for support in supports]).sum(0) > 1).any())


def _within(layout: Layout, support: Tensor, row: int) -> bool:
    reached = layout.examples_first(support).flatten(1).any(1)
    reached[row] = False
    return not bool(reached.any())
