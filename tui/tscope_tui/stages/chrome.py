"""The lines above and below the panes: header, tabs, hints."""

from __future__ import annotations

from collections.abc import Sequence

from tscope_tui.keys import Scope, keys_of
from tscope_tui.panes.box import Look
from tscope_tui.spans import Line, Span, between, cells, fit

TABS = (
    ("1", "Overview", "overview"),
    ("2", "Telescoping", "telescoping"),
    ("3", "EffParam", "effective"),
    ("4", "Kernel", "kernel"),
    ("5", "Average", "averaging"),
    ("6", "Layers", "layers"),
    ("7", "Examples", "examples"),
)
# Views that a tab leads to, and then on: another kernel, forks, regime and collapse, one of the examples.
PARTS = {
    "boosting": "kernel",
    "forks": "averaging",
    "along": "averaging",
    "regime": "layers",
    "collapse": "layers",
    "example": "examples",
}


def header(name: str, right: Sequence[Span], width: int, look: Look) -> Line:
    """Return the first line: the program, what is shown, and its state."""
    left = [Span(" tscope", "title"), Span(f"  {name}")]
    return look.text(between(left, [*right, Span(" ")], width, ellipsis=look.ellipsis))


def tabs(view: str, width: int, look: Look) -> Line:
    """Return the views, the present one in brackets."""
    spans: list[Span] = []
    view = PARTS.get(view, view)
    for key, name, own in TABS:
        text = f"{key} {name}"
        spans.append(
            Span(
                f"[{text}]" if own == view else f" {text} ",
                "focus" if own == view else "text",
            )
        )
    if sum(cells(span.text) for span in spans) > width:
        spans = [Span(span.text.strip() + " ", span.tone) for span in spans]
    return look.text(fit(spans, width, ellipsis=look.ellipsis))


def tab_at(x: int, view: str) -> str | None:
    """Return the key of the tab under a column."""
    at = 0
    for key, name, _ in TABS:
        at += len(f" {key} {name} ")
        if x < at:
            return key
    return None


def hints(scope: Scope, width: int, look: Look) -> Line:
    """Return as many keys with a word as fit; help comes first of all."""
    # What only this stage can do comes before what every stage can; help and quit always fit.
    known = sorted((key for key in keys_of(scope) if key.hint), key=lambda key: len(key.scopes))
    known.sort(key=lambda key: key.action not in ("help", "quit"))
    chosen, used = [], 1
    for key in known:
        need = cells(key.shown) + 1 + cells(key.hint) + 2
        if used + need <= width:
            chosen.append(key)
            used += need
    spans: list[Span] = [Span(" ")]
    for key in sorted(chosen, key=lambda key: key.action in ("help", "quit")):
        spans += [Span(key.shown, "label"), Span(f" {key.hint}  ", "dim")]
    return look.text(fit(spans, width, ellipsis=look.ellipsis))
