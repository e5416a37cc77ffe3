"""From tones to the terminal's styles: Okabe and Ito's colours, for dark and light backgrounds, or none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache

from rich.style import Style

# Okabe and Ito's eight colours, in an order that keeps the first ones legible on the background.
_DARK = ("#56B4E9", "#E69F00", "#00B386", "#CC79A7", "#F0E442", "#D55E00", "#6FA8DC", "#BBBBBB")
_LIGHT = ("#0072B2", "#D55E00", "#009E73", "#AA4F83", "#996B00", "#56B4E9", "#5F5F00", "#444444")

# Viridis in sixteen levels: even steps of lightness, told apart without colour vision.
_HEAT = (
    *("#440154", "#481A6C", "#472F7D", "#414487", "#39568C", "#31688E", "#2A788E", "#23888E"),
    *("#1F988B", "#22A884", "#35B779", "#54C568", "#7AD151", "#A5DB36", "#D2E21B", "#FDE725"),
)
HEAT_LEVELS = len(_HEAT)

Palette = Mapping[str, Style]


def _palette(
    series: tuple[str, ...], *, dim: str, good: str, warn: str, bad: str, band: str, focus: str
) -> Palette:
    styles = {
        "text": Style(),
        "dim": Style(color=dim),
        "label": Style(color=dim),
        "axis": Style(color=dim),
        "frame": Style(color=dim),
        "cursor": Style(color=dim),
        "title": Style(bold=True),
        "focus": Style(color=focus, bold=True),
        "good": Style(color=good),
        "warn": Style(color=warn),
        "bad": Style(color=bad, bold=True),
        "select": Style(reverse=True),
    }
    styles |= {f"series{index}": Style(color=colour) for index, colour in enumerate(series)}
    styles |= {f"heat{level}": Style(color=colour) for level, colour in enumerate(_HEAT)}
    return styles | {f"band:{tone}": style + Style(bgcolor=band) for tone, style in styles.items()}


def _plain() -> Palette:
    """Return a palette without colours: only bold, dim, reverse and underlined ranges."""
    styles = {f"series{index}": Style() for index in range(8)}
    styles |= {f"heat{level}": Style() for level in range(HEAT_LEVELS)}
    styles |= {tone: Style() for tone in ("text", "label", "good", "warn")}
    styles |= {tone: Style(dim=True) for tone in ("dim", "axis", "frame", "cursor")}
    styles |= {
        "title": Style(bold=True),
        "focus": Style(bold=True),
        "bad": Style(bold=True),
        "select": Style(reverse=True),
    }
    return styles | {f"band:{tone}": style + Style(underline=True) for tone, style in styles.items()}


PALETTES: dict[str, Palette] = {
    "dark": _palette(
        _DARK, dim="#8A8A8A", good="#00B386", warn="#E69F00", bad="#FF6E57", band="#303050", focus="#56B4E9"
    ),
    "light": _palette(
        _LIGHT, dim="#6C6C6C", good="#007A59", warn="#A35200", bad="#C42B00", band="#D7D7F0", focus="#0072B2"
    ),
    "plain": _plain(),
}


def first_palette() -> str:
    """Return the palette to begin with: none under NO_COLOR, else by the background if the terminal tells."""
    if os.environ.get("NO_COLOR") is not None:
        return "plain"
    background = os.environ.get("COLORFGBG", "").rpartition(";")[2]
    return "light" if background in ("7", "15") else "dark"


def style_of(palette: Palette, tone: str) -> Style:
    """Return the style of a tone; never None, which Textual cannot draw under NO_COLOR.

    A picture's tones are colours themselves: `#rrggbb/#rrggbb`, of the character and behind it.
    """
    if tone.startswith("#"):
        return _picture(tone)
    return palette.get(tone) or palette["text"]


@lru_cache(maxsize=4096)
def _picture(tone: str) -> Style:
    above, _, below = tone.partition("/")
    return Style(color=above, bgcolor=below)
