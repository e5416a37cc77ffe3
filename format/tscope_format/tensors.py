"""The parameter and buffer tables: which slice of a flat vector is which tensor."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tscope_format.dtypes import JSON


@dataclass(frozen=True)
class Tensor:
    """One parameter or buffer of a recorded module.

    Attributes:
        name: its qualified name, as in `named_parameters()`.
        shape: its shape.
        dtype: torch's name of its element type.
        offset: where it starts in the flat vector of its dtype, in elements.
        size: its number of elements.
        tied: further names of the same tensor.
        requires_grad: whether it was trained at the start.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int
    size: int
    tied: tuple[str, ...] = ()
    requires_grad: bool = True

    def to_json(self) -> JSON:
        """Return the entry in the group's attributes."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "offset": self.offset,
            "size": self.size,
            "tied": list(self.tied),
            "requires_grad": self.requires_grad,
        }

    @classmethod
    def from_json(cls, entry: JSON) -> Tensor:
        """Return the tensor that an entry in the group's attributes describes."""
        return cls(
            name=str(entry["name"]),
            shape=tuple(int(length) for length in entry["shape"]),
            dtype=str(entry["dtype"]),
            offset=int(entry["offset"]),
            size=int(entry["size"]),
            tied=tuple(str(name) for name in entry["tied"]),
            requires_grad=bool(entry["requires_grad"]),
        )


def table(entries: Iterable[tuple[str, Sequence[int], str, Sequence[str], bool]]) -> tuple[Tensor, ...]:
    """Lay tensors out one after the other, each dtype in a flat vector of its own.

    Args:
        entries: name, shape, dtype, tied names and requires_grad of each tensor, in order.

    Returns:
        The table, with offsets assigned.
    """
    ends: dict[str, int] = {}
    tensors = []
    for name, shape, dtype, tied, requires_grad in entries:
        size = math.prod(shape)
        offset = ends.get(dtype, 0)
        ends[dtype] = offset + size
        tensors.append(Tensor(name, tuple(shape), dtype, offset, size, tuple(tied), requires_grad))
    return tuple(tensors)


def lengths(tensors: Iterable[Tensor]) -> dict[str, int]:
    """Return the length of each dtype's flat vector, in elements."""
    ends: dict[str, int] = {}
    for tensor in tensors:
        ends[tensor.dtype] = max(ends.get(tensor.dtype, 0), tensor.offset + tensor.size)
    return ends
