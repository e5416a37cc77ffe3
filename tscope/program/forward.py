"""Forward-mode rules that are cheaper than torch's, for the layers that see the data first."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.autograd import forward_ad as _untyped

from tscope.program.graph import Graph, Ref, references

forward_ad: Any = _untyped  # torch has no annotations there

Bind = Callable[[list[Any]], tuple[Sequence[Any], Mapping[str, Any]]]
Step = tuple[Callable[..., Any], Bind, tuple[int, ...]]

# function(x, weight, bias, …), linear in (weight, bias) together.
_AFFINE = frozenset({"aten.linear.default", *(f"aten.conv{d}d.default" for d in (1, 2, 3))})


@contextmanager
def dual_level() -> Iterator[None]:
    """Compute with dual numbers inside."""
    _load_decompositions()
    with forward_ad.dual_level():
        yield


@functools.cache
def _load_decompositions() -> None:
    """Import what the first dual number would: it uses the deprecated torch.jit.script, which warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("torch._decomp.decompositions_for_jvp")


def forward_steps(graph: Graph, steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the steps for dual numbers: affine layers of the data do without the data's tangent.

    For x without a tangent torch writes zeros and multiplies them by the weights: on a 784-160-160-10
    network, a third of the product.
    """
    moving = {slot for slot, entry in enumerate(graph.inputs, 1) if entry.kind == "parameter"}
    found = []
    for position, (node, step) in enumerate(zip(graph.nodes, steps, strict=True)):
        if any(slot in moving for slot in references((node.args, node.kwargs))):
            moving.add(1 + len(graph.inputs) + position)
        plain = bool(node.args) and isinstance(node.args[0], Ref) and node.args[0].slot not in moving
        affine = node.target in _AFFINE and plain and len(node.args) > 1
        found.append((_affine(step[0]), *step[1:]) if affine else step)
    return tuple(found)


def _affine(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(x: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **options: Any) -> Any:
        value, change = forward_ad.unpack_dual(weight)
        if change is None:
            return function(x, weight, bias, *rest, **options)
        offset, offset_change = (None, None) if bias is None else forward_ad.unpack_dual(bias)
        output = function(x, value, offset, *rest, **options)
        return forward_ad.make_dual(output, function(x, change, offset_change, *rest, **options))

    return call
