"""The browser: the traces of a folder, and a preview of the chosen one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tscope_format.errors import UsageError, clean

from tscope_tui import canvas
from tscope_tui.data.entry import ORDERS, Entry, Order, arranged
from tscope_tui.data.filter import Filter, parse
from tscope_tui.data.run import RunData, RunSource
from tscope_tui.data.status import size as size_text
from tscope_tui.data.telescoping import Choice
from tscope_tui.jobs.doctor import Doctor
from tscope_tui.keys import Scope, help_lines
from tscope_tui.layout import Rect, Tier, arrange, names, tier
from tscope_tui.panes.chart import ChartPane
from tscope_tui.panes.facts import FactsPane
from tscope_tui.panes.pane import Draw, Pane
from tscope_tui.panes.traces import TracesPane
from tscope_tui.plot import Series
from tscope_tui.spans import Line, Span
from tscope_tui.stages import chrome, export
from tscope_tui.stages.actions import perform
from tscope_tui.stages.catalogue import Catalogue
from tscope_tui.stages.host import Host
from tscope_tui.stages.repro import repro

# The chosen trace is read once the cursor has been on it for a moment.
_REST = 0.12


class BrowserStage:
    """The list of traces on the screen."""

    scope: Scope = "browser"

    def __init__(self, host: Host, paths: Sequence[Path]) -> None:
        self.host = host
        self.paths = tuple(paths)
        self.catalogue = Catalogue(host, self.paths, self._listed)
        self.order: Order = "age"
        self.filter = Filter("", ())
        self.pinned: frozenset[Path] = frozenset()
        self.marked: frozenset[Path] = frozenset()
        self.focus = "traces"
        self.maximised = False
        self.chosen: Path | None = None
        self._preview: RunData | None = None
        self._sources: dict[Path, RunSource] = {}
        self._log: bool | None = None
        self._rest: Callable[[], None] | None = None
        self._doctor: Doctor | None = None
        self._verifying = ""

    def start(self) -> None:
        """List the traces, and go on looking for changes."""
        self.catalogue.start()
        self._choose(self.chosen)

    def stop(self) -> None:
        """Stop looking."""
        self.catalogue.stop()
        if self._rest is not None:
            self._rest()
        if self._doctor is not None:
            self._doctor.cancel()

    # What is listed and chosen.

    def entries(self) -> list[Entry]:
        """Return the traces that pass the filter, in order."""
        passed = [entry for entry in self.catalogue.entries.values() if self.filter.matches(entry)]
        return arranged(passed, self.order, self.pinned)

    def _listed(self, changed: Sequence[Path]) -> None:
        listed = self.entries()
        if self.chosen is None and listed:
            self._choose(listed[0].path)
        elif self.chosen in changed:
            self._choose(self.chosen)
        self.host.redraw()

    def _choose(self, path: Path | None) -> None:
        self.chosen = path
        if self._rest is not None:
            self._rest()
        if path is not None:
            self._rest = self.host.later(_REST, lambda: self._read(path))

    def _read(self, path: Path) -> None:
        source = self._sources.pop(path, None) or RunSource(path)
        self._sources[path] = source
        while len(self._sources) > 8:
            self._sources.pop(next(iter(self._sources)))
        self.host.background("preview", lambda: source.load(Choice(), None, curves_only=True), self._take)

    def _take(self, data: RunData) -> None:
        if data.path == self.chosen:
            self._preview = data
            self.host.redraw()

    # Painting.

    def panes(self) -> dict[str, Pane]:
        """Return every pane by name."""
        listed = self.entries()
        selected = next((index for index, entry in enumerate(listed) if entry.path == self.chosen), 0)
        where = ", ".join(clean(path) for path in self.paths)
        if not self.catalogue.read:
            empty: tuple[str, ...] = (f"reading {where} …",)
        elif self.catalogue.entries:
            empty = ("no trace passes the filter; / changes it",)
        else:
            empty = (
                f"no traces in {where}",
                "record one:  tscope record -- python train.py",
                "or:          tscope demo",
            )
        traces = TracesPane(tuple(listed), selected, self.pinned, self.marked, self.order, "traces", empty)
        preview = self._preview if self._preview is not None and self._preview.path == self.chosen else None
        return {"traces": traces, "loss": self._loss(preview), "recorded": self._recorded(preview)}

    def _loss(self, preview: RunData | None) -> ChartPane:
        curve = None if preview is None else preview.curves.get("loss")
        if preview is None or curve is None or not (curve.values == curve.values).any():
            told = "" if self.chosen is None else "reading …" if preview is None else "no loss was recorded"
            return ChartPane("loss", (), empty=(told,) if told else ())
        log = bool((curve.values > 0).any())
        return ChartPane(f"loss of {preview.entry.name}", (Series("loss", curve.steps, curve.values),), log)

    def _recorded(self, preview: RunData | None) -> FactsPane:
        if preview is None:
            return FactsPane(())
        problems = tuple(("error", text) for text in preview.problems)
        reason = (("reason", preview.entry.reason),) if preview.entry.reason and not problems else ()
        return FactsPane((*problems, *reason, *preview.facts))

    def rects(self, width: int, height: int) -> dict[str, Rect]:
        """Return where the panes are."""
        alone = self.maximised or tier(width, height) is Tier.SMALL
        return arrange("browser", width, height, self.focus if alone else None)

    def paint(self, width: int, height: int) -> list[Line]:
        """Return the screen without its status line."""
        look = self.host.look
        listed, known = len(self.entries()), len(self.catalogue.entries)
        total = sum(entry.bytes or 0 for entry in self.catalogue.entries.values())
        where = ", ".join(clean(path) for path in self.paths)
        count = f"{known} traces" if known != 1 else "1 trace"
        right = (
            [Span(f"filter: {clean(self.filter.text)}  {listed}/{known}", "label")]
            if self.filter.text
            else []
        )
        name = f"{where}  ({count}{', ' + size_text(total) if total else ''})"
        parts: list[tuple[Rect, Sequence[Line]]] = [
            (Rect(0, 0, width, 1), [chrome.header(name, right, width, look)])
        ]
        panes = self.panes()
        for pane, rect in self.rects(width, height).items():
            draw = Draw(look=look, focused=pane == self.focus, log_y=self._log, cache=self.host.cache)
            parts.append((rect, panes[pane].lines(rect.width, rect.height, draw)))
        if tier(width, height) is not Tier.SMALL:
            parts.append((Rect(0, height - 1, width, 1), [chrome.hints(self.scope, width, look)]))
        return canvas.joined(parts, width, height)

    def status_row(self, height: int, width: int) -> int:
        """Return the row of the status line."""
        return height - 1 if tier(width, height) is Tier.SMALL else height - 2

    def status(self) -> list[Span]:
        """Return the reason of a bad trace, or the progress of a verification."""
        if self._verifying:
            return [Span(f" {self._verifying}  (d cancels)", "warn")]
        entry = self.catalogue.entries.get(self.chosen) if self.chosen is not None else None
        if entry is not None and entry.reason:
            return [Span(f" {entry.name}: {entry.reason}", "bad")]
        return []

    # Actions.

    def act(self, action: str, key: str) -> None:
        """Carry out an action, and paint."""
        if perform(self, action):
            self.host.redraw()

    def click(self, x: int, y: int) -> None:
        """Choose a trace; the chosen one is opened."""
        for name, rect in self.rects(*self.host.screen_size()).items():
            if rect.holds(x, y):
                self.focus = name
                room = rect.height - 3
                at = y - rect.y - 2
                listed = self.entries()
                if name == "traces" and 0 <= at < room:
                    index = self._index(listed)
                    start = min(max(0, index - room // 2), max(0, len(listed) - room))
                    if start + at < len(listed):
                        again = listed[start + at].path == self.chosen
                        self._choose(listed[start + at].path)
                        if again:
                            self.do_enter()
        self.host.redraw()

    def _index(self, listed: Sequence[Entry]) -> int:
        return next((index for index, entry in enumerate(listed) if entry.path == self.chosen), 0)

    def _move(self, count: int) -> None:
        listed = self.entries()
        if listed:
            self._choose(listed[min(max(0, self._index(listed) + count), len(listed) - 1)].path)

    def do_down(self) -> None:
        """Choose the next trace."""
        self._move(1)

    def do_up(self) -> None:
        """Choose the previous trace."""
        self._move(-1)

    def do_page(self, direction: int) -> None:
        """Move by a page."""
        width, height = self.host.screen_size()
        rect = self.rects(width, height).get("traces", Rect(0, 0, width, height))
        self._move(direction * max(1, rect.height - 3))

    def do_first(self) -> None:
        """Choose the first trace."""
        self._move(-(10**9))

    def do_last(self) -> None:
        """Choose the last trace."""
        self._move(10**9)

    def do_enter(self) -> None:
        """Open the chosen trace, unless it is damaged: then say why."""
        if self.chosen is not None:
            self.host.open(self.chosen, [entry.path for entry in self.entries()])

    def do_back(self) -> None:
        """Undo a maximised pane or a filter; else say how to leave."""
        if self.maximised:
            self.maximised = False
        elif self.filter.text:
            self.filter = Filter("", ())
        else:
            self.host.say("q quits")

    def do_filter(self) -> None:
        """Ask for a filter, and apply it while it is typed."""
        self.host.ask("/", self.filter.text, self._filtered, self._filtered)

    def _filtered(self, text: str) -> None:
        try:
            self.filter = parse(text)
        except UsageError as error:
            self.host.say(str(error), "warn")
            return
        listed = self.entries()
        if listed and self.chosen not in [entry.path for entry in listed]:
            self._choose(listed[0].path)

    def do_sort(self) -> None:
        """Sort by the next column."""
        self.order = ORDERS[(ORDERS.index(self.order) + 1) % len(ORDERS)]
        self.host.say(f"sorted by {self.order}")

    def do_mark(self) -> None:
        """Mark the chosen trace, and choose the next one."""
        if self.chosen is not None:
            self.marked ^= {self.chosen}
            self._move(1)

    def do_pin(self) -> None:
        """Keep the chosen trace on top, or no longer."""
        if self.chosen is not None:
            self.pinned ^= {self.chosen}

    def do_doctor(self) -> None:
        """Verify the marked traces, else the chosen one; again to cancel."""
        if self._doctor is not None:
            self._doctor.cancel()
            return
        chosen = [self.chosen] if self.chosen is not None else []
        paths = [entry.path for entry in self.entries() if entry.path in self.marked] or chosen
        if not paths:
            return
        doctor = Doctor(paths)
        self._doctor, self._verifying = doctor, "verifying …"
        self.host.background("doctor", lambda: doctor.run(self._progress), self._verified)

    def _progress(self, text: str) -> None:
        def show() -> None:
            if self._doctor is not None and text != self._verifying:
                self._verifying = text
                self.host.redraw()

        self.host.in_foreground(show)

    def _verified(self, report: Sequence[Line]) -> None:
        self._doctor, self._verifying = None, ""
        self.host.show("verified", report)

    def do_focus(self, direction: int) -> None:
        """Focus the next pane."""
        known = names("browser", Tier.COLUMNS)
        self.focus = known[(known.index(self.focus) + direction) % len(known)]

    def do_maximise(self) -> None:
        """Give the focused pane the whole room, or not."""
        self.maximised = not self.maximised

    def do_log_y(self) -> None:
        """Turn logarithmic loss on or off."""
        pane = self.panes()["loss"]
        now = self._log if self._log is not None else isinstance(pane, ChartPane) and pane.log_y
        self._log = not now

    def do_export(self) -> None:
        """Write the focused pane to files: of the list, the marked traces only if some are."""
        pane = self.panes()[self.focus]
        if isinstance(pane, TracesPane) and self.marked:
            pane = replace(pane, entries=tuple(entry for entry in pane.entries if entry.path in self.marked))
        run = "traces" if self.focus == "traces" or self._preview is None else self._preview.entry.name
        log_y = isinstance(pane, ChartPane) and (pane.log_y if self._log is None else self._log)
        try:
            written = export.export(pane, run, Path.cwd(), log_x=False, log_y=log_y, window=None)
        except OSError as error:
            self.host.say(f"cannot write to {clean(Path.cwd())}: {clean(error.strerror)}", "bad")
            return
        self.host.say(export.told(written), "good")

    def do_yank(self) -> None:
        """Copy the path of the chosen trace."""
        if self.chosen is not None:
            self.host.copy(f"{self.chosen}\n")
            self.host.say(f"copied {clean(self.chosen)}")

    def do_repro(self) -> None:
        """Show the commands that give the numbers of the focused pane."""
        path = self.paths[0] if self.focus == "traces" or self.chosen is None else self.chosen
        lines = repro(self.focus, path)
        self.host.show(
            f"reproduce: {self.focus}",
            [(Span(line, "dim" if line[:1] == "#" else "text"),) for line in lines],
        )

    def do_help(self) -> None:
        """Show the keys."""
        self.host.show(
            "keys of the browser",
            [(Span(f"{shown:<8}", "label"), Span(text)) for shown, text in help_lines("browser")],
        )
