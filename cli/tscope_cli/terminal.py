"""What is known of the terminal: width, colour, encoding, and the progress line.

Results go to stdout; progress and messages go to stderr, so that a result can be piped.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

from tscope_format.errors import clean

_COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def width(default: int = 80) -> int:
    """Return the number of columns: of the terminal, of $COLUMNS, else `default`."""
    return max(20, shutil.get_terminal_size((default, 24)).columns)


def is_tty(stream: TextIO) -> bool:
    """Return whether `stream` is a terminal; a closed stream is not."""
    return not stream.closed and stream.isatty()


def coloured(stream: TextIO) -> bool:
    """Return whether `stream` may be sent colour (see no-color.org)."""
    return is_tty(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def ascii_only(stream: TextIO) -> bool:
    """Return whether `stream` cannot carry braille and Greek letters."""
    return "utf" not in (stream.encoding or "").lower()


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """Return `text` in `colour` ("bold", "red", …) if `stream` (stdout) takes colour."""
    if not coloured(stream or sys.stdout):
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def out(text: str = "") -> None:
    """Print a line of the result."""
    sys.stdout.write(text + "\n")


def say(text: str) -> None:
    """Print a message for the person, not for the pipe: on stderr, prefixed, on one line."""
    sys.stderr.write(f"tscope: {clean(text)}\n")


class Progress:
    """One line on stderr that is rewritten in place, and nothing at all when stderr is not a terminal.

    Args:
        label: What is going on ("verifying").
        quiet: Show nothing.
        clock: Seconds; replaced in tests.
    """

    INTERVAL = 0.1  # seconds between two redraws: a slow link must not be the bottleneck

    def __init__(
        self, label: str, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._label = clean(label)
        self._clock = clock
        self._shown = is_tty(sys.stderr) and not quiet
        self._drawn = False
        self._last = -1.0

    def __call__(self, done: float, total: float, what: str = "") -> None:
        """Show that `done` of `total` are finished; `what` says with which part."""
        now = self._clock()
        if not self._shown or (self._drawn and now - self._last < self.INTERVAL and done < total):
            return
        self._last = now
        share = f" {min(1.0, done / total):4.0%}" if total > 0 else ""
        line = f"{self._label}{share} {clean(what)}"[: width() - 1]
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()
        self._drawn = True

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
