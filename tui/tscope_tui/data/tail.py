"""Following a trace that grows: when to look at its commit record again, and whether it changed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SHORTEST, LONGEST = 0.5, 15.0


@dataclass(frozen=True)
class Signature:
    """What `stat` says of a commit record: it is replaced as a whole, so any change of these is a new one.

    `results` is when a result was last saved in the trace, which leaves the commit record as it is.
    """

    inode: int
    modified: int
    size: int
    results: int = 0


def signature(path: Path) -> Signature | None:
    """Return the signature of a trace's commit record, None if it has none."""
    try:
        found = (path / "zarr.json").stat()
    except OSError:
        return None
    return Signature(found.st_ino, found.st_mtime_ns, found.st_size, _results(path))


def _results(path: Path) -> int:
    """Return the time of the last change among the folders of saved results, 0 if there are none."""
    try:
        with os.scandir(path / "analysis") as folders:
            return max((folder.stat().st_mtime_ns for folder in folders), default=0)
    except OSError:
        return 0


class Backoff:
    """The time before the next look: 0.5 s, and half as long again after each look in vain, up to 15 s."""

    def __init__(self) -> None:
        self.delay = SHORTEST

    def looked(self, *, changed: bool) -> float:
        """Return the seconds to wait after a look."""
        self.delay = SHORTEST if changed else min(LONGEST, self.delay * 1.5)
        return self.delay
