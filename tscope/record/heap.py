"""How the recorder's own processes use memory."""

from __future__ import annotations

import contextlib
import ctypes

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGEST_MMAP_THRESHOLD = 32 << 20  # glibc takes no larger one
_KEPT = 256 << 20


def keep_freed_memory() -> None:
    """Let the C library use freed memory again rather than return it to the system.

    An array of a megabyte is otherwise new memory every time: a page fault every 4 kB, which costs 4 µs on a
    virtual machine and, there, slows the run beside it. Does nothing where the C library is not glibc.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_TRIM_THRESHOLD, _KEPT)
