"""A file of ours in a process whose script may close it, and open another one under its number."""

from __future__ import annotations

import os
from typing import Tuple


class Descriptor:
    """An open file descriptor, and which file it is.

    Daemons close every file they did not open themselves (`os.closerange`). The number is then the script's:
    writing to it, reading from it or closing it would be done to the script's own file.

    Args:
        number: The descriptor.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._file = _file(number)

    @property
    def ours(self) -> bool:
        """Whether the number still stands for our file."""
        try:
            return _file(self.number) == self._file
        except OSError:
            return False

    def close(self) -> None:
        """Close the file, if it is still ours."""
        if self.ours:
            os.close(self.number)


def _file(number: int) -> Tuple[int, int]:
    status = os.fstat(number)
    return status.st_dev, status.st_ino
