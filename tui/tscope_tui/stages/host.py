"""What a stage asks of the program around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from tscope_tui.panes.box import Look
from tscope_tui.spans import Line, Span

if TYPE_CHECKING:
    from tscope_tui.panes.pane import PlotCache

T = TypeVar("T")


class Host(Protocol):
    """The program: threads, timers, the clipboard, and the way to other stages."""

    look: Look
    cache: PlotCache

    def background(self, group: str, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """Run `work` in a thread, and then `done` with its result in the screen's.

        One at a time runs in a group; the last one asked for meanwhile follows.
        """
        ...

    def in_foreground(self, call: Callable[[], None]) -> None:
        """Run `call` soon in the screen's thread; may be called from any thread."""
        ...

    def later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """Run `call` after some seconds; the result cancels it."""
        ...

    def redraw(self) -> None:
        """Paint the stage again, soon."""
        ...

    def say(self, text: str, tone: str = "text") -> None:
        """Show one line of text until the next key."""
        ...

    def show(self, title: str, lines: Sequence[Line]) -> None:
        """Show lines over the stage until a key closes them."""
        ...

    def ask(
        self, label: str, text: str, done: Callable[[str], None], changed: Callable[[str], None] | None
    ) -> None:
        """Ask for a line of text; `changed` is called on the way, `done` at enter."""
        ...

    def open(self, path: Path, siblings: Sequence[Path]) -> None:
        """Open a run."""
        ...

    def back(self) -> None:
        """Return to the stage before this one, or leave the program."""
        ...

    def copy(self, text: str) -> None:
        """Copy to the clipboard of the terminal."""
        ...

    def screen_size(self) -> tuple[int, int]:
        """Return width and height of the screen."""
        ...


class Stage(Protocol):
    """One stage."""

    scope: str

    def start(self) -> None:
        """Begin to read what is shown."""
        ...

    def stop(self) -> None:
        """Cancel what still runs."""
        ...

    def act(self, action: str, key: str) -> None:
        """Carry out an action of the key table that a key stands for."""
        ...

    def click(self, x: int, y: int) -> None:
        """Take a click of the mouse."""
        ...

    def paint(self, width: int, height: int) -> list[Line]:
        """Return every line of the screen, but for the status line."""
        ...

    def status(self) -> list[Span]:
        """Return what the status line says while nothing else is said."""
        ...
