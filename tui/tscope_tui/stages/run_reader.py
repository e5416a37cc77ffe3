"""Reading an opened run in the background, and following it while it grows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tscope_tui.data.run import RunData, RunSource
from tscope_tui.data.status import State
from tscope_tui.data.tail import Backoff, Signature, signature
from tscope_tui.data.telescoping import Choice
from tscope_tui.stages.host import Host

# Seconds between two reads of a growing trace, so that the screen changes twice a second at most.
_TICK = 0.5

Wanted = Callable[[], tuple[Choice, tuple[float, float] | None, int | None, bool]]


class RunReader:
    """Reads curves first and predictions after them, and then whatever is committed.

    Args:
        host: Gives threads and timers.
        path: The trace.
        wanted: Tells the choice and the window that are looked at, the example whose input is,
            if any, and whether averages are.
        taken: Is given every new snapshot, and whether it has predictions.
    """

    def __init__(
        self, host: Host, path: Path, wanted: Wanted, taken: Callable[[RunData, bool], None]
    ) -> None:
        self._host, self._path, self._wanted, self._taken = host, path, wanted, taken
        self._source = RunSource(path)
        self._seen: Signature | None = None
        self._backoff = Backoff()
        self._timers: dict[str, Callable[[], None]] = {}
        self._data: RunData | None = None
        self._stopped = False

    def start(self) -> None:
        """Read the curves, then the predictions, then follow the trace."""
        self._seen = signature(self._path)
        choice, window, _, _ = self._wanted()
        self._host.background(
            "load",
            lambda: self._source.load(choice, window, curves_only=True),
            lambda data: self._take(data, full=False),
        )

    def stop(self) -> None:
        """Read no more."""
        self._stopped = True
        for cancel in self._timers.values():
            cancel()

    def reload(self, after: float = 0.0) -> None:
        """Read what is new, with the present choice and window; with `after`, once they have come to rest."""
        if cancel := self._timers.pop("reload", None):
            cancel()
        if after:
            self._timers["reload"] = self._host.later(after, self.reload)
            return
        choice, window, example, averages = self._wanted()
        self._host.background(
            "load",
            lambda: self._source.load(choice, window, example=example, averages=averages),
            lambda data: self._take(data, full=True),
        )

    def _take(self, data: RunData, *, full: bool) -> None:
        if self._stopped:
            return
        self._data = data
        self._taken(data, full)
        if not full:
            self.reload()
        elif "look" not in self._timers:
            self._look_after(_TICK)

    def _look_after(self, seconds: float) -> None:
        self._timers["look"] = self._host.later(max(_TICK, seconds), self._look)

    def _look(self) -> None:
        now = signature(self._path)
        changed = now is not None and now != self._seen
        self._seen = now or self._seen
        if changed:
            self.reload()
        elif self._data is not None:
            aged = self._data.entry.seen(time.time())
            if aged.state is not self._data.entry.state or aged.state is State.STALLED:
                self._data = replace(self._data, entry=aged)
                self._taken(self._data, True)
        self._look_after(self._backoff.looked(changed=changed))
