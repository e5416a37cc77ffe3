"""What the keys do in an opened run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tscope_format.errors import UsageError, clean

from tscope_tui.data import boosting
from tscope_tui.data.events import neighbour, told
from tscope_tui.keys import help_lines
from tscope_tui.layout import names, tier
from tscope_tui.panes.chart import ChartPane
from tscope_tui.panes.examples import ExamplesPane
from tscope_tui.panes.heat import HeatPane
from tscope_tui.panes.influence import InfluencePane
from tscope_tui.panes.layermap import LayerMapPane
from tscope_tui.panes.neighbours import NeighboursPane
from tscope_tui.panes.relation import RelationPane
from tscope_tui.panes.rows import RowsPane
from tscope_tui.panes.spread import SpreadPane
from tscope_tui.spans import Span
from tscope_tui.stages import (
    averaging_keys,
    chrome,
    export,
    run_averaging,
    run_collapse,
    run_forks,
    run_layers,
    run_regime,
)
from tscope_tui.stages.averaging_repro import reproduced
from tscope_tui.stages.repro import (
    BOOSTING,
    COLLAPSE,
    EFFECTIVE,
    EVENTS,
    KERNEL,
    LAYERS,
    REGIME,
    UPDATES,
    repro,
)
from tscope_tui.stages.run_analysis import RunAnalysis, request_of
from tscope_tui.stages.run_choices import REST, RunChoices

# Frames a second while it plays: each is a few hundred bytes.
_FRAMES = 10
_PLAY_SECONDS = 10
# Where the key of a view leads when it is pressed again.
_AGAIN = {
    "kernel": "boosting",
    "averaging": "forks",
    "forks": "along",
    "layers": "regime",
    "regime": "collapse",
}


class RunActions(RunChoices):
    """The actions of the key table on a run."""

    analysis: RunAnalysis
    _worst = -1

    def go(self, step: float) -> None:
        """Move the cursor to a step."""
        before = self.state.window
        self.state = self.state.to(step)
        self._window_moved(before)

    def _window_moved(self, before: tuple[float, float] | None) -> None:
        """Read the rows of a new window in detail, once it has come to rest."""
        if self.state.window != before and any(curve.block > 1 for curve in self.data.curves.values()):
            self.reload(REST)

    def do_step(self, count: int) -> None:
        """Move the cursor by rows."""
        steps = self.data.steps
        if steps is not None:
            self.go(steps.at(steps.row(self.state.cursor) + count))

    def do_first(self) -> None:
        """Go to the first step."""
        self.go(0)

    def do_last(self) -> None:
        """Go to the last step."""
        self.go(self.state.last)

    def do_event(self, direction: int) -> None:
        """Go to the next or previous event."""
        event = neighbour(self.data.events, self.state.cursor, direction)
        if event is None:
            self.host.say("no event on that side")
            return
        self.go(event.step)
        self.host.say(told(self.data.events, event.step))

    def do_go(self) -> None:
        """Ask for a step."""
        self.host.ask("go to step: ", "", self._asked_step, None)

    def _asked_step(self, text: str) -> None:
        try:
            step = float(text.replace(",", "").replace("k", "e3").replace("M", "e6"))
            if not 0 <= step <= self.state.last:
                raise UsageError(f"no step {clean(text)}; the run has steps 0 to {self.state.last:,}")
        except UsageError as error:
            self.host.say(str(error), "warn")
        except ValueError:
            self.host.say(f"{clean(text)!r} is no step; give a number, such as 1200 or 12k", "warn")
        else:
            self.go(step)

    def do_play(self) -> None:
        """Move on by itself, through what is in sight in about ten seconds; again to stop."""
        playing = not self.state.playing
        if playing and self.state.cursor >= self.state.last:
            self.go(self.state.window[0] if self.state.window else 0)
        self.state = replace(self.state, playing=playing)
        if playing:
            self._play()

    def _play(self) -> None:
        if not self.state.playing or self.data.steps is None:
            return
        rows = self.data.steps.rows
        if self.state.window is not None:
            rows = self.data.steps.row(self.state.window[1]) - self.data.steps.row(self.state.window[0])
        self.do_step(max(1, rows // (_PLAY_SECONDS * _FRAMES)))
        if self.state.cursor >= self.state.last:
            self.state = replace(self.state, playing=False)
        else:
            self.host.later(1 / _FRAMES, self._play)
        self.host.redraw()

    def do_follow(self) -> None:
        """Stay on the last step."""
        self.state = self.state.follow()

    def do_zoom(self, factor: float) -> None:
        """Zoom around the cursor."""
        before = self.state.window
        self.state = self.state.zoom(factor)
        self._window_moved(before)

    def do_fit(self) -> None:
        """Show all steps."""
        self.state = self.state.fit()

    def do_pan(self, direction: int) -> None:
        """Move what is in sight; in the kernel the column of the chosen pair, and of averages α."""
        name = self._focused()[0]
        if name == "kernel":
            self._choose_pair(0, direction)
            return
        if name in run_averaging.PANES:
            self.state = averaging_keys.pointed(self.data, self.state, direction) or self.state
            return
        before = self.state.window
        self.state = self.state.pan(direction)
        if before is None:
            self.host.say("all steps are in sight; + zooms in")
        self._window_moved(before)

    def do_log_y(self) -> None:
        """Turn logarithmic values of the focused pane on or off."""
        name, pane = self._focused()
        if not isinstance(pane, ChartPane | RelationPane | LayerMapPane):
            self.host.say("this pane has no values to draw; tab to a chart")
            return
        self.state = replace(self.state, focus=name).toggled_log(pane.log_y)

    def do_log_x(self) -> None:
        """Turn logarithmic steps on or off."""
        self.state = replace(self.state, log_x=not self.state.log_x)

    def do_crosshair(self) -> None:
        """Read out the values at the cursor, or stop."""
        self.state = replace(self.state, crosshair=not self.state.crosshair)

    def do_mark_range(self) -> None:
        """Begin, end or clear the marked range."""
        self.state = self.state.mark()

    def do_worst(self, direction: int) -> None:
        """Go to the next or previous of the worst telescoping steps."""
        told = self.data.telescoping
        worst = [] if told is None else told.worst()
        if not worst:
            self.host.say("no telescoping error is known; see view 2")
            return
        self._worst = min(max(0, self._worst + direction), len(worst) - 1)
        self.go(worst[self._worst])
        self.host.say(f"worst telescoping step {self._worst + 1} of {len(worst)}: {worst[self._worst]:,}")

    def do_view(self, view: str) -> None:
        """Change the view."""
        self.show_view(_AGAIN.get(self.state.view, view) if self._is_part_of(view) else view)

    def _is_part_of(self, view: str) -> bool:
        """Whether a view's key was pressed while it, or one that it leads to, is shown."""
        return chrome.PARTS.get(self.state.view, self.state.view) == view

    def do_focus(self, direction: int) -> None:
        """Focus the next pane."""
        width, height = self.host.screen_size()
        known = names(self.state.view, tier(width, height))
        self.state = replace(self.state, focus=self.focus_in(width, height)).focused(known, direction)

    def do_maximise(self) -> None:
        """Give the focused pane the whole room, or not."""
        self.state = replace(self.state, maximised=not self.state.maximised)

    def do_enter(self) -> None:
        """Open the selected trace or fork, or go to the event at the cursor."""
        name, _ = self._focused()
        if name == "traces" and self.siblings[self.side].path != self.path:
            self.host.open(self.siblings[self.side].path, [entry.path for entry in self.siblings])
        elif name == "events":
            self.do_event(1)
        elif name == "examples" and self.data.examples is not None:
            self.drill(self.chosen_example())
        elif (
            name == "sweep"
            and (sweep := run_averaging.averages_of(self.data).sweep) is not None
            and sweep.forks
        ):
            path = sweep.forks[run_forks.fork_of(sweep, self.state)].path
            self.host.open(path, [sweep.base, *(fork.path for fork in sweep.forks)])

    def do_back(self) -> None:
        """Undo the last thing that covers others: maximised pane, marked range, zoom; else leave."""
        state = self.state
        if state.maximised:
            self.state = replace(state, maximised=False)
        elif state.range_start is not None or state.band is not None:
            self.state = replace(state, range_start=None, band=None)
        elif state.view in chrome.PARTS:
            self.show_view(chrome.PARTS[state.view])
        else:
            self.host.back()

    def do_analyse(self) -> None:
        """Start the analysis that the view or the focused pane shows, or cancel it."""
        name = self._focused()[0]
        if self.state.view == "boosting" and self.data.boosting is None and not self.analysis.progress:
            self.host.ask("against the trace of trees: ", "", self._against, None)
            return
        if self.of_averages and name not in ("traces", "recorded"):
            self._average(averaging_keys.request_of(self.data, self.state, name))
            return
        self.analysis.toggle(*request_of(self.data, self.state, name))

    def _against(self, text: str) -> None:
        """Compare with the trace of trees that was named."""
        if text.strip():
            self.analysis.toggle(boosting.METRIC, ["--against", text.strip()])

    def _average(self, request: averaging_keys.Request | None) -> None:
        """Start an analysis of the averages, or cancel the one that runs; ask what to average with."""
        if request is None and not self.analysis.progress:
            self.host.ask("average with the trace, or of the steps (0,last): ", "", self._averaged_with, None)
            return
        # What is saved then is the newest, and is to be seen.
        self.state = self.state.at_row("average", 0) if self.state.view == "averaging" else self.state
        self.analysis.toggle_request(request)

    def _averaged_with(self, text: str) -> None:
        """Average with the traces, or of the steps, that were named."""
        request = averaging_keys.answered(self.data, text)
        if request is not None:
            self._average(request)

    def do_export(self) -> None:
        """Write the focused pane to files."""
        name, pane = self._focused()
        log_y = isinstance(pane, ChartPane | RelationPane) and self.state.log_y.get(name, pane.log_y)
        try:
            written = export.export(
                pane,
                self.data.entry.name,
                Path.cwd(),
                log_x=self.state.log_x,
                log_y=log_y,
                window=self.state.window,
            )
        except OSError as error:
            self.host.say(f"cannot write to {clean(Path.cwd())}: {clean(error.strerror)}", "bad")
            return
        self.host.say(export.told(written), "good")

    def do_yank(self) -> None:
        """Copy the row at the cursor."""
        name, pane = self._focused()
        if isinstance(
            pane,
            SpreadPane | HeatPane | RelationPane | InfluencePane | ExamplesPane | NeighboursPane | RowsPane,
        ):
            text = pane.at()
        else:
            text = pane.table().near(self.state.cursor)
        self.host.copy(text)
        rows = text.count("\n") - 1
        self.host.say(f"copied {rows} row{'' if rows == 1 else 's'} of {name}")

    def do_repro(self) -> None:
        """Show the commands that give the numbers of the focused pane."""
        name, pane = self._focused()
        if self.of_averages and (lines := reproduced(self.data, self.state, name)):
            self._show_repro(name, lines)
            return
        told = self.data.telescoping
        options: Mapping[str, object] = {}
        data = self.data
        results = (
            (EFFECTIVE, data.effective),
            (KERNEL, data.kernel),
            (UPDATES, data.updates),
            (BOOSTING, data.boosting),
            (LAYERS, data.layers),
            (REGIME, data.regime),
            (COLLAPSE, data.collapse),
            (EVENTS, data.found),
        )
        shown = next((result for panes, result in results if name in panes), None)
        if any(name in panes for panes, _ in results):
            options = {} if shown is None else shown.options
        elif told is not None:
            options = told.contribution_options if name in ("layers", "contribution") else told.options
        band = self.state.shown_band() or (0, self.data.last)
        lines = repro(
            name,
            self.path,
            has_accuracy=told is not None and bool(told.accuracy),
            options=options,
            band=(round(band[0]), round(band[1])),
            step=pane.step if isinstance(pane, SpreadPane | RelationPane | RowsPane) else self.state.cursor,
            held=self.data.effective is None or self.data.effective.gap is not None,
            known=None if self.data.kernel is None else self.data.kernel.arrays,
            example=None if data.examples is None else (data.examples.probe, self.chosen_example()),
            arrays=self._arrays(name),
        )
        if name in EVENTS and any(event.source != "saved" for event in data.events):
            lines.append("# the other marks are the browser's own: docs/browsing.md")
        if shown is not None:
            # Where there is no room for the pane of the method, its notes are read here.
            lines += [f"# note: {note}" for note in shown.notes]
        self._show_repro(name, lines)

    def _show_repro(self, name: str, lines: Sequence[str]) -> None:
        self.host.show(
            f"reproduce: {name}", [(Span(line, "dim" if line.startswith("#") else "text"),) for line in lines]
        )

    def _arrays(self, pane: str) -> tuple[str, ...]:
        """Return the arrays that a pane of view 6 shows of its result."""
        data, state = self.data, self.state
        if pane in LAYERS and data.layers is not None:
            return run_layers.arrays_of(data.layers, state, pane)
        if pane in REGIME and data.regime is not None:
            return run_regime.arrays_of(data.regime, state, pane)
        if pane in COLLAPSE and data.collapse is not None:
            return run_collapse.arrays_of(data.collapse, state, pane)
        return ()

    def do_help(self) -> None:
        """Show the keys."""
        self.host.show(
            "keys of a run", [(Span(f"{shown:<8}", "label"), Span(text)) for shown, text in help_lines("run")]
        )
