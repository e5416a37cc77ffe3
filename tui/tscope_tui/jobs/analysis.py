"""`tscope analyze`, or `tscope forks`, in a process of its own, with its progress, and cancellable."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tscope_format.errors import clean

# Progress goes to stderr only if that is a terminal, so the process is given one.
_CHUNK = 4096


class Analysis:
    """One run of `tscope analyze`; `run` blocks, `cancel` may be called from any thread.

    Args:
        path: The trace.
        metric: The metric; empty with another `verb`.
        options: Its options.
        verb: Another command of tscope than `analyze`, and what follows the trace.
        program: What to run in place of tscope.
    """

    def __init__(
        self,
        path: Path,
        metric: str = "",
        options: Sequence[str] = (),
        *,
        verb: Sequence[str] = (),
        program: Sequence[str] | None = None,
    ) -> None:
        command, *rest = verb or ("analyze", "--metric", metric, *options)
        self.command = [*(program or (sys.executable, "-m", "tscope_cli")), command, str(path), *rest]
        self.cancelled = False
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, progress: Callable[[str], None]) -> str | None:
        """Run it, handing on each line of its progress.

        Returns:
            None when it went well, else why not: its last message.
        """
        ours, theirs = pty.openpty()
        try:
            # A session of its own, so that cancelling reaches whatever it starts.
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=theirs,
                start_new_session=True,
                env={**os.environ, "NO_COLOR": "1"},
            )
        except OSError as error:
            os.close(ours)
            os.close(theirs)
            return clean(f"cannot start {self.command[0]}: {error.strerror}")
        os.close(theirs)
        if self.cancelled:
            self.cancel()
        last = self._follow(ours, progress)
        code = self._process.wait()
        if self.cancelled:
            return "cancelled"
        return None if code == 0 else last.removeprefix("tscope: ") or f"tscope ended with exit code {code}"

    def _follow(self, terminal: int, progress: Callable[[str], None]) -> str:
        """Hand on what is written until the end; return the last line."""
        pending, last = "", ""
        with open(terminal, "rb", buffering=0) as stream:
            while True:
                try:
                    data = stream.read(_CHUNK)
                except OSError:
                    # How Linux says that the other side of a pseudo-terminal is closed.
                    break
                if not data:
                    break
                pending += data.decode("utf-8", "replace")
                *done, pending = pending.replace("\r", "\n").split("\n")
                for line in (*done, pending):
                    text = clean(line).strip()
                    if text:
                        last = text
                        progress(text)
        return last

    def cancel(self) -> None:
        """End it, and whatever it started."""
        self.cancelled = True
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGTERM)
