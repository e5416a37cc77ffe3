"""The layers of a model, as groups of parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tscope_format.tensors import Tensor


def layers(parameters: Iterable[Tensor]) -> dict[str, tuple[str, ...]]:
    """Group parameters by the module that holds them.

    A layer is a module with parameters of its own: `fc1` holds `fc1.weight` and `fc1.bias`. A tied parameter
    belongs to the module of its first name, a parameter of the root module itself is its own layer.

    Returns:
        The names of each layer's parameters, in the order of the table.
    """
    groups: dict[str, list[str]] = {}
    for entry in parameters:
        layer = entry.name.rpartition(".")[0] or entry.name
        groups.setdefault(layer, []).append(entry.name)
    return {layer: tuple(names) for layer, names in groups.items()}
