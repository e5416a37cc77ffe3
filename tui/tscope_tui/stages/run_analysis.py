"""The analyses that a run's views show: which one a key starts, and the one that runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from tscope_tui.data import boosting, collapse, effective, kernel, layers, regime, saved_events, updates
from tscope_tui.data.run import RunData
from tscope_tui.jobs.analysis import Analysis
from tscope_tui.stages.averaging_keys import Request
from tscope_tui.stages.flags import flags
from tscope_tui.stages.host import Host
from tscope_tui.stages.run_state import RunState
from tscope_tui.stages.run_updates import traced_example

# The metrics of the views that show one.
_OF_VIEWS = {
    "effective": effective.METRIC,
    "kernel": kernel.METRIC,
    "boosting": boosting.METRIC,
    "layers": layers.METRIC,
    "regime": regime.METRIC,
    "collapse": collapse.METRIC,
}
# The panes of view 7 that another metric than `updates` fills.
_OTHERS = {"neighbours": kernel.METRIC, "contribution": "telescoping", "examples": effective.METRIC}


def request_of(data: RunData, state: RunState, pane: str) -> tuple[str, list[str]]:
    """Return the metric that fills the view, or in some views the pane, and its options.

    The options are those of the result that is shown, so that what grew is followed with the same.
    """
    metric = _OF_VIEWS.get(state.view)
    if state.view in ("examples", "example"):
        metric = _OTHERS.get(pane, updates.METRIC)
    elif pane == "terms":
        metric = updates.METRIC
    elif pane == "events":
        metric = saved_events.METRIC
    results = {
        effective.METRIC: data.effective,
        kernel.METRIC: data.kernel,
        updates.METRIC: data.updates,
        boosting.METRIC: data.boosting,
        layers.METRIC: data.layers,
        regime.METRIC: data.regime,
        collapse.METRIC: data.collapse,
        saved_events.METRIC: data.found,
    }
    if metric is None or metric not in results:
        replay = pane in ("layers", "contribution") or data.telescoping is not None
        return "telescoping", ["--replay"] if replay else []
    shown = results[metric]
    options = {} if shown is None else dict(shown.options)
    if metric == kernel.METRIC and not options.get("matrix"):
        options["matrix"] = options.get("at") or "0,last"
    if lacks_part(data, pane):
        # The parts that were asked for leave out what the pane shows.
        options["parts"] = None
    if metric == updates.METRIC and data.updates is not None:
        example = traced_example(data, data.updates, state)
        if state.view == "example" and example is not None and example not in data.updates.traced:
            # The chosen one beside those that were traced before.
            both = sorted({example, *data.updates.traced.tolist()})
            options["influence"] = ",".join(map(str, both))
    return metric, [word for flag in flags(metric, options) for word in shlex.split(flag)]


def lacks_part(data: RunData, pane: str) -> bool:
    """Whether a pane is empty because the saved result is of some parts of the analysis only."""
    if pane == "within":
        return data.layers is not None and data.layers.singular is None
    moved = data.regime
    if moved is None or pane not in ("turned", "modes", "learning"):
        return False
    return not moved.count if pane != "turned" else "kernel_distance_train" not in moved.series


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
        told = f"analysing: {metric}" + (" by replay" if "--replay" in options else "")
        self._start(Analysis(self._path, metric, options), told)

    def toggle_request(self, request: Request | None) -> None:
        """Start an analysis of averages, maybe of another trace, or cancel the one that runs."""
        if self._job is not None or request is None:
            self.cancel()
        elif request.metric:
            options = [word for flag in flags(request.metric, request.options) for word in shlex.split(flag)]
            self._start(Analysis(request.path, request.metric, options), f"analysing: {request.metric}")
        else:
            self._start(Analysis(request.path, verb=("forks", "--compute")), "analysing the forks")

    def _start(self, job: Analysis, told: str) -> None:
        self._job, self.progress = job, told
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
