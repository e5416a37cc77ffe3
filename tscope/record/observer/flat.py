"""Parameters or buffers of one dtype laid end to end, as the recorder stores them."""

# ruff: noqa: B905 -- zip(strict=) is newer than Python 3.9

from __future__ import annotations

from operator import is_
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .blocks import Block, Pool
from .memory import LONG, comparer, copy_to, is_flat, is_real, mover
from .wire import Blob, dtype_name


class StructureChangedError(Exception):
    """A tensor of the module was removed, or replaced by one of another shape, dtype or device kind."""


class Slot:
    """Where a module keeps one tensor: modules may replace the tensor itself at any time.

    Attributes:
        owner: The module's dict of parameters or buffers.
        key: The tensor's key there.
        name: Its full name within the root.
        tied: Further full names of the same tensor.
    """

    __slots__ = (
        "count",
        "dtype",
        "key",
        "move",
        "name",
        "owner",
        "pointer",
        "same",
        "shape",
        "size",
        "start",
        "tied",
    )

    def __init__(self, owner: Mapping[str, Any], key: str, name: str, tensor: Tensor) -> None:
        self.owner = owner
        self.key = key
        self.name = name
        self.tied: List[str] = []
        self.shape = tuple(tensor.shape)
        self.dtype = tensor.dtype
        self.count = tensor.numel()
        self.size = self.count * tensor.element_size()
        self.start = 0
        self.pointer = 0  # of a tensor that was found to be flat; 0: to be looked at
        self.move = mover(self.size)
        self.same = comparer(self.size)

    def tensor(self) -> Tensor:
        """Return the tensor as it is now."""
        tensor: Optional[Tensor] = self.owner.get(self.key)
        if tensor is None:
            raise StructureChangedError(self.name + " was removed")
        return tensor

    def inspect(self, tensor: Tensor) -> bool:
        """Tell whether the tensor, seen at a new address, can be copied as memory; keep the address if so."""
        if tuple(tensor.shape) != self.shape or tensor.dtype is not self.dtype or not is_real(tensor):
            raise StructureChangedError(
                "{} was {} {}, and is {} {}".format(
                    self.name, self.dtype, list(self.shape), tensor.dtype, list(tensor.shape)
                )
            )
        flat = is_flat(tensor)
        self.pointer = tensor.data_ptr() if flat else 0
        return flat

    def lies(self, tensor: Tensor) -> bool:
        """Tell whether the tensor lies at `pointer` as it did; if not, look at it anew."""
        # The same address does not say the same tensor: `p.data` may have been replaced in the meantime.
        return (
            self.pointer != 0
            and tensor.data_ptr() == self.pointer
            and tensor.numel() == self.count
            and tensor.is_contiguous()
        ) or self.inspect(tensor)


# What is done with all tensors at every step is done by `map`, without a line of Python for each.
_get: Any = dict.get


class Flat:
    """The slots of one dtype.

    Args:
        dtype: Their dtype.
        slots: The slots in the order of the table; their `start` is set to their byte offset.

    Attributes:
        tensors: The tensors in the slots if they were all found to be plain memory, else none of them.
    """

    def __init__(self, dtype: torch.dtype, slots: Sequence[Slot]) -> None:
        self.dtype = dtype
        self.name = dtype_name(dtype)
        self.slots = tuple(slots)
        start = 0
        for slot in self.slots:
            slot.start = start
            start += slot.size
        self.size = start
        self.count = sum(slot.count for slot in self.slots)
        self.tensors: Tuple[Tensor, ...] = ()
        self._owners = [slot.owner for slot in self.slots]
        self._keys = [slot.key for slot in self.slots]
        self._sizes = [slot.size for slot in self.slots]
        self._starts = [slot.start for slot in self.slots]
        self._counts = [slot.count for slot in self.slots]
        self._pointers: List[int] = []
        largest = max(self._sizes)
        self._move, self._same = mover(largest), comparer(largest)
        self._short = largest < LONG

    def same_tensors(self) -> bool:
        """Tell whether `tensors` are still those in the slots."""
        return bool(self.tensors) and all(map(is_, map(_get, self._owners, self._keys), self.tensors))

    def steady(self) -> bool:
        """Tell whether `tensors` are still those in the slots, and lie where they lay."""
        tensors = self.tensors
        return (
            self.same_tensors()
            and list(map(Tensor.data_ptr, tensors)) == self._pointers
            and list(map(Tensor.numel, tensors)) == self._counts
            and all(map(Tensor.is_contiguous, tensors))
        )

    def copy(self, block: Block) -> None:
        """Copy all tensors into the block.

        Raises:
            StructureChangedError: A tensor is no longer what it was.
        """
        if self.steady():
            places = map(block.address.__add__, self._starts)
            any(map(self._move, places, self._pointers, self._sizes))  # memmove returns None
            return
        self.tensors = ()
        tensors = [slot.tensor() for slot in self.slots]
        for slot, tensor in zip(self.slots, tensors):
            if slot.lies(tensor):
                slot.move(block.address + slot.start, slot.pointer, slot.size)
            else:
                copy_to(tensor, slot.dtype, block, slot.start)
        if self._short and all(slot.pointer or not slot.size for slot in self.slots):
            self.tensors = tuple(tensors)
            self._pointers = [slot.pointer for slot in self.slots]

    def equals(self, block: Block, pool: Pool) -> bool:
        """Tell whether the tensors are bit for bit what the block holds."""
        if self.steady():
            places = map(block.address.__add__, self._starts)
            return not any(map(self._same, places, self._pointers, self._sizes))
        for slot in self.slots:
            tensor = slot.tensor()
            if slot.lies(tensor):
                differ = slot.same(slot.pointer, block.address + slot.start, slot.size)
            else:
                scratch = pool.take(slot.size)
                copy_to(tensor, slot.dtype, scratch, 0)
                differ = slot.same(scratch.address, block.address + slot.start, slot.size)
            if differ:
                return False
        return True


