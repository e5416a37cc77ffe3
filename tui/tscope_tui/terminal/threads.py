"""Work in threads: one at a time in each group, the latest request follows, and no error is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tscope_tui.stages.host import T

_Job = Callable[[], Callable[[], None]]


class Threads:
    """Runs work in daemon threads and hands its result to the screen's thread."""

    def __init__(self, post: Callable[[Callable[[], None]], object]) -> None:
        self._post = post
        self._lock = threading.Lock()
        self._waiting: dict[str, _Job | None] = {}

    def run(self, group: str, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """Run `work` in a thread, then `done` with its result; a request that still waits is replaced."""

        def job() -> Callable[[], None]:
            result = work()
            return lambda: done(result)

        with self._lock:
            busy = group in self._waiting
            self._waiting[group] = job if busy else None
        if not busy:
            threading.Thread(
                target=self._work, args=(group, job), name=f"tscope-{group}", daemon=True
            ).start()

    def _work(self, group: str, job: _Job) -> None:
        following: _Job | None = job
        while following is not None:
            try:
                self._post(following())
            except Exception as error:
                self._post(_raiser(error))
            with self._lock:
                following = self._waiting[group]
                if following is None:
                    del self._waiting[group]
                else:
                    self._waiting[group] = None


def _raiser(error: Exception) -> Callable[[], None]:
    """Return a call that raises in the screen's thread, where the program ends with the traceback."""

    def call() -> None:
        raise error

    return call
