"""What lies over a stage for a while: a box of text, and the line that is being typed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tscope_tui.layout import Rect
from tscope_tui.panes.box import Look, box
from tscope_tui.spans import Line, Span, cells, wrap


@dataclass
class Overlay:
    """Lines in a box in the middle of the screen; they scroll, and any other key closes it."""

    title: str
    lines: tuple[Line, ...]
    first: int = 0

    def place(self, width: int, height: int, look: Look) -> tuple[Rect, list[Line]]:
        """Return the box and where it lies."""
        inner = max(
            8, min(width - 4, max([cells(self.title) + 6, *(_wide(line) + 2 for line in self.lines)]))
        )
        lines = [part for line in self.lines for part in _wrapped(line, inner - 2)]
        tall = max(3, min(height - 2, len(lines) + 2))
        self.first = min(max(0, self.first), max(0, len(lines) - (tall - 2)))
        shown = [(Span(" "), *line) for line in lines[self.first : self.first + tall - 2]]
        more = len(lines) > tall - 2
        foot = "↑↓ scroll, esc closes" if more else "esc closes"
        if look.ascii:
            foot = foot.replace("↑↓", "up/down")
        rect = Rect(
            max(0, (width - inner - 2) // 2), max(0, (height - tall) // 2), min(width, inner + 2), tall
        )
        title = [Span(self.title, "title")]
        return rect, box(
            title, [look.text(line) for line in shown], rect.width, tall, look, focused=True, foot=foot
        )

    def key(self, key: str) -> bool:
        """Scroll by a key; return whether it stays open."""
        moves = {"down": 1, "j": 1, "up": -1, "k": -1, "pagedown": 10, "space": 10, "pageup": -10}
        if key in moves:
            self.first += moves[key]
            return True
        return key in ("home", "end")


def _wide(line: Line) -> int:
    return sum(cells(span.text) for span in line)


def _wrapped(line: Line, width: int) -> list[Line]:
    """Return a line in parts that fit; what follows its first span is indented under it."""
    if _wide(line) <= width or not line:
        return [line]
    *head, last = line
    used = _wide(tuple(head))
    room = width - used
    if room < width // 3:
        return [(Span(part, last.tone),) for part in wrap("".join(span.text for span in line), width)]
    first, *rest = wrap(last.text, room)
    return [(*head, Span(first, last.tone)), *((Span(" " * used + part, last.tone),) for part in rest)]


@dataclass
class Prompt:
    """A line of text that is being typed."""

    label: str
    text: str
    done: Callable[[str], None]
    changed: Callable[[str], None] | None = None
    at: int = field(default=-1)

    def __post_init__(self) -> None:
        self.at = len(self.text)

    def key(self, key: str, character: str | None) -> bool:
        """Take a key; return whether the prompt stays open."""
        before = self.text
        if key == "enter":
            self.done(self.text)
            return False
        if key in ("escape", "ctrl+c"):
            if self.changed is not None:
                self.changed("")
            return False
        if key == "backspace":
            self.text = self.text[: max(0, self.at - 1)] + self.text[self.at :]
            self.at = max(0, self.at - 1)
        elif key == "ctrl+u":
            self.text, self.at = self.text[self.at :], 0
        elif key in ("left", "right", "home", "end"):
            moved = {"left": self.at - 1, "right": self.at + 1, "home": 0, "end": len(self.text)}
            self.at = min(max(0, moved[key]), len(self.text))
        elif character is not None and character.isprintable():
            self.insert(character)
        if self.changed is not None and self.text != before:
            self.changed(self.text)
        return True

    def insert(self, text: str) -> None:
        """Insert text at the cursor."""
        text = "".join(character for character in text if character.isprintable())
        self.text = self.text[: self.at] + text + self.text[self.at :]
        self.at += len(text)

    def line(self) -> Line:
        """Return the prompt with its cursor."""
        under = self.text[self.at : self.at + 1] or " "
        return (
            Span(f" {self.label}", "label"),
            Span(self.text[: self.at]),
            Span(under, "select"),
            Span(self.text[self.at + 1 :]),
        )
