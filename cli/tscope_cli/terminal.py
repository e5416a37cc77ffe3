"""What is known of the terminal: width, colour, encoding, and the progress line.

Results go to stdout; progress and messages go to stderr, so that a result can be piped.
"""

from __future__ import annotations

import math
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
    """How far something is, on stderr: a line rewritten in place, or one now and then in a pipe or a file.

    Args:
        label: What is going on ("verifying").
        quiet: Show nothing.
        clock: Seconds; replaced in tests.
    """

    INTERVAL = 0.1  # seconds between two redraws: a slow link must not be the bottleneck
    LINES = 30.0  # seconds between two lines where there is no terminal
    FIRST = 3.0  # seconds before a guess of what is left

    def __init__(
        self, label: str, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._label = clean(label)
        self._clock = clock
        self._quiet = quiet
        self._terminal = is_tty(sys.stderr)
        self._drawn = False
        self._began: tuple[float, float] | None = None
        self._last = -math.inf

    def __call__(self, done: float, total: float, what: str = "") -> None:
        """Show that `done` of `total` are finished; `what` says with which part."""
        if self._quiet:
            return
        now = self._clock()
        if self._began is None:
            self._began = now, done
            # A first line in a file says nothing yet.
            self._last = self._last if self._terminal else now
        finished = done >= total and self._terminal
        if now - self._last < (self.INTERVAL if self._terminal else self.LINES) and not finished:
            return
        self._last = now
        share = f" {min(1.0, done / total):4.0%}" if total > 0 else ""
        line = f"{self._label}{share}{self._left(now, done, total)} {clean(what)}"
        if not self._terminal:
            say(line.rstrip())
            return
        sys.stderr.write(f"\r\x1b[K{line[: width() - 1]}")
        sys.stderr.flush()
        self._drawn = True

    def say(self, text: str) -> None:
        """Print a message that stays, above the line of progress."""
        if not self._quiet:
            self._wipe()
            say(text)

    def _left(self, now: float, done: float, total: float) -> str:
        """Return about how long it still takes, once that can be told."""
        start, already = self._began or (now, done)
        if now - start < self.FIRST or done <= already or done >= total:
            return ""
        return f", about {span((now - start) * (total - done) / (done - already))} left"

    def _wipe(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        self._drawn = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._wipe()


def span(seconds: float) -> str:
    """Return a time to wait in words: seconds, minutes or hours."""
    if seconds < 99.5:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5940 else f"{seconds / 3600:.1f} h"
