"""What the keys do in an opened run."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tscope_format.errors import UsageError, clean

from tscope_tui.data import effective, kernel, updates
from tscope_tui.data.entry import Entry
from tscope_tui.data.events import neighbour
from tscope_tui.data.run import RunData
from tscope_tui.keys import help_lines
from tscope_tui.layout import Rect, names, tier
from tscope_tui.panes.chart import ChartPane
from tscope_tui.panes.heat import HeatPane
from tscope_tui.panes.influence import InfluencePane
from tscope_tui.panes.pane import Pane
from tscope_tui.panes.spectrum import SpectrumPane
from tscope_tui.panes.spread import SpreadPane
from tscope_tui.spans import Span
from tscope_tui.stages import chrome, export
from tscope_tui.stages.host import Host
from tscope_tui.stages.repro import EFFECTIVE, KERNEL, UPDATES, flags, repro
from tscope_tui.stages.run_analysis import RunAnalysis
from tscope_tui.stages.run_state import RunState

# Frames a second while it plays: each is a few hundred bytes.
_FRAMES = 10
_PLAY_SECONDS = 10
# Seconds for which a choice or window must rest before rows are read for it.
_REST = 0.15


class RunActions(ABC):
    """The actions of the key table on a run."""

    host: Host
    path: Path
    state: RunState
    data: RunData
    analysis: RunAnalysis
    siblings: list[Entry]
    side: int
    _worst = -1

    @abstractmethod
    def panes(self) -> dict[str, Pane]:
        """Return every pane by name."""

    @abstractmethod
    def focus_in(self, width: int, height: int) -> str:
        """Return the pane with the focus."""

    @abstractmethod
    def rects(self, width: int, height: int) -> dict[str, Rect]:
        """Return where the panes are."""

    @abstractmethod
    def reload(self, after: float = 0.0) -> None:
        """Read what is new, with the present choice and window."""

    def go(self, step: float) -> None:
        """Move the cursor to a step."""
        before = self.state.window
        self.state = self.state.to(step)
        self._window_moved(before)

    def _window_moved(self, before: tuple[float, float] | None) -> None:
        """Read the rows of a new window in detail, once it has come to rest."""
        if self.state.window != before and any(curve.block > 1 for curve in self.data.curves.values()):
            self.reload(_REST)

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
        self.host.say(f"step {event.step:,}: {event.text}")

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
        """Move what is in sight; in the kernel, the column of the chosen pair."""
        if self._focused()[0] == "kernel":
            self._choose_pair(0, direction)
            return
        before = self.state.window
        self.state = self.state.pan(direction)
        if before is None:
            self.host.say("all steps are in sight; + zooms in")
        self._window_moved(before)

    def do_log_y(self) -> None:
        """Turn logarithmic values of the focused pane on or off."""
        name, pane = self._focused()
        if not isinstance(pane, ChartPane):
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

    def _focused(self) -> tuple[str, Pane]:
        name = self.focus_in(*self.host.screen_size())
        return name, self.panes()[name]

    def do_down(self) -> None:
        """Choose the next one in the focused pane."""
        self._choose(1)

    def do_up(self) -> None:
        """Choose the previous one in the focused pane."""
        self._choose(-1)

    def _choose(self, direction: int) -> None:
        name, _ = self._focused()
        told = self.data.telescoping
        if name == "events":
            self.do_event(direction)
        elif name == "traces":
            self.side = (self.side + direction) % max(1, len(self.siblings))
        elif name == "layers" and told is not None:
            # The residual and the frame take three lines of the pane.
            room = self.rects(*self.host.screen_size())[name].height - 3
            first = min(max(0, self.state.first_layer + direction), max(0, len(told.layers) - room))
            self.state = replace(self.state, first_layer=first)
        elif name == "kernel":
            self._choose_pair(direction, 0)
        elif name == "influence" and self.data.updates is not None:
            room = self.rects(*self.host.screen_size())[name].height - 2
            most = max(0, self.data.updates.train.size - room)
            first = min(max(0, self.state.first_influence + direction), most)
            self.state = replace(self.state, first_influence=first)
        elif self.state.view == "examples" and self.data.updates is not None:
            if not self.data.updates.traced.size:
                self.host.say("no influences were traced; a runs the analysis")
                return
            self.state = self.state.other_traced(direction, self.data.updates.traced.tolist())
            self.reload(_REST)
        elif self.state.view == "telescoping" and told is not None:
            self.state = self.state.other_example(direction, told.examples)
            self.reload(_REST)

    def _choose_pair(self, rows: int, columns: int) -> None:
        """Move the chosen pair by cells of the map: by so many points that the mark moves."""
        found = self.data.kernel
        if found is None or found.matrices is None:
            self.host.say("no matrix was kept; see the pane")
            return
        points = found.matrices.pairs.shape[1]
        rect = self.rects(*self.host.screen_size())["kernel"]
        down = max(1, -(-points // max(1, rect.height - 2)))
        across = max(1, -(-points // max(1, rect.width - 2)))
        self.state = self.state.other_pair(rows * down, columns * across, points)

    def do_output(self) -> None:
        """Choose the next output."""
        told = self.data.updates if self.state.view == "examples" else self.data.telescoping
        if told is None or told.outputs < 2:
            self.host.say("there is only one output" if told is not None else "no predictions to choose from")
            return
        self.state = self.state.other_output(told.outputs)
        self.reload(_REST)

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
        first = {
            "overview": "loss",
            "telescoping": "prediction",
            "effective": "parameters",
            "kernel": "kernel",
            "examples": "prediction",
        }[view]
        self.state = replace(self.state, view=view, focus=first, maximised=False)

    def do_later(self, key: str) -> None:
        """Say what a view of a later version needs."""
        self.host.say(chrome.LATER[key])

    def do_focus(self, direction: int) -> None:
        """Focus the next pane."""
        width, height = self.host.screen_size()
        known = names(self.state.view, tier(width, height))
        self.state = replace(self.state, focus=self.focus_in(width, height)).focused(known, direction)

    def do_maximise(self) -> None:
        """Give the focused pane the whole room, or not."""
        self.state = replace(self.state, maximised=not self.state.maximised)

    def do_enter(self) -> None:
        """Open the selected trace, or go to the event at the cursor."""
        name, _ = self._focused()
        if name == "traces" and self.siblings[self.side].path != self.path:
            self.host.open(self.siblings[self.side].path, [entry.path for entry in self.siblings])
        elif name == "events":
            self.do_event(1)

    def do_back(self) -> None:
        """Undo the last thing that covers others: maximised pane, marked range, zoom; else leave."""
        state = self.state
        if state.maximised:
            self.state = replace(state, maximised=False)
        elif state.range_start is not None or state.band is not None:
            self.state = replace(state, range_start=None, band=None)
        else:
            self.host.back()

    def do_analyse(self) -> None:
        """Start the analysis, or cancel it."""
        if self.state.view == "effective":
            shown = self.data.effective
            # With the options of the result that is shown, so that what grew is followed with the same.
            options = [] if shown is None else flags(effective.METRIC, shown.options)
            self.analysis.toggle(effective.METRIC, [word for flag in options for word in shlex.split(flag)])
            return
        if self.state.view == "kernel":
            self.analysis.toggle(kernel.METRIC, self._kernel_options())
            return
        if self.state.view == "examples" or self._focused()[0] == "terms":
            known = {} if self.data.updates is None else self.data.updates.options
            options = flags(updates.METRIC, known)
            self.analysis.toggle(updates.METRIC, [word for flag in options for word in shlex.split(flag)])
            return
        replay = self._focused()[0] == "layers" or self.data.telescoping is not None
        self.analysis.toggle("telescoping", ["--replay"] if replay else [])

    def _kernel_options(self) -> list[str]:
        """Return the options of the result that is shown, and those that keep matrices."""
        shown = self.data.kernel
        options = {} if shown is None else dict(shown.options)
        if not options.get("matrix"):
            options["matrix"] = options.get("at") or "0,last"
        return [word for flag in flags(kernel.METRIC, options) for word in shlex.split(flag)]

    def do_export(self) -> None:
        """Write the focused pane to files."""
        name, pane = self._focused()
        log_y = isinstance(pane, ChartPane) and self.state.log_y.get(name, pane.log_y)
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
        if isinstance(pane, SpreadPane | HeatPane | SpectrumPane | InfluencePane):
            text = pane.at()
        else:
            text = pane.table().near(self.state.cursor)
        self.host.copy(text)
        rows = text.count("\n") - 1
        self.host.say(f"copied {rows} row{'' if rows == 1 else 's'} of {name}")

    def do_repro(self) -> None:
        """Show the commands that give the numbers of the focused pane."""
        name, pane = self._focused()
        told = self.data.telescoping
        options: Mapping[str, object] = {}
        data = self.data
        results = ((EFFECTIVE, data.effective), (KERNEL, data.kernel), (UPDATES, data.updates))
        shown = next((result for panes, result in results if name in panes), None)
        if any(name in panes for panes, _ in results):
            options = {} if shown is None else shown.options
        elif told is not None:
            options = told.contribution_options if name == "layers" else told.options
        band = self.state.shown_band() or (0, self.data.last)
        lines = repro(
            name,
            self.path,
            has_accuracy=told is not None and bool(told.accuracy),
            options=options,
            band=(round(band[0]), round(band[1])),
            step=pane.step if isinstance(pane, SpreadPane | SpectrumPane) else self.state.cursor,
            held=self.data.effective is None or self.data.effective.gap is not None,
            known=None if self.data.kernel is None else self.data.kernel.arrays,
        )
        if shown is not None:
            # Where there is no room for the pane of the method, its notes are read here.
            lines += [f"# note: {note}" for note in shown.notes]
        self.host.show(
            f"reproduce: {name}", [(Span(line, "dim" if line.startswith("#") else "text"),) for line in lines]
        )

    def do_help(self) -> None:
        """Show the keys."""
        self.host.show(
            "keys of a run", [(Span(f"{shown:<8}", "label"), Span(text)) for shown, text in help_lines("run")]
        )
