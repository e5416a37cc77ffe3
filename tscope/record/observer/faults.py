"""What goes wrong in the observer stays there: counted, reported once, and the hook is left alone."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import Callable, Dict, Optional


class Faults:
    """The hooks that failed.

    Attributes:
        disabled: Names of hooks that are not called any more, with the number of their exceptions.
        report: Tells the recorder `(where, text, failed)`, False if there is none to tell.
    """

    def __init__(self) -> None:
        self.disabled: Dict[str, int] = {}
        self.report: Optional[Callable[[str, str, bool], bool]] = None

    def caught(self, where: str, error: Exception) -> None:
        """Take note of an exception in a hook, which will not be called again.

        Raises:
            Exception: The very `error`, if it is not ours: the script's signal handler raised it while a hook
                happened to run, and the script counts on it.
        """
        if _of_signal_handler(error):
            raise error
        known = where in self.disabled
        self.disabled[where] = self.disabled.get(where, 0) + 1
        if not known:
            self.tell(where, "{}: {}".format(type(error).__name__, error))

    def aside(self, where: str, action: Callable[..., None], *args: object) -> None:
        """Do something within a hook that the rest of it does not depend on."""
        if where not in self.disabled:
            try:
                action(*args)
            except Exception as error:
                self.caught(where, error)

    def note(self, where: str, text: str) -> None:
        """Say once that something is not recorded, though nothing failed."""
        if where not in self.disabled:
            self.disabled[where] = 0
            self.tell(where, text, failed=False)

    def tell(self, where: str, text: str, failed: bool = True) -> None:
        """Say something, through the recorder, or on stderr if it cannot be reached."""
        text = " ".join(text.split())[:500]
        try:
            if self.report is not None and self.report(where, text, failed):
                return
        except Exception as error:
            text += " (and telling the recorder failed: {})".format(type(error).__name__)
        # A script may have closed its stderr; then there is nobody to tell.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            what = where + " failed" if failed else where
            sys.stderr.write("tscope: {}: {}; the run goes on\n".format(what, text))


def _of_signal_handler(error: Exception) -> bool:
    handlers = set()
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        code = getattr(getattr(handler, "__func__", handler), "__code__", None)
        if code is not None:
            handlers.add(code)
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        trace = trace.tb_next
    return False
