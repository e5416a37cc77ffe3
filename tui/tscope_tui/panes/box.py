"""The frame around a pane."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tscope_tui.spans import Line, Span, cells, fit


@dataclass(frozen=True)
class Look:
    """How everything on the screen is drawn.

    Attributes:
        ascii: Only ASCII characters.
        colour: Colours are shown, so that they may carry meaning.
    """

    ascii: bool = False
    colour: bool = True

    @property
    def ellipsis(self) -> str:
        """What stands for cut text."""
        return "~" if self.ascii else "…"

    def text(self, line: Line) -> Line:
        """Return a line that the look can show: in ASCII, what is not becomes its nearest, else `?`."""
        if not self.ascii:
            return line
        return tuple(Span(to_ascii(span.text), span.tone) for span in line)


_NEAREST = str.maketrans(
    {
        "·": "|", "…": "~", "–": "-", "—": "-", "−": "-", "×": "x", "‖": "|", "Δ": "d", "θ": "w", "Σ": "S",
        "│": "|", "─": "-", "┌": "+", "┐": "+", "└": "+", "┘": "+", "├": "+", "┤": "+", "┬": "+", "┴": "+",
        "━": "=", "┏": "+", "┓": "+", "┊": "|", "◆": "#", "◇": "o", "▸": ">", "●": "*", "←": "<", "→": ">",
        "↑": "^", "↓": "v", "‹": "<", "›": ">", "⇧": "^", "╌": "-", "┄": ".", "╍": "=", "≤": "<", "≥": ">",
        "▲": "^", "▼": "v", "↵": "|", "₀": "0", "≈": "~", "ε": "e", "²": "2", "ₜ": "t", "λ": "l",
        "∇": "g", "α": "a",
        "σ": "s", "Λ": "L", "₁": "1",
    }
)  # fmt: skip


def to_ascii(text: str) -> str:
    """Return `text` in ASCII, one character for each column."""
    if text.isascii():
        return text
    nearest = text.translate(_NEAREST)
    return "".join(character if character.isascii() else "?" * cells(character) for character in nearest)


def box(
    title: Sequence[Span],
    lines: Sequence[Line],
    width: int,
    height: int,
    look: Look,
    *,
    focused: bool = False,
    foot: str = "",
) -> list[Line]:
    """Return exactly `height` lines of `width` columns: a frame with a title, around the lines.

    The focused pane has a heavy upper edge, so that it is seen without colour.
    """
    if width < 4 or height < 2:
        return [fit(line, width) for line in list(lines)[:height]]
    tone = "focus" if focused else "frame"
    inner = width - 2
    head = fit(title, max(0, inner - 3), tone=tone, ellipsis=look.ellipsis) if title else ()
    used = sum(
        cells(span.text.rstrip()) if index == len(head) - 1 else cells(span.text)
        for index, span in enumerate(head)
    )
    head = fit(head, used, tone=tone) if used else ()
    left, edge, right = ("┏", "━", "┓") if focused else ("┌", "─", "┐")
    if look.ascii:
        left, edge, right = ("#", "=", "#") if focused else ("+", "-", "+")
    rest = inner - used - 3 if used else inner
    top: Iterable[Span] = (
        (Span(f"{left}{edge} ", tone), *head, Span(" " + edge * rest + right, tone))
        if used
        else (Span(left + edge * inner + right, tone),)
    )
    body = [
        (Span("│", "frame"), *fit(line, inner, ellipsis=look.ellipsis), Span("│", "frame"))
        for line in lines[: height - 2]
    ]
    body += [(Span("│", "frame"), Span(" " * inner), Span("│", "frame"))] * (height - 2 - len(body))
    note = f" {foot} " if foot and cells(foot) + 3 <= inner else ""
    bottom = Span(
        "└" + "─" * (inner - cells(note) - 1) + note + "─┘" if note else "└" + "─" * inner + "┘", "frame"
    )
    return [look.text(line) for line in (tuple(top), *body, (bottom,))]