Held = Dict[str, Block]


class Table:
    """All parameters, or all buffers, of a module: one `Flat` for each dtype.

    Attributes:
        size: Bytes of all of them.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.slots = tuple(slots)
        groups: Dict[torch.dtype, List[Slot]] = {}
        for slot in self.slots:
            groups.setdefault(slot.dtype, []).append(slot)
        self.flats = tuple(Flat(dtype, group) for dtype, group in groups.items())
        self.size = sum(flat.size for flat in self.flats)

    def plain(self) -> Sequence[Tensor]:
        """Return the tensors in the slots, if they are of one dtype and plain memory; else none of them."""
        return self.flats[0].tensors if len(self.flats) == 1 and self.flats[0].same_tensors() else ()

    @property
    def replaced(self) -> bool:
        """Whether other tensors than parameters are in their places, as within `torch.func.functional_call`.

        Such a call is of another model: neither its output nor its parameters belong to this one.
        """
        if all(flat.same_tensors() for flat in self.flats):
            return False
        kind = torch.nn.Parameter
        now = (slot.owner.get(slot.key) for slot in self.slots)
        return any(t is not None and type(t) is not kind and not isinstance(t, kind) for t in now)

    def copy(self, pool: Pool) -> Held:
        """Return the values of now, by dtype."""
        held: Held = {}
        for flat in self.flats:
            held[flat.name] = block = pool.take(flat.size)
            flat.copy(block)
        return held

    def equals(self, held: Held, pool: Pool) -> bool:
        """Tell whether the values of now are those in `held`, bit for bit."""
        return all(flat.equals(held[flat.name], pool) for flat in self.flats)

    def blobs(self, prefix: str, held: Held) -> List[Blob]:
        """Return `held` as arrays of a frame."""
        return [
            Blob("{}:{}".format(prefix, flat.name), flat.name, (flat.count,), held[flat.name], flat.size)
            for flat in self.flats
        ]


def parameter_slots(module: torch.nn.Module) -> List[Slot]:
    """Return the module's parameters in the order of `named_parameters()`, tied ones once."""
    return _slots(module, "_parameters")


def buffer_slots(module: torch.nn.Module) -> List[Slot]:
    """Return the module's buffers in the order of `named_buffers()`, tied ones once."""
    return _slots(module, "_buffers")


def _slots(module: torch.nn.Module, kind: str) -> List[Slot]:
    found: Dict[int, Slot] = {}
    for prefix, part in torch.nn.Module.named_modules(module, remove_duplicate=False):
        owner: Mapping[str, Any] = getattr(part, kind)
        for key, tensor in owner.items():
            if tensor is None:
                continue
            name = prefix + "." + key if prefix else key
            slot = found.get(id(tensor))
            if slot is None:
                found[id(tensor)] = Slot(owner, key, name, tensor)
            elif name != slot.name and name not in slot.tied:
                slot.tied.append(name)
    return list(found.values())


def describe(slots: Sequence[Slot]) -> List[Dict[str, Any]]:
    """Return the table as the recorder wants it."""
    return [
        {"name": s.name, "shape": list(s.shape), "dtype": dtype_name(s.dtype), "tied": s.tied} for s in slots
    ]
