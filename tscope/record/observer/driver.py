"""An optimizer at work on a root: its groups, hyper-parameters, learning rates, gradients and state."""

from __future__ import annotations

import math
import sys
import weakref
from itertools import repeat
from operator import attrgetter, is_, itemgetter
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .blocks import Block, Pool
from .flat import Table
from .memory import copy_to, is_real, mover, quiet, scalar, undisturbed
from .wire import Blob, Frame, dtype_name

_SIMPLE = (str, bool, int, float, type(None))
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
        self._groups: List[_Group] = []

    def rates(self, optimizer: torch.optim.Optimizer) -> List[Optional[float]]:
        """Return the learning rate of each group."""
        return [_number(group.get("lr")) for group in optimizer.param_groups]

    def changed(self, optimizer: torch.optim.Optimizer) -> bool:
        """Tell whether there is something new to announce, and remember what there is, with the rates."""
        groups, known = optimizer.param_groups, self._groups
        if len(groups) == len(known) and all(map(_Group.same, known, groups)):
            return False
        self.last_rates = [_number(group.get("lr")) for group in groups]
        self._groups = [_Group(group) for group in groups]
        return len(groups) != len(known) or not all(map(_Group.equals, self._groups, known))

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
            Blob("state:{}:{}".format(name, dtype_name(d)), dtype_name(d), (count[d],), block, size[d])
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


_gradient, _dtype, _layout = attrgetter("grad"), attrgetter("dtype"), attrgetter("layout")


class Norms:
    """The 2-norms of the parameters' gradients, as tensors that nobody else knows of.

    Args:
        count: Number of parameters.
        norms: The norms.
        places: Which parameters they belong to; None: all.
    """

    __slots__ = ("_count", "_norms", "_places")

    def __init__(self, count: int, norms: Sequence[Tensor], places: Optional[Sequence[int]]) -> None:
        self._count = count
        self._norms = norms
        self._places = places

    def blob(self, pool: Pool) -> Blob:
        """Return them as an array of a frame: (tensor,), NaN where there is no gradient.

        They are float32, or float64 if a gradient is.
        """
        exact = any(norm.dtype is torch.float64 for norm in self._norms)
        dtype, size = (torch.float64, 8) if exact else (torch.float32, 4)
        block = pool.take(size * self._count)
        if self._places is None:  # plain tensors of one dtype: a few copies are cheaper than torch's calls
            places = range(block.address, block.address + size * self._count, size)
            any(map(mover(size), places, map(Tensor.data_ptr, self._norms), repeat(size)))
        else:
            array = block.tensor(dtype, 0, self._count)
            array.fill_(math.nan)
            if self._places:
                array[list(self._places)] = torch.stack([norm.to(dtype) for norm in self._norms])
        return Blob("grad_norm", dtype_name(dtype), (self._count,), block, size * self._count)


def gradient_norms(table: Table) -> Norms:
    """Return the 2-norm of each parameter's gradient."""
    tensors = table.plain()
    if tensors and table.flats[0].dtype not in _LOW_PRECISION and undisturbed():
        gradients: List[Any] = list(map(_gradient, tensors))
        count = len(gradients)
        if (
            list(map(type, gradients)) == [Tensor] * count
            and list(map(_layout, gradients)) == [torch.strided] * count
            and list(map(_dtype, gradients)) == [table.flats[0].dtype] * count
        ):
            graph = torch.is_grad_enabled()
            torch._C._set_grad_enabled(False)
            try:
                return Norms(count, torch._foreach_norm(gradients), None)
            finally:
                torch._C._set_grad_enabled(graph)
    return _odd_norms([slot.tensor().grad for slot in table.slots])


def _odd_norms(gradients: Sequence[Optional[Tensor]]) -> Norms:
    """Return the norms of gradients some of which are missing, of low precision, sparse or elsewhere."""
    plain: List[Tensor] = []
    places: List[int] = []
    odd: List[Tuple[int, Tensor]] = []
    for place, gradient in enumerate(gradients):
        if gradient is None:
            continue
        if gradient.dtype in _LOW_PRECISION or not is_real(gradient) or not gradient.is_cpu:
            odd.append((place, gradient))
        else:
            plain.append(gradient)
            places.append(place)
    with quiet():
        norms = list(torch._foreach_norm(plain)) if plain else []
        for place, gradient in odd:
            if gradient.is_sparse:
                gradient = gradient.coalesce().values()
            if is_real(gradient):
                dtype = torch.float32 if gradient.dtype in _LOW_PRECISION else None
                norm = torch.linalg.vector_norm(gradient, dtype=dtype)
                norms.append(norm.to(device="cpu"))
                places.append(place)
    return Norms(len(gradients), norms, places)


class _Group:
    """What was seen in a parameter group."""

    __slots__ = ("_fixed", "_hyper", "_length", "_objects", "_objects_of", "_size")

    def __init__(self, group: Dict[str, Any]) -> None:
        self._length = len(group)
        self._size = len(group["params"])
        self._hyper = {key: value for key, value in group.items() if key not in ("params", "lr")}
        # A tensor's value changes without its being another object.
        self._fixed = type(group.get("lr")) is float
        self._objects_of = itemgetter(*group, "params")  # twice: of a single key it would make no tuple
        self._objects = self._objects_of(group)

    def same(self, group: Dict[str, Any]) -> bool:
        """Tell whether the group holds the very objects that were seen, so that it need not be looked at."""
        if not self._fixed or len(group) != self._length or len(group["params"]) != self._size:
            return False
        try:
            return all(map(is_, self._objects_of(group), self._objects))
        except KeyError:
            return False

    def equals(self, other: _Group) -> bool:
        """Tell whether both are the same but for the learning rate."""
        one, two = self._hyper, other._hyper
        # Identity first: a hyper-parameter may be a tensor, whose == is an operation and no truth value.
        return (self._size, len(one)) == (other._size, len(two)) and all(
            k in two and (two[k] is v or (not isinstance(v, Tensor) and bool(two[k] == v)))
            for k, v in one.items()
        )


def _number(value: Any) -> Optional[float]:
    if type(value) is float:
        return value
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
