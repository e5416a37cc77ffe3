"""Following a trace that grows: when to look at its commit record again, and whether it changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SHORTEST, LONGEST = 0.5, 15.0


@dataclass(frozen=True)
class Signature:
    """What `stat` says of a commit record: it is replaced as a whole, so any change of these is a new one."""

    inode: int
    modified: int
    size: int


def signature(path: Path) -> Signature | None:
    """Return the signature of a trace's commit record, None if it has none."""
    try:
        found = (path / "zarr.json").stat()
    except OSError:
        return None
    return Signature(found.st_ino, found.st_mtime_ns, found.st_size)


class Backoff:
    """The time before the next look: 0.5 s, and half as long again after each look in vain, up to 15 s."""

    def __init__(self) -> None:
        self.delay = SHORTEST

    def looked(self, *, changed: bool) -> float:
        """Return the seconds to wait after a look."""
        self.delay = SHORTEST if changed else min(LONGEST, self.delay * 1.5)
        return self.delay
