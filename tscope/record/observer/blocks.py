"""Blocks of memory to copy tensors into, used again and again: fresh memory costs a page fault every 4 kB."""

from __future__ import annotations

import ctypes
import threading
from typing import Dict, List, Optional

import torch

_PAGE = 4096
# Idle blocks beyond this are returned to the system.
_MOST_IDLE = 256 << 20


class Block:
    """Some bytes with a fixed address, and a count of those who still need them."""

    __slots__ = ("_pool", "_tensor", "address", "capacity", "data", "users")

    def __init__(self, pool: Pool, capacity: int) -> None:
        self._pool = pool
        self._tensor: Optional[torch.Tensor] = None
        self.capacity = capacity
        self.data = bytearray(capacity)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.data)) if capacity else 0
        self.users = 1

    def keep(self) -> Block:
        """Count one more user, and return the block."""
        with self._pool.lock:
            self.users += 1
        return self

    def release(self) -> None:
        """Count one user less; the last one returns the block to the pool."""
        self._pool.give(self)

    def tensor(self, dtype: torch.dtype, start: int, count: int) -> torch.Tensor:
        """Return `count` elements from byte `start` as a flat tensor that shares the memory."""
        return torch.frombuffer(self.data, dtype=dtype, count=count, offset=start)


class Pool:
    """Blocks that are free to be used again, by capacity."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._free: Dict[int, List[Block]] = {}
        self._idle = 0

    def take(self, size: int) -> Block:
        """Return a block of at least `size` bytes, with one user. What it holds is undefined."""
        capacity = -(-max(size, 1) // _PAGE) * _PAGE
        with self.lock:
            free = self._free.get(capacity)
            if free:
                block = free.pop()
                self._idle -= capacity
                block.users = 1
                return block
        return Block(self, capacity)

    def give(self, block: Block) -> None:
        """Take back a block from one of its users."""
        with self.lock:
            block.users -= 1
            if block.users == 0 and self._idle + block.capacity <= _MOST_IDLE:
                self._free.setdefault(block.capacity, []).append(block)
                self._idle += block.capacity
