"""Blocks of memory to copy tensors into, used again and again: fresh memory costs a page fault every 4 kB."""

from __future__ import annotations

import ctypes
from typing import Any, Dict, List, Tuple

import torch

_PAGE = 4096
# Idle memory beyond this is returned to the system.
_MOST_IDLE = 256 << 20

# The bytes, their address, and the pool's list that they return to.
_Memory = Tuple[bytearray, int, List[Any]]


class Block:
    """Some bytes with a fixed address; they can be used again once nothing refers to the block any more."""

    __slots__ = ("_memory", "address", "data")

    def __init__(self, memory: _Memory) -> None:
        self._memory = memory
        self.data, self.address, _ = memory

    def __del__(self) -> None:
        # In any thread and at any time: `append` takes no lock that could be held already.
        self._memory[2].append(self._memory)

    def tensor(self, dtype: torch.dtype, start: int, count: int) -> torch.Tensor:
        """Return `count` elements from byte `start` as a flat tensor that shares the memory."""
        return torch.frombuffer(self.data, dtype=dtype, count=count, offset=start)


class Pool:
    """Memory that is free to be used again, by capacity."""

    def __init__(self) -> None:
        self._free: Dict[int, List[_Memory]] = {}

    def take(self, size: int) -> Block:
        """Return a block of at least `size` bytes. What it holds is undefined."""
        capacity = (size + _PAGE - 1) & -_PAGE or _PAGE
        try:
            return Block(self._free[capacity].pop())
        except (KeyError, IndexError):
            return Block(self._fresh(capacity))

    def _fresh(self, capacity: int) -> _Memory:
        # What is idle only grows by what was fresh once, so that this is the place to see to it.
        idle = sum(size * len(free) for size, free in list(self._free.items()))
        if idle + capacity > _MOST_IDLE:
            for free in list(self._free.values()):
                free.clear()
        data = bytearray(capacity)
        address = ctypes.addressof(ctypes.c_char.from_buffer(data))
        return data, address, self._free.setdefault(capacity, [])
