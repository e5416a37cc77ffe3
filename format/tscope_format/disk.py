"""Files that are either the old ones or the new ones, never half of each.

Every file of a trace is written beside its name and then renamed onto it. A kill leaves at most a `.partial`
file, which nobody reads.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

PARTIAL = ".partial"


class Disk:
    """The folder that a trace is written to.

    Attributes:
        root: the folder.
        durable: whether every file is synced, so that it survives a power cut and not only a kill.
    """

    def __init__(self, root: Path, *, durable: bool = False) -> None:
        self.root = root
        self.durable = durable
        self._folders: set[str] = set()

    def write(self, key: str, parts: Sequence[bytes]) -> None:
        """Replace the file `key` by the concatenation of `parts`.

        Raises:
            OSError: it could not be written; the former file, if any, is still there.
        """
        target = str(self.root / key)
        partial = target + PARTIAL
        try:
            self._fill(partial, parts)
            os.replace(partial, target)
        except OSError:
            # A full disk needs the space back, and the first error is the one to tell.
            if os.path.exists(partial):
                os.unlink(partial)
            raise
        if self.durable:
            _sync_folder(os.path.dirname(target))

    def touch(self, key: str) -> None:
        """Set a file's time to now.

        Raises:
            OSError: it cannot be.
        """
        os.utime(self.root / key)

    def _fill(self, path: str, parts: Sequence[bytes]) -> None:
        folder = os.path.dirname(path)
        if folder not in self._folders:
            os.makedirs(folder, exist_ok=True)
            self._folders.add(folder)
        with open(path, "wb") as file:
            for part in parts:
                file.write(part)
            if self.durable:
                file.flush()
                os.fsync(file.fileno())


def _sync_folder(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def disk_size(path: Path) -> int:
    """Return the bytes of all files below `path`; what vanishes meanwhile (a commit) counts nothing."""
    total, folders = 0, [os.fspath(path)]
    while folders:
        try:
            with os.scandir(folders.pop()) as inside:
                for entry in inside:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return total
