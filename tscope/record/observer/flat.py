"""Parameters or buffers of one dtype laid end to end, as the recorder stores them."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence

import torch
from torch import Tensor

from .blocks import Block, Pool
from .memory import comparer, copy_to, is_flat, is_real, mover
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


class Flat:
    """The slots of one dtype.

    Args:
        dtype: Their dtype.
        slots: The slots in the order of the table; their `start` is set to their byte offset.
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

    def copy(self, block: Block, base: int = 0) -> None:
        """Copy all tensors into the block, from byte `base` on.

        Raises:
            StructureChangedError: A tensor is no longer what it was.
        """
        for slot in self.slots:
            tensor = slot.owner.get(slot.key)
            if tensor is None:
                raise StructureChangedError(slot.name + " was removed")
            # The same address does not say the same tensor: `p.data` may have been replaced in the meantime.
            pointer = tensor.data_ptr()
            if (
                pointer
                and pointer == slot.pointer
                and tensor.numel() == slot.count
                and tensor.is_contiguous()
            ):
                slot.move(block.address + base + slot.start, pointer, slot.size)
            elif slot.inspect(tensor):
                slot.move(block.address + base + slot.start, slot.pointer, slot.size)
            else:
                copy_to(tensor, slot.dtype, block, base + slot.start)

    def equals(self, block: Block, pool: Pool) -> bool:
        """Tell whether the tensors are bit for bit what the block holds."""
        for slot in self.slots:
            tensor = slot.tensor()
            same = (
                tensor.data_ptr() == slot.pointer and tensor.numel() == slot.count and tensor.is_contiguous()
            )
            if not same and not slot.inspect(tensor):
                scratch = pool.take(slot.size)
                copy_to(tensor, slot.dtype, scratch, 0)
                differ = slot.same(scratch.address, block.address + slot.start, slot.size)
                scratch.release()
                if differ:
                    return False
                continue
            if slot.same(slot.pointer, block.address + slot.start, slot.size):
                return False
        return True


Held = Dict[str, Block]


class Table:
    """All parameters, or all buffers, of a module: one `Flat` for each dtype."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.slots = tuple(slots)
        groups: Dict[torch.dtype, List[Slot]] = {}
        for slot in self.slots:
            groups.setdefault(slot.dtype, []).append(slot)
        self.flats = tuple(Flat(dtype, group) for dtype, group in groups.items())

    @property
    def replaced(self) -> bool:
        """Whether other tensors than parameters are in their places, as within `torch.func.functional_call`.

        Such a call is of another model: neither its output nor its parameters belong to this one.
        """
        kind = torch.nn.Parameter
        now = (slot.owner.get(slot.key) for slot in self.slots)
        return any(t is not None and type(t) is not kind and not isinstance(t, kind) for t in now)

    def copy(self, pool: Pool) -> Held:
        """Return the values of now, by dtype."""
        held: Held = {}
        for flat in self.flats:
            block = pool.take(flat.size)
            flat.copy(block)
            held[flat.name] = block
        return held

    def equals(self, held: Held, pool: Pool) -> bool:
        """Tell whether the values of now are those in `held`, bit for bit."""
        return all(flat.equals(held[flat.name], pool) for flat in self.flats)

    def blobs(self, prefix: str, held: Held) -> List[Blob]:
        """Return `held` as arrays of a frame, which takes its own share in the blocks."""
        return [
            Blob(
                "{}:{}".format(prefix, flat.name),
                flat.name,
                (flat.count,),
                held[flat.name].keep(),
                0,
                flat.size,
            )
            for flat in self.flats
        ]


def release(held: Optional[Held]) -> None:
    """Give up a share in the blocks."""
    for block in (held or {}).values():
        block.release()


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
