"""The analysis that a run's views show, started and cancelled by one key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tscope_tui.jobs.analysis import Analysis
from tscope_tui.stages.host import Host


class RunAnalysis:
    """At most one analysis at a time; its progress is a line of text, empty when none runs."""

    def __init__(self, host: Host, path: Path, finished: Callable[[], None]) -> None:
        self.progress = ""
        self._host, self._path, self._finished = host, path, finished
        self._job: Analysis | None = None

    def toggle(self, metric: str, options: Sequence[str] = ()) -> None:
        """Start it, or cancel the one that runs."""
        if self._job is not None:
            self.cancel()
            return
        job = Analysis(self._path, metric, options)
        self._job = job
        self.progress = f"analysing: {metric}" + (" by replay" if "--replay" in options else "")
        self._host.background("analysis", lambda: job.run(self._report), self._done)

    def cancel(self) -> None:
        """Cancel the one that runs, if any."""
        if self._job is not None:
            self._job.cancel()

    def _report(self, text: str) -> None:
        def show() -> None:
            if self._job is not None and text != self.progress:
                self.progress = text
                self._host.redraw()

        self._host.in_foreground(show)

    def _done(self, failure: str | None) -> None:
        self._job, self.progress = None, ""
        if failure is None:
            self._host.say("analysis saved in the trace", "good")
            self._finished()
        else:
            self._host.say(failure if failure == "cancelled" else f"analysis: {failure}", "warn")
        self._host.redraw()
