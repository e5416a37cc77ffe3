"""Blocks of memory to copy tensors into, used again and again: fresh memory costs a page fault every 4 kB."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

import torch

if TYPE_CHECKING:
    from .arena import Arena

_PAGE = 4096
# Idle memory of our own beyond this is returned to the system.
_MOST_IDLE = 256 << 20
# Capacities have so many leading bits: batches of ever other lengths share what is idle.
_BITS = 4

# The bytes, their address, the pool's list that they return to, and their place in shared memory.
_Memory = Tuple[Any, int, List[Any], int]


class Block:
    """Some bytes with a fixed address; they can be used again once nothing refers to the block any more.

    Attributes:
        data: The bytes, as a buffer.
        address: Where they lie.
        offset: Where they lie in the memory shared with the recorder; 0 if they do not.
    """

    __slots__ = ("_memory", "address", "data", "offset")

    def __init__(self, memory: _Memory) -> None:
        self._memory = memory
        self.data, self.address, _, self.offset = memory

    def __del__(self) -> None:
        # In any thread and at any time: `append` takes no lock that could be held already.
        self._memory[2].append(self._memory)

    def tensor(self, dtype: torch.dtype, start: int, count: int) -> torch.Tensor:
        """Return `count` elements from byte `start` as a flat tensor that shares the memory."""
        return torch.frombuffer(self.data, dtype=dtype, count=count, offset=start)


class Pool:
    """Memory that is free to be used again, by capacity.

    Attributes:
        arena: Where blocks are taken from for as long as there is room; None: from our own memory.
    """

    def __init__(self) -> None:
        self.arena: Optional[Arena] = None
        self._shared: Dict[int, List[_Memory]] = {}
        self._own: Dict[int, List[_Memory]] = {}

    def take(self, size: int) -> Block:
        """Return a block of at least `size` bytes. What it holds is undefined."""
        step = max(_PAGE, 1 << max(0, size.bit_length() - _BITS))
        capacity = (size + step - 1) & -step or _PAGE
        try:
            return Block(self._shared[capacity].pop())
        except (KeyError, IndexError):
            return Block(self._fresh(capacity))

    def _fresh(self, capacity: int) -> _Memory:
        arena = self.arena
        if arena is not None:
            offset = arena.take(capacity)
            if offset:
                free = self._shared.setdefault(capacity, [])
                return arena.data(offset, capacity), arena.address + offset, free, offset
        try:
            return self._own[capacity].pop()
        except (KeyError, IndexError):
            return self._fresh_own(capacity)

    def _fresh_own(self, capacity: int) -> _Memory:
        # What is idle only grows by what was fresh once, so that this is the place to see to it.
        idle = sum(size * len(free) for size, free in list(self._own.items()))
        if idle + capacity > _MOST_IDLE:
            for free in list(self._own.values()):
                free.clear()
        data = bytearray(capacity)
        address = ctypes.addressof(ctypes.c_char.from_buffer(data))
        return data, address, self._own.setdefault(capacity, []), 0
