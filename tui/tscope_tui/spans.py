"""Styled text without a terminal: a line is a tuple of spans, each with a tone that the palette colours."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """Characters of one tone. Tones are the keys of `tscope_tui.terminal.palette`."""

    text: str
    tone: str = "text"


Line = tuple[Span, ...]


def cells(text: str) -> int:
    """Return how many columns `text` takes in a terminal."""
    if text.isascii():
        return len(text)
    return sum(_cells_of(character) for character in text)


def _cells_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def crop(text: str, width: int, *, ellipsis: str = "…") -> str:
    """Return the beginning of `text` that fits `width` columns, with an ellipsis where something was cut."""
    if cells(text) <= width:
        return text
    room = width - len(ellipsis)
    if room < 1:
        return "".join(character for character in text if character.isascii())[: max(0, width)]
    used, end = 0, 0
    for end, character in enumerate(text):  # noqa: B007 - `end` is read after the loop
        used += _cells_of(character)
        if used > room:
            break
    return text[:end] + ellipsis


def shortened(name: str, width: int, *, ellipsis: str = "…") -> str:
    """Return the name of a module that fits `width` columns.

    The modules that it is in give way to their first letters, the outermost first (`blocks.0.mlp` becomes
    `b.0.mlp`), and then its beginning to an ellipsis: names differ at their ends.
    """
    parts = name.split(".")
    for place, part in enumerate(parts[:-1]):
        if cells(".".join(parts)) <= width:
            break
        # Numbers, and what is between two names, stay.
        parts[place] = part[0] if part.isidentifier() else part
    name = ".".join(parts)
    if cells(name) <= width:
        return name
    start = len(name)
    while start and cells(name[start - 1 :]) <= width - len(ellipsis):
        start -= 1
    return (ellipsis + name[start:])[: max(0, width)]


def pad(text: str, width: int, *, ellipsis: str = "…") -> str:
    """Return `text` cropped or filled with spaces to exactly `width` columns."""
    text = crop(text, width, ellipsis=ellipsis)
    return text + " " * (width - cells(text))


def fit(spans: Iterable[Span], width: int, *, tone: str = "text", ellipsis: str = "…") -> Line:
    """Return a line of exactly `width` columns: cropped, or filled with spaces of `tone`."""
    line: list[Span] = []
    left = width
    for span in spans:
        need = cells(span.text)
        if need > left:
            line.append(Span(pad(span.text, left, ellipsis=ellipsis), span.tone))
            return tuple(line)
        if need:
            line.append(span)
            left -= need
    if left > 0:
        line.append(Span(" " * left, tone))
    return tuple(line)


def between(left: Sequence[Span], right: Sequence[Span], width: int, *, ellipsis: str = "…") -> Line:
    """Return a line with one part at either end; the left one gives way when both do not fit."""
    room = width - sum(cells(span.text) for span in right)
    if room < 8:
        return fit(left, width, ellipsis=ellipsis)
    return (*fit(left, room, ellipsis=ellipsis), *right)


def plain(line: Line) -> str:
    """Return the characters of a line."""
    return "".join(span.text for span in line)


def paste(line: Line, at: int, patch: Line) -> Line:
    """Return `line` with `patch` laid over it from column `at` on."""
    width = sum(cells(span.text) for span in patch)
    return (*_slice(line, 0, at), *patch, *_slice(line, at + width, None))


def _slice(line: Line, start: int, stop: int | None) -> list[Span]:
    """Return columns start … stop; half of a wide character becomes a space."""
    out: list[Span] = []
    column = 0
    for span in line:
        end = column + cells(span.text)
        if end > start and (stop is None or column < stop):
            if column >= start and (stop is None or end <= stop):
                out.append(span)
            else:
                out.append(
                    Span(
                        _columns(span.text, start - column, None if stop is None else stop - column),
                        span.tone,
                    )
                )
        column = end
    return out


def _columns(text: str, start: int, stop: int | None) -> str:
    out, column = "", 0
    for character in text:
        width = _cells_of(character)
        inside = column >= start and (stop is None or column + width <= stop)
        cut = not inside and column + width > start and (stop is None or column < stop)
        out += character if inside else " " if cut else ""
        column += width
    return out


def wrap(text: str, width: int) -> list[str]:
    """Return `text` in lines of at most `width` columns, broken at spaces where there are some."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        while cells(word) > width:
            room = width - cells(line) - 1 if line else width
            if room < max(2, width // 2):
                lines.append(line)
                line, room = "", width
            end = 0
            while end < len(word) and cells(word[: end + 1]) <= room:
                end += 1
            # A single character wider than the line still has to go somewhere.
            end = max(1, end)
            lines.append(f"{line} {word[:end]}" if line else word[:end])
            line, word = "", word[end:]
        if not line:
            line = word
        elif cells(line) + 1 + cells(word) <= width:
            line += f" {word}"
        else:
            lines.append(line)
            line = word
    return [*lines, line] if line or not lines else lines
