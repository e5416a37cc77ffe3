"""The program on the terminal: keys to stages, stages to the surface, work to threads."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from tscope_format.errors import clean

from tscope_tui import canvas
from tscope_tui.data.entry import is_trace
from tscope_tui.keys import Scope, action_of, keys_of
from tscope_tui.panes.box import Look
from tscope_tui.spans import Line, Span, fit
from tscope_tui.stages import chrome
from tscope_tui.stages.host import T
from tscope_tui.terminal.driver import TerminalDriver
from tscope_tui.terminal.overlay import Overlay, Prompt
from tscope_tui.terminal.palette import PALETTES, first_palette
from tscope_tui.terminal.surface import Surface
from tscope_tui.terminal.threads import Threads

if TYPE_CHECKING:
    from tscope_tui.panes.pane import PlotCache
    from tscope_tui.stages.browser import BrowserStage
    from tscope_tui.stages.run import RunStage


class TscopeApp(App[None]):
    """The host of the stages."""

    CSS = "Screen { background: transparent; overflow: hidden; }"
    TITLE = "tscope"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "leave", show=False, priority=True),
        Binding("ctrl+q", "leave", show=False, priority=True),
    ]

    def __init__(self, paths: Sequence[Path], *, ascii: bool = False, mouse: bool = False) -> None:
        # Textual removes NO_COLOR from the environment, so it is read first.
        self.colours = first_palette()
        super().__init__(driver_class=TerminalDriver, ansi_color=True)
        self.animation_level = "none"
        self.look = Look(ascii, self.colours != "plain")
        # The palette is Textual's, and draws more than ASCII.
        self.use_command_palette = not ascii
        self.mouse = mouse
        self.surface = Surface()
        self._threads = Threads(self.call_later)
        self._paths = tuple(paths)
        self._stages: list[BrowserStage | RunStage] = []
        self._overlay: Overlay | None = None
        self._prompt: Prompt | None = None
        self._said: Span | None = None
        self._dirty = False
        self._started = False

    # Textual.

    def compose(self) -> ComposeResult:
        """Put the surface on the screen."""
        yield self.surface

    def on_mount(self) -> None:
        """Leave in good order when the process is told to end."""
        self.surface.use(PALETTES[self.colours])
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, partial(self._end, 128 + number))

    def _end(self, code: int) -> None:
        for stage in self._stages:
            stage.stop()
        self.exit(return_code=code)

    def _begin(self) -> None:
        """Open the first stage; its modules and numpy load slowly, so the first frame comes before them."""
        from tscope_tui.panes.pane import PlotCache
        from tscope_tui.stages.browser import BrowserStage

        self.cache: PlotCache = PlotCache()
        self._stages = [BrowserStage(self, self._paths)]
        if len(self._paths) == 1 and is_trace(self._paths[0]):
            self.open(self._paths[0], ())
            return
        self.paint()
        self.call_after_refresh(self.stage.start)

    @property
    def scope(self) -> Scope:
        """The keys that work now."""
        return self.stage.scope if self._stages else "browser"

    @property
    def stage(self) -> BrowserStage | RunStage:
        """The stage that is shown."""
        return self._stages[-1]

    def on_resize(self, event: events.Resize) -> None:
        """Hand a new size of the terminal to the screen.

        Textual does that from a timer of 8 ms, which it skips, and with it every later size, when the process
        was not scheduled for as long: on a busy machine the old layout stayed on a smaller terminal.
        """
        if self._started:
            self.screen.post_message(events.Resize(event.size, event.virtual_size))

    def on_surface_resized(self) -> None:
        """Paint in the new size; the first time, begin after that."""
        self.paint()
        if not self._started:
            self._started = True
            self.call_after_refresh(self._begin)

    def on_surface_clicked(self, event: Surface.Clicked) -> None:
        """Hand a click to the stage."""
        if self._overlay is not None:
            self._overlay = None
            self.redraw()
        elif self._prompt is None and self._stages:
            self.stage.click(event.x, event.y)

    def on_key(self, event: events.Key) -> None:
        """Hand a key to what is on top: the box of text, the prompt, the stage."""
        if len(self.screen_stack) > 1:
            # The palette is open, and takes its own keys.
            return
        event.stop()
        if self._prompt is not None:
            if not self._prompt.key(event.key, event.character):
                self._prompt = None
            self.redraw()
            return
        if self._overlay is not None:
            if not self._overlay.key(event.key):
                self._overlay = None
            self.redraw()
            return
        action = action_of(self.scope, event.key)
        if action is not None and (self._stages or action == "quit"):
            self.perform(action, event.key)

    def on_paste(self, event: events.Paste) -> None:
        """Paste into the prompt."""
        if self._prompt is not None:
            self._prompt.insert(event.text)
            self.redraw()

    def perform(self, action: str, key: str = "") -> None:
        """Carry out an action of the key table."""
        self._said = None
        own = {"quit": self.action_leave, "mouse": self._toggle_mouse, "theme": self._next_theme}
        if action in own:
            own[action]()
        else:
            self.stage.act(action, key)
        self.redraw()

    def action_leave(self) -> None:
        """Quit."""
        self._end(0)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Offer every key of the table in the command palette."""
        for key in keys_of(self.scope):
            yield SystemCommand(f"{key.help}", key.shown, partial(self.perform, key.action, key.keys[0]))

    # Painting.

    def redraw(self) -> None:
        """Paint soon, once for all that ask."""
        if not self._dirty and self._started:
            self._dirty = True
            self.call_later(self.paint)

    def paint(self) -> None:
        """Paint the stage, the status line, and what lies over them."""
        self._dirty = False
        width, height = self.size
        if width < 1 or height < 1:
            return
        if not self._stages:
            self.surface.show(self._cover(width, height))
            return
        lines = self.stage.paint(width, height)
        row = self.stage.status_row(height, width)
        if 0 <= row < height:
            lines[row] = self._status(width)
        if self._overlay is not None:
            canvas.put(lines, *self._overlay.place(width, height, self.look))
        self.surface.show(lines)

    def _cover(self, width: int, height: int) -> list[Line]:
        """Return the frame before the first stage."""
        where = ", ".join(clean(path) for path in self._paths)
        head = chrome.header(where, [Span("reading …", "dim")], width, self.look)
        blank: Line = (Span(" " * width),)
        return [head, *[blank] * (height - 2), chrome.hints(self.scope, width, self.look)][:height]

    def _status(self, width: int) -> Line:
        if self._prompt is not None:
            return fit(self._prompt.line(), width)
        spans = [self._said] if self._said is not None else self.stage.status()
        return self.look.text(fit(spans, width, ellipsis=self.look.ellipsis))

    # Host.

    def background(self, group: str, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """Run `work` in a thread, then `done` here."""
        self._threads.run(group, work, done)

    def in_foreground(self, call: Callable[[], None]) -> None:
        """Run `call` here, from any thread."""
        self.call_later(call)

    def later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """Run `call` after some seconds (Textual's own timers skip a call that would come late)."""
        return asyncio.get_running_loop().call_later(seconds, self.call_later, call).cancel

    def say(self, text: str, tone: str = "text") -> None:
        """Show one line of text until the next key."""
        self._said = Span(f" {text}", tone)
        self.redraw()

    def show(self, title: str, lines: Sequence[Line]) -> None:
        """Show lines over the stage."""
        self._overlay = Overlay(title, tuple(lines))
        self.redraw()

    def ask(
        self, label: str, text: str, done: Callable[[str], None], changed: Callable[[str], None] | None
    ) -> None:
        """Ask for a line of text."""
        self._prompt = Prompt(label, text, done, changed)
        self.redraw()

    def open(self, path: Path, siblings: Sequence[Path]) -> None:
        """Open a run on top of the browser."""
        from tscope_tui.stages.run import RunStage

        for stage in self._stages:
            stage.stop()
        self._stages = [self._stages[0], RunStage(self, path, siblings)]
        self.paint()
        self.call_after_refresh(self.stage.start)

    def back(self) -> None:
        """Return to the browser."""
        if len(self._stages) > 1:
            self._stages.pop().stop()
            self.paint()
            self.stage.start()

    def copy(self, text: str) -> None:
        """Copy by OSC 52."""
        self.copy_to_clipboard(text)

    def screen_size(self) -> tuple[int, int]:
        """Return width and height."""
        return self.size.width, self.size.height

    def _toggle_mouse(self) -> None:
        self.mouse = not self.mouse
        driver = self._driver
        if isinstance(driver, TerminalDriver):
            driver.set_mouse(self.mouse)
        self.say(f"mouse {'on' if self.mouse else 'off'}")

    def _next_theme(self) -> None:
        names = list(PALETTES)
        self.colours = names[(names.index(self.colours) + 1) % len(names)]
        self.surface.use(PALETTES[self.colours])
        # A picture is drawn in ink where there are no colours.
        self.look = replace(self.look, colour=self.colours != "plain")
        self.say(f"theme {self.colours}")


def run(paths: Sequence[Path], *, ascii: bool, mouse: bool) -> int:
    """Run the program; return its exit code."""
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    app = TscopeApp(paths, ascii=ascii, mouse=mouse)
    app.run(mouse=mouse)
    return app.return_code or 0
