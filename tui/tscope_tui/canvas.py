"""Putting rectangles of lines on a screen of lines."""

from __future__ import annotations

from collections.abc import Sequence

from tscope_tui.layout import Rect
from tscope_tui.spans import Line, Span, fit, paste


def blank(width: int, height: int) -> list[Line]:
    """Return an empty screen."""
    return [(Span(" " * width),)] * height


def put(screen: list[Line], rect: Rect, lines: Sequence[Line]) -> None:
    """Lay lines over a rectangle of the screen; what lies outside the screen is cut."""
    for index, line in enumerate(lines[: rect.height]):
        y = rect.y + index
        if 0 <= y < len(screen):
            screen[y] = paste(screen[y], rect.x, fit(line, rect.width))


def joined(rects: Sequence[tuple[Rect, Sequence[Line]]], width: int, height: int) -> list[Line]:
    """Return a screen made of rectangles that do not overlap, in one pass from left to right."""
    rows: list[list[tuple[int, int, Line]]] = [[] for _ in range(height)]
    for rect, lines in rects:
        for index, line in enumerate(lines[: rect.height]):
            if 0 <= rect.y + index < height:
                rows[rect.y + index].append((rect.x, rect.width, line))
    screen = []
    for parts in rows:
        spans: list[Span] = []
        at = 0
        for x, wide, part in sorted(parts, key=lambda one: one[0]):
            if x > at:
                spans.append(Span(" " * (x - at)))
            spans.extend(part)
            at = x + wide
        screen.append(tuple(spans) if at == width else fit(spans, width))
    return screen
