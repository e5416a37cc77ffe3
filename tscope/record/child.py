"""The recorded command as a process: how it is started, what signals do, and the exit code it gives."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType

from tscope_format.errors import RecordError, clean

NOT_EXECUTABLE = 126  # as `env` and shells have it
NOT_FOUND = 127
FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# The terminal sends these to the whole foreground group: the command has them already.
SHARED = (signal.SIGINT, signal.SIGQUIT)


class StartError(RecordError):
    """The command could not be started; the exit code says why, as `env` does."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


class Child:
    """The running command.

    Attributes:
        pid: Its process.
        signalled: The last signal that was passed on to it, None if none was.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []
        self.signalled: int | None = None

    @property
    def pid(self) -> int:
        """Its process id; 0 before it was started."""
        return 0 if self._process is None else self._process.pid

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the command in our place: same folder, terminal, files and process group.

        Raises:
            StartError: There is no such command, or it cannot be executed.
        """
        try:
            # Whatever we inherited it inherits: our own files are not inheritable anyway.
            self._process = subprocess.Popen(list(command), env=dict(environment), close_fds=False)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StartError(f"{clean(command[0])}: command not found{_hint(command)}", NOT_FOUND) from error
        except (OSError, ValueError) as error:
            reason = clean(error.strerror if isinstance(error, OSError) else error)
            message = f"{clean(command[0])} cannot be executed: {reason}{_hint(command)}"
            raise StartError(message, NOT_EXECUTABLE) from error
        for number in self._early:
            self.forward(number)

    def wait(self) -> int:
        """Wait for its end and return its return code, negative for a signal."""
        return 0 if self._process is None else self._process.wait()

    def forward(self, number: int) -> None:
        """Pass a signal on to it."""
        self.signalled = number
        if self._process is None:
            self._early.append(number)
        elif self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)


def _hint(command: Sequence[str]) -> str:
    """Return what to type instead where a script was given for a command."""
    if not command[0].endswith(".py") or not os.path.isfile(command[0]):
        return ""
    return f"; a script needs its interpreter: tscope record -- python {clean(shlex.join(command))}"


@contextlib.contextmanager
def signals(child: Child) -> Iterator[None]:
    """Pass signals on to `child`, and survive those that it gets from the terminal itself.

    Handlers, not `SIG_IGN`: that would be inherited by the command. A signal that is ignored already stays so
    for both (`nohup`).
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can handle signals; whoever runs us in another one handles them
        return

    def forward(number: int, _: FrameType | None) -> None:
        child.forward(number)

    def leave(number: int, _: FrameType | None) -> None:
        """Do nothing: the command got it too."""

    former = {}
    try:
        for handler, numbers in ((forward, FORWARDED), (leave, SHARED)):
            for number in numbers:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    former[number] = signal.signal(number, handler)
        yield
    finally:
        for number, handling in former.items():
            signal.signal(number, handling)


def exit_code(returncode: int) -> int:
    """Return the exit code that a shell gives for a return code."""
    return 128 - returncode if returncode < 0 else returncode
