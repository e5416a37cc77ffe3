"""An optimizer at work on a root: its groups, hyper-parameters, learning rates, gradients and state."""

# ruff: noqa: B905 -- zip(strict=) is newer than Python 3.9

from __future__ import annotations

import math
import struct
import sys
import weakref
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import Tensor

from .blocks import Block, Pool
from .flat import Table
from .memory import copy_to, is_real, quiet, scalar
from .wire import Blob, Frame, dtype_name

_SIMPLE = (str, bool, int, float, type(None))
# Reading one number costs a microsecond, stacking any number of them twenty.
_FEW = 16
_LOW_PRECISION = (torch.float16, torch.bfloat16)


class Driver:
    """One optimizer.

    Attributes:
        index: Its number among the optimizers of its root.
        root: The root it trains; None when no module holds its parameters.
        depth: How many of its `step` calls are active (a subclass may call `super().step()`).
        last_rates: The learning rate of each group at its last step.
        steps: How often its step was completed, to tell a step that a gradient scaler left out.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.reference = weakref.ref(optimizer)
        self.index = 0
        self.root: Optional[Any] = None
        self.depth = 0
        self.steps = 0
        self.last_rates: List[Optional[float]] = []
        self._hyper: Optional[List[Dict[str, Any]]] = None
        self._sizes: List[int] = []

    def rates(self, optimizer: torch.optim.Optimizer) -> List[Optional[float]]:
        """Return the learning rate of each group."""
        return [_number(group.get("lr")) for group in optimizer.param_groups]

    def changed(self, optimizer: torch.optim.Optimizer) -> bool:
        """Tell whether there is something new to announce, and remember what there is."""
        groups = optimizer.param_groups
        hyper = [{k: v for k, v in group.items() if k != "params" and k != "lr"} for group in groups]
        sizes = [len(group["params"]) for group in groups]
        if sizes == self._sizes and self._hyper is not None and _equal(hyper, self._hyper):
            return False
        self._hyper, self._sizes = hyper, sizes
        return True

    def announcement(self, optimizer: torch.optim.Optimizer, table: Table, root: int, step: int) -> Frame:
        """Return the `optimizer` frame."""
        index = {id(slot.tensor()): number for number, slot in enumerate(table.slots)}
        groups = [
            {
                "hyper": {str(k): _json(v) for k, v in group.items() if k != "params"},
                "tensors": [index[id(p)] for p in group["params"] if id(p) in index],
            }
            for group in optimizer.param_groups
        ]
        kind = type(optimizer).__qualname__
        fields = {"root": root, "optimizer": self.index, "class": kind, "groups": groups, "step": step}
        return Frame("optimizer", fields)

    def state(
        self, optimizer: torch.optim.Optimizer, table: Table, root: int, step: int, pool: Pool
    ) -> Frame:
        """Return the `state` frame: what the optimizer keeps for each parameter."""
        scalars: Dict[str, List[Optional[float]]] = {}
        lacking = set()
        held: Dict[Tuple[str, torch.dtype], Block] = {}
        for flat in table.flats:
            for slot in flat.slots:
                state = optimizer.state.get(slot.tensor()) or {}
                for name, value in state.items():
                    name = str(name)
                    number = _number(value)
                    if number is not None:
                        number_list = scalars.setdefault(name, [None] * len(table.slots))
                        number_list[table.slots.index(slot)] = number
                    elif _fits(value, slot.shape, flat.dtype):
                        block = held.get((name, flat.dtype))
                        if block is None:
                            block = held[name, flat.dtype] = pool.take(flat.size)
                            _fill_nan(block, flat.dtype, flat.count)
                        copy_to(value, flat.dtype, block, slot.start)
                    elif value is not None:
                        lacking.add(name)
        count = {flat.dtype: flat.count for flat in table.flats}
        size = {flat.dtype: flat.size for flat in table.flats}
        blobs = [
            Blob("state:{}:{}".format(name, dtype_name(d)), dtype_name(d), (count[d],), block, 0, size[d])
            for (name, d), block in held.items()
        ]
        fields = {
            "root": root,
            "step": step,
            "optimizer": self.index,
            "scalars": scalars,
            "lacking": sorted(lacking),
        }
        return Frame("state", fields, blobs)


def active_steps(optimizer: Optional[torch.optim.Optimizer]) -> int:
    """Return how many calls of the optimizer's hooked `step` are on the stack."""
    count = 0
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "wrapper" and code.co_filename.endswith("optimizer.py"):
            count += frame.f_locals.get("self") is optimizer
        frame = frame.f_back  # type: ignore[assignment]
    return count


def gradient_norms(table: Table, pool: Pool) -> Block:
    """Return the 2-norm of each parameter's gradient: float32 (tensor,), NaN where there is none."""
    count = len(table.slots)
    block = pool.take(4 * count)
    gradients: List[Tensor] = []
    places: List[int] = []
    odd: List[Tuple[int, Tensor]] = []
    for place, slot in enumerate(table.slots):
        gradient = slot.tensor().grad
        if gradient is None:
            continue
        if gradient.dtype in _LOW_PRECISION or not is_real(gradient) or not gradient.is_cpu:
            odd.append((place, gradient))
        else:
            gradients.append(gradient)
            places.append(place)
    with quiet():
        norms = torch._foreach_norm(gradients) if gradients else []
        if len(places) == count:
            if count <= _FEW:
                values = [scalar(norm) for norm in norms]
                struct.pack_into("={}f".format(count), block.data, 0, *values)
            else:
                copy_to(torch.stack(list(norms)), torch.float32, block, 0)
            return block
        table_norms = block.tensor(torch.float32, 0, count)
        table_norms.fill_(math.nan)
        for place, norm in zip(places, norms):
            table_norms[place] = norm
        for place, gradient in odd:
            if gradient.is_sparse:
                gradient = gradient.coalesce().values()
            if is_real(gradient):
                table_norms[place] = torch.linalg.vector_norm(gradient, dtype=torch.float32)
    return block


def _equal(one: List[Dict[str, Any]], other: List[Dict[str, Any]]) -> bool:
    # Identity first: a hyper-parameter may be a tensor, whose == is an operation and no truth value.
    return len(one) == len(other) and all(
        len(a) == len(b)
        and all(
            k in b and (b[k] is v or (not isinstance(v, Tensor) and bool(b[k] == v))) for k, v in a.items()
        )
        for a, b in zip(one, other)
    )


def _number(value: Any) -> Optional[float]:
    if isinstance(value, Tensor):
        return scalar(value) if value.dim() == 0 and is_real(value) else None
    return float(value) if isinstance(value, (int, float)) else None


def _json(value: Any) -> Any:
    if isinstance(value, _SIMPLE):
        return value
    if isinstance(value, (list, tuple)):
        return [_json(part) for part in value]
    number = _number(value)
    return repr(value)[:200] if number is None else number


def _fits(value: Any, shape: Tuple[int, ...], dtype: torch.dtype) -> bool:
    return (
        isinstance(value, Tensor) and tuple(value.shape) == shape and value.dtype is dtype and is_real(value)
    )


def _fill_nan(block: Block, dtype: torch.dtype, count: int) -> None:
    with quiet():
        block.tensor(dtype, 0, count).fill_(math.nan if dtype.is_floating_point else 0)
