"""The list of traces: a table in the browser, names and states in a side bar."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tscope_tui.data.entry import Entry, Order
from tscope_tui.data.status import State, age, size
from tscope_tui.data.table import Table
from tscope_tui.panes.box import box
from tscope_tui.panes.pane import Draw
from tscope_tui.plot import compact
from tscope_tui.spans import Line, Span, cells, fit, pad

# (title, width, value), from the left; the name takes what is left over.
_COLUMNS: tuple[tuple[str, int, Callable[[Entry], str]], ...] = (
    ("state", 11, lambda entry: told(entry)),
    ("steps", 7, lambda entry: "-" if entry.steps is None else compact(entry.steps)),
    ("loss", 8, lambda entry: _told_number(entry.loss)),
    ("p_train", 7, lambda entry: _told_number(entry.p_train)),
    ("p_test", 6, lambda entry: _told_number(entry.p_test)),
    ("size", 5, lambda entry: "-" if entry.bytes is None else size(entry.bytes)),
    ("age", 4, lambda entry: age(entry.age)),
)


_OF_RESULTS = ("p_train", "p_test")
# The least that a name is cut to before columns are left out.
_NAME = 14


def _room(columns: Sequence[tuple[str, int, object]], inner: int) -> int:
    """Return how many characters some columns leave to the name."""
    return inner - 4 - sum(wide + 1 for _, wide, _ in columns)


@dataclass(frozen=True)
class TracesPane:
    """Traces, one a line, around the selected one.

    Attributes:
        entries: What is listed, in order.
        selected: The index of the chosen entry.
        pinned: Traces kept on top.
        marked: Traces marked for a common action.
        order: How the list is sorted.
        title: What is listed.
        empty: What to say when nothing is.
        compact: Only name and state.
    """

    entries: tuple[Entry, ...]
    selected: int = 0
    pinned: frozenset[Path] = frozenset()
    marked: frozenset[Path] = frozenset()
    order: Order = "age"
    title: str = "traces"
    empty: tuple[str, ...] = ()
    compact: bool = False

    def lines(self, width: int, height: int, draw: Draw) -> list[Line]:
        """Return the list in its frame."""
        inner = max(1, width - 2)
        titles = () if self.compact else (self._heads(inner),)
        room = max(1, height - 2 - len(titles))
        start = min(max(0, self.selected - room // 2), max(0, len(self.entries) - room))
        rows = [
            self._row(entry, start + index == self.selected, inner, draw)
            for index, entry in enumerate(self.entries[start : start + room])
        ]
        if not rows:
            rows = [(Span(f" {text}", "dim"),) for text in self.empty]
        hidden = len(self.entries) - room
        foot = f"{hidden} more" if hidden > 0 else ""
        if not self.compact and self.entries:
            foot = "  ".join(part for part in ("◆ pinned  ◇ marked", f"sorted by {self.order}", foot) if part)
        title = [Span(self.title, "title")]
        return box(title, [*titles, *rows], width, height, draw.look, focused=draw.focused, foot=foot)

    def _heads(self, inner: int) -> Line:
        shown = self._shown(inner)
        name = max(4, _room(shown, inner))
        text = f"    {pad('name', name)}" + "".join(
            f" {head:>{wide}}" if index else f" {head:<{wide}}" for index, (head, wide, _) in enumerate(shown)
        )
        return (Span(text, "label"),)

    def _row(self, entry: Entry, chosen: bool, inner: int, draw: Draw) -> Line:
        pin = "◆" if entry.path in self.pinned else " "
        mark = "◇" if entry.path in self.marked else " "
        tone = "select" if chosen else "text"
        lead = f"{'▸' if chosen else ' '}{pin}{mark} "
        cut = draw.look.ellipsis
        if self.compact:
            what = told(entry)
            room = max(4, inner - 4 - cells(what) - 1)
            return (
                Span(lead + pad(entry.name, room, ellipsis=cut), tone),
                Span(f" {what}", _tone(entry, tone)),
            )
        shown = self._shown(inner)
        name = max(4, _room(shown, inner))
        spans = [Span(lead + pad(entry.name, name, ellipsis=cut), tone)]
        if entry.state is State.BAD:
            rest = inner - 4 - name
            spans.append(
                Span(pad(f" BAD  {entry.reason}", rest, ellipsis=cut), "select" if chosen else "bad")
            )
            return fit(spans, inner)
        for index, (_, wide, value) in enumerate(shown):
            text = pad(value(entry), wide) if index == 0 else f"{value(entry):>{wide}}"
            spans += [Span(" ", tone), Span(text, _tone(entry, tone) if index == 0 else tone)]
        return fit(spans, inner, tone=tone)

    def _shown(self, inner: int) -> tuple[tuple[str, int, Callable[[Entry], str]], ...]:
        """Return the columns that leave the name some room; effective parameters go first, then the right.

        Effective parameters have columns once one of the traces has a result.
        """
        shown = [column for column in _COLUMNS if column[0] not in _OF_RESULTS]
        if not all(math.isnan(entry.p_train) for entry in self.entries) and _room(_COLUMNS, inner) >= _NAME:
            return _COLUMNS
        while len(shown) > 1 and _room(shown, inner) < _NAME:
            shown.pop()
        return tuple(shown)

    def table(self) -> Table:
        """Return everything that is known of every listed trace."""
        entries = self.entries
        return Table(
            "traces",
            {
                "name": [entry.name for entry in entries],
                "path": [str(entry.path) for entry in entries],
                "state": [entry.state.value for entry in entries],
                "steps": [-1 if entry.steps is None else entry.steps for entry in entries],
                "loss": [entry.loss for entry in entries],
                "p_train": [entry.p_train for entry in entries],
                "p_test": [entry.p_test for entry in entries],
                "bytes": [-1 if entry.bytes is None else entry.bytes for entry in entries],
                "reason": [entry.reason for entry in entries],
            },
        )


def _told_number(value: float) -> str:
    return "-" if math.isnan(value) else compact(value)


def _tone(entry: Entry, tone: str) -> str:
    return tone if tone == "select" else entry.state.tone


def told(entry: Entry) -> str:
    """Return the state in words: live and stalled runs with the age of their last commit."""
    if entry.state is State.LIVE:
        return "● live"
    if entry.state is State.STALLED:
        return f"stalled {age(entry.age)}"
    return str(entry.state.value)
