"""The one widget: lines in, and only the cells that changed out to the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.segment import Segment
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from tscope_tui.spans import Line, Span, cells
from tscope_tui.terminal.palette import PALETTES, Palette, style_of

# The last defence: whatever reached a line, no control character leaves for the terminal.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class Surface(Widget):
    """Shows lines of spans."""

    DEFAULT_CSS = "Surface { width: 100%; height: 100%; background: transparent; }"

    class Resized(Message):
        """The surface has another size and must be painted anew."""

    class Clicked(Message):
        """A cell was clicked."""

        def __init__(self, x: int, y: int) -> None:
            super().__init__()
            self.x, self.y = x, y

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Line] = []
        self._strips: list[Strip] = []
        self._palette: Palette = PALETTES["dark"]

    def use(self, palette: Palette) -> None:
        """Change the colours of everything."""
        self._palette = palette
        self._strips = [self._strip(line) for line in self.lines]
        self.refresh()

    def show(self, lines: Sequence[Line]) -> None:
        """Show lines; the terminal is sent the cells in which they differ from those before."""
        before, self.lines = self.lines, list(lines)
        if len(before) != len(self.lines) or not self._strips:
            self._strips = [self._strip(line) for line in self.lines]
            self.refresh()
            return
        changed: list[Region] = []
        for y, (old, new) in enumerate(zip(before, self.lines, strict=True)):
            if old is new or old == new:
                continue
            self._strips[y] = self._strip(new)
            start, stop = difference(old, new)
            if stop > start:
                changed.append(Region(start, y, stop - start, 1))
        if changed:
            self.refresh(*changed)

    def _strip(self, line: Line) -> Strip:
        palette = self._palette
        return Strip(
            [
                Segment(_CONTROL.sub("?", span.text), style_of(palette, span.tone))
                for span in line
                if span.text
            ]
        )

    def render_line(self, y: int) -> Strip:
        """Return one line, as Textual asks for it."""
        if y < len(self._strips):
            return self._strips[y]
        return Strip.blank(self.size.width, style_of(self._palette, "text"))

    def on_resize(self, event: events.Resize) -> None:
        """Ask to be painted in the new size."""
        self.post_message(self.Resized())

    def on_click(self, event: events.Click) -> None:
        """Tell which cell was clicked."""
        self.post_message(self.Clicked(event.x, event.y))


def difference(old: Line, new: Line) -> tuple[int, int]:
    """Return the columns from the first to behind the last in which two lines differ."""
    width = sum(cells(span.text) for span in new)
    if sum(cells(span.text) for span in old) != width:
        return 0, max(width, sum(cells(span.text) for span in old))
    start = _same(old, new, reverse=False)
    return start, max(start, width - _same(old, new, reverse=True))


def _same(old: Line, new: Line, *, reverse: bool) -> int:
    """Return the columns at the beginning (or end) that look the same."""
    pairs = zip(_characters(old, reverse), _characters(new, reverse), strict=False)
    count = 0
    for one, other in pairs:
        if one != other:
            break
        count += cells(one[0])
    return count


def _characters(line: Line, reverse: bool) -> list[tuple[str, str]]:
    spans: Sequence[Span] = line[::-1] if reverse else line
    return [
        (character, span.tone) for span in spans for character in (span.text[::-1] if reverse else span.text)
    ]
