"""The queue between the threads that receive and the one that writes: bounded in bytes, not in entries."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")

LIMIT = 64 << 20
FEWEST = 4  # entries that always fit, however large


class Inbox(Generic[Item]):
    """A queue that makes the sender wait once it holds more than its limit.

    Args:
        limit: Bytes it may hold.
        fewest: Entries it may hold whatever their size.
    """

    def __init__(self, limit: int = LIMIT, fewest: int = FEWEST) -> None:
        self._limit = limit
        self._fewest = fewest
        self._items: deque[tuple[Item, int]] = deque()
        self._size = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: Item, size: int = 0) -> bool:
        """Append `item`, waiting for room; False (and nothing appended) once the inbox was closed."""
        with self._changed:
            while len(self._items) >= self._fewest and self._size + size > self._limit and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            self._items.append((item, size))
            self._size += size
            self._changed.notify_all()
            return True

    def get(self, timeout: float) -> Item | None:
        """Take the oldest item, waiting up to `timeout` seconds for one; None if none came."""
        with self._changed:
            if not self._items:
                self._changed.wait(timeout)
            if not self._items:
                return None
            item, size = self._items.popleft()
            self._size -= size
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Take nothing more; whoever waits for room is let go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        with self._changed:
            return len(self._items)
