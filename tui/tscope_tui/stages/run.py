"""An opened run: its views, the shared cursor, and the live tail."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tscope_format.errors import clean

from tscope_tui import canvas
from tscope_tui.data.entry import Entry, read_entry
from tscope_tui.data.run import RunData
from tscope_tui.data.status import State, age
from tscope_tui.data.telescoping import Choice
from tscope_tui.keys import Scope
from tscope_tui.layout import Rect, Tier, arrange, bottom, names, tier, top
from tscope_tui.panes.chart import ChartPane
from tscope_tui.panes.pane import Draw, Pane
from tscope_tui.panes.scrubber import Scrubber
from tscope_tui.plot import compact
from tscope_tui.spans import Line, Span, crop
from tscope_tui.stages import (
    chrome,
    run_along,
    run_averaging,
    run_boosting,
    run_collapse,
    run_effective,
    run_examples,
    run_forks,
    run_kernel,
    run_layers,
    run_regime,
    run_updates,
)
from tscope_tui.stages.actions import perform
from tscope_tui.stages.host import Host
from tscope_tui.stages.run_actions import RunActions
from tscope_tui.stages.run_analysis import RunAnalysis
from tscope_tui.stages.run_panes import panes_of
from tscope_tui.stages.run_reader import RunReader
from tscope_tui.stages.run_state import RunState

# What is read after the curves, and kept meanwhile.
_LATER = (
    *("telescoping", "effective", "kernel", "updates", "boosting", "layers", "regime", "collapse"),
    *("averages", "examples", "shown"),
)


class RunStage(RunActions):
    """One run on the screen."""

    scope: Scope = "run"

    def __init__(self, host: Host, path: Path, siblings: Sequence[Path] = ()) -> None:
        self.host = host
        self.path = path
        self.state = RunState()
        self.data = RunData(Entry(path, clean(path.name.removesuffix(".zarr")), State.DONE))
        self.loaded = False
        self.analysis = RunAnalysis(host, path, self.reload)
        self.siblings = [
            Entry(one, clean(one.name.removesuffix(".zarr")), State.DONE) for one in siblings or (path,)
        ]
        self.side = 0
        self._reader = RunReader(host, path, self._wanted, self._take)
        self._panes: tuple[object, dict[str, Pane]] = (None, {})

    # Reading.

    def start(self) -> None:
        """Begin to read."""
        self._reader.start()
        paths = [entry.path for entry in self.siblings]
        self.host.background(
            "siblings", lambda: [read_entry(path, time.time()) for path in paths], self._take_siblings
        )

    def stop(self) -> None:
        """Stop reading, playing and analysing."""
        self._reader.stop()
        self.analysis.cancel()
        self.state = replace(self.state, playing=False)

    def reload(self, after: float = 0.0) -> None:
        """Read what is new, with the present choice and window."""
        self._reader.reload(after)

    def _wanted(self) -> tuple[Choice, tuple[float, float] | None, int | None, bool]:
        """Return what to read; single examples, and averages with all forks, only where they are shown."""
        example = self.chosen_example() if self.by_example else None
        return self.state.choice, self.state.window, example, self.of_averages

    def _take(self, data: RunData, full: bool) -> None:
        known = {name: getattr(self.data, name) for name in _LATER if getattr(data, name) is None}
        if full:
            # What was not asked for this time is not gone.
            known = {
                name: value for name, value in known.items() if name in ("averages", "examples", "shown")
            }
        self.data = data = replace(data, **known)
        self.loaded = self.loaded or full
        if data.steps is not None:
            self.state = self.state.grown(data.last)
        self.host.redraw()

    def _take_siblings(self, entries: list[Entry]) -> None:
        self.siblings = entries
        self.side = next((i for i, entry in enumerate(entries) if entry.path == self.path), 0)
        self.host.redraw()

    # Painting.

    def panes(self) -> dict[str, Pane]:
        """Return every pane; made anew only when what they show changed."""
        state = self.state
        key = (
            (self.data, self.loaded, state.window, state.shown_band(), state.first_layer),
            (state.choice, state.kernel_share, state.log_x, dict(state.quantities), dict(state.rows)),
            (tuple(self.siblings), self.side),
        )
        if self._panes[0] != key:
            self._panes = key, panes_of(self.data, state, self.siblings, self.side, loaded=self.loaded)
        # The panes that are of a single step; the others must not be made anew when the cursor moves.
        loaded, still = self.loaded, self._panes[1]
        moving: dict[str, Pane] = {
            "spread": run_effective.spread_of(self.data, state, loaded=loaded),
            **run_kernel.panes_at(self.data, state, loaded=loaded),
            **run_updates.panes_at(self.data, state, loaded=loaded),
            **run_layers.panes_at(self.data, state, loaded=loaded),
            **run_regime.panes_at(self.data, state, loaded=loaded),
            **run_collapse.panes_at(self.data, state, loaded=loaded),
        }
        if self.by_example:
            moving |= run_examples.panes_at(self.data, state, still["prediction"], loaded=loaded)
        return {**still, **moving}

    def rects(self, width: int, height: int) -> dict[str, Rect]:
        """Return where the panes are."""
        alone = self.state.maximised or tier(width, height) is Tier.SMALL
        return arrange(self.state.view, width, height, self.focus_in(width, height) if alone else None)

    def focus_in(self, width: int, height: int) -> str:
        """Return the pane with the focus: the chosen one, or the first when the view does not have it."""
        known = names(self.state.view, tier(width, height))
        return (
            self.state.focus
            if self.state.focus in known
            else next(n for n in known if n not in ("traces", "recorded"))
        )

    def paint(self, width: int, height: int) -> list[Line]:
        """Return the screen without its status line."""
        look, state, size = self.host.look, self.state, tier(width, height)
        panes, focus = self.panes(), self.focus_in(width, height)
        parts: list[tuple[Rect, Sequence[Line]]] = [
            (Rect(0, 0, width, 1), [chrome.header(self._name(size), self._right(), width, look)])
        ]
        if top(size) > 1:
            parts.append((Rect(0, 1, width, 1), [chrome.tabs(state.view, width, look)]))
        for name, rect in self.rects(width, height).items():
            parts.append((rect, panes[name].lines(rect.width, rect.height, self._draw(name, name == focus))))
        scrubber = self.scrubber().lines(width, look)
        parts.append(
            (
                Rect(0, height - bottom(size), width, 2),
                scrubber[: bottom(size) - 1 if bottom(size) < 4 else 2],
            )
        )
        if bottom(size) == 4:
            parts.append((Rect(0, height - 1, width, 1), [chrome.hints(self.scope, width, look)]))
        return canvas.joined(parts, width, height)

    def _draw(self, name: str, focused: bool) -> Draw:
        """Return how a pane is to be drawn."""
        state = self.state
        return Draw(
            look=self.host.look,
            focused=focused,
            cursor=float(state.cursor) if self.data.steps is not None else None,
            crosshair=state.crosshair,
            window=state.window or ((0.0, float(state.last)) if state.last > 0 else None),
            zoomed=state.window is not None,
            band=state.shown_band(),
            log_x=state.log_x,
            log_y=state.log_y.get(name),
            cache=self.host.cache,
        )

    def status_row(self, height: int, width: int) -> int:
        """Return the row of the status line."""
        return height - 1 if bottom(tier(width, height)) < 4 else height - 2

    def _name(self, size: Tier) -> str:
        if size is Tier.SMALL:
            return f"{self.data.entry.name} › {self.state.view}"
        return self.data.entry.name

    def _right(self) -> list[Span]:
        entry = self.data.entry
        if self.data.steps is None:
            return [Span("reading …" if not self.data.problems else "BAD", "dim")]
        spans = []
        if self.state.view == "telescoping":
            spans.append(Span(f"{self.state.choice}  ", "label"))
        if entry.state is State.LIVE:
            pace = 1 / entry.seconds_per_row if entry.seconds_per_row > 0 else 0.0
            spans.append(Span(f"● LIVE {compact(pace, 2)} rows/s", "good"))
        elif entry.state is State.STALLED:
            spans.append(Span(f"stalled {age(entry.age)}", "warn"))
        else:
            reason = f": {crop(entry.reason, 32)}" if entry.reason else ""
            spans.append(Span(f"{entry.state.value}{reason}", entry.state.tone))
        return spans

    def scrubber(self) -> Scrubber:
        """Return the scrubber."""
        state = self.state
        live = self.data.entry.state in (State.LIVE, State.STALLED)
        return Scrubber(
            state.cursor,
            state.last,
            state.window,
            state.shown_band(),
            self.data.events,
            following=state.following and live,
            playing=state.playing,
            new=state.new,
        )

    def status(self) -> list[Span]:
        """Return what is known of the view in one line."""
        if self.analysis.progress:
            return [Span(f" {self.analysis.progress}  (a cancels)", "warn")]
        if self.data.problems:
            return [Span(f" {self.data.problems[0]}", "bad")]
        if self.state.range_start is not None:
            return [Span(f" range from step {self.state.range_start:,}: move, then m", "label")]
        if self.state.view == "effective" and self.data.effective is not None:
            ascii = self.host.look.ascii
            return run_effective.status_of(self.data.effective, self.state.cursor, ascii=ascii)
        if self.state.view == "kernel" and self.data.kernel is not None:
            return run_kernel.status_of(self.data.kernel, self.state.cursor)
        if self.state.view == "boosting" and self.data.boosting is not None:
            return run_boosting.status_of(self.data.boosting)
        if (averaged := self._averaged()) is not None:
            return averaged
        if self.state.view == "layers" and self.data.layers is not None:
            return run_layers.status_of(self.data.layers, self.state)
        if self.state.view == "regime" and self.data.regime is not None:
            return run_regime.status_of(self.data.regime, self.state.cursor)
        if self.state.view == "collapse" and self.data.collapse is not None:
            return run_collapse.status_of(self.data.collapse, self.state.cursor)
        if self.by_example:
            if self.state.focus in ("influence", "visits") and self.data.updates is not None:
                return run_updates.status_of(self.data, self.data.updates, self.state)
            return run_examples.status_of(self.data, self.state)
        told = self.data.telescoping
        if self.state.view == "telescoping" and told is not None and told.step.size:
            worst = told.worst(1)
            at = f" · worst step {worst[0]:,} (n)" if worst else ""
            return [
                Span(
                    f" ‖Δf−JΔθ‖/‖Δf‖ {told.relative_residual:.2%}{at} · {told.source}, probe {told.probe} "
                    f"{told.examples}×{told.outputs}",
                    "dim",
                )
            ]
        return []

    def _averaged(self) -> list[Span] | None:
        """Return what is known of the averages in view; None in other views, and where nothing is known."""
        data, state = self.data, self.state
        if state.view == "forks" and data.averages is not None:
            return run_forks.status_of(data, state)
        if state.view == "along" and (along := run_along.shown_of(data, state)) is not None:
            return run_along.status_of(data, along, state)
        if state.view == "averaging" and (average := run_averaging.shown_of(data, state)) is not None:
            return run_averaging.status_of(data, average, state)
        return None

    # Actions.

    def act(self, action: str, key: str) -> None:
        """Carry out an action, and paint."""
        if perform(self, action):
            self.host.redraw()

    def click(self, x: int, y: int) -> None:
        """Focus a pane, go to a step, or change the view."""
        width, height = self.host.screen_size()
        size = tier(width, height)
        if y == 1 and top(size) > 1:
            key = chrome.tab_at(x, self.state.view)
            if key is not None:
                view = next(view for tab, _, view in chrome.TABS if tab == key)
                self.act(f"view:{view}", key)
            return
        if y == height - bottom(size):
            self.go(self.scrubber().step_at(x, width))
        for name, rect in self.rects(width, height).items():
            if rect.holds(x, y):
                self.state = replace(self.state, focus=name)
                pane = self.panes()[name]
                if isinstance(pane, ChartPane) and pane.series:
                    step = pane.step_at(x - rect.x, rect.width, rect.height, self._draw(name, focused=True))
                    if step is not None:
                        self.go(step)
        self.host.redraw()
