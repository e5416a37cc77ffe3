"""A host for stages without a terminal: work is done at once, timers wait until they are run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tscope_tui.panes.box import Look
from tscope_tui.panes.pane import PlotCache
from tscope_tui.spans import Line, plain


class FakeHost:
    def __init__(self, width: int = 80, height: int = 24, *, ascii: bool = False) -> None:
        self.look, self.cache = Look(ascii), PlotCache()
        self.dimensions = (width, height)
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.said: list[str] = []
        self.shown: list[tuple[str, list[str]]] = []
        self.opened: list[Path] = []
        self.copied: list[str] = []
        self.asked: tuple[str, Callable[[str], None]] | None = None
        self.left = 0
        self.held: list[Callable[[], None]] | None = None

    def background(self, group: str, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        if self.held is None:
            done(work())
        else:
            self.held.append(lambda: done(work()))

    def in_foreground(self, call: Callable[[], None]) -> None:
        call()

    def later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        entry = (seconds, call)
        self.timers.append(entry)
        return lambda: self.timers.remove(entry) if entry in self.timers else None

    def run_timers(self) -> None:
        waiting, self.timers = self.timers, []
        for _, call in waiting:
            call()

    def redraw(self) -> None:
        pass

    def say(self, text: str, tone: str = "text") -> None:
        self.said.append(text)

    def show(self, title: str, lines: Sequence[Line]) -> None:
        self.shown.append((title, [plain(line) for line in lines]))

    def ask(self, label: str, text: str, done: Callable[[str], None], changed: object) -> None:
        self.asked = label, done

    def open(self, path: Path, siblings: Sequence[Path]) -> None:
        self.opened.append(path)

    def back(self) -> None:
        self.left += 1

    def copy(self, text: str) -> None:
        self.copied.append(text)

    def screen_size(self) -> tuple[int, int]:
        return self.dimensions


def screen(stage: Any, host: FakeHost) -> str:
    """Return what a stage paints, with its status line."""
    from tscope_tui.spans import fit

    width, height = host.dimensions
    lines = stage.paint(width, height)
    lines[stage.status_row(height, width)] = host.look.text(fit(stage.status(), width))
    assert len(lines) == height
    return "\n".join(plain(line).rstrip() for line in lines)
