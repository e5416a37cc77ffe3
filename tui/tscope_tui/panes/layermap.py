"""A number of each layer at each step, as a map of layers and steps."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from tscope_tui.data.table import Table, Value
from tscope_tui.panes.box import box
from tscope_tui.panes.heat import ASCII_SHADES, LEVELS, SHADES
from tscope_tui.panes.pane import Draw
from tscope_tui.plot import compact
from tscope_tui.spans import Line, Span, pad, shortened, wrap
from tscope_tui.spans import cells as cells_of


@dataclass(frozen=True, eq=False)
class LayerMapPane:
    """Layers from top to bottom, steps from left to right.

    Attributes:
        layers: Their names.
        step: The steps of the rows (step,).
        values: The number (step, layer).
        first: The first layer that is listed, where none is chosen.
        title: What the number is.
        empty: What to say, and what would provide the data, when there are none.
        chosen: The chosen layer, which is marked; None without one.
        start: The first step that is shown: at row 0, the state before training, nothing has moved.
        log_y: Whether shades are of the logarithm unless the reader chose otherwise.
        name: Of the pane's numbers when they are exported.
        of: What the rows are, several of them.
    """

    layers: tuple[str, ...]
    step: NDArray[np.float64]
    values: NDArray[np.float64]
    first: int = 0
    title: str = "‖JΔθ‖ by layer and step"
    empty: tuple[str, ...] = ()
    chosen: int | None = None
    start: float = 1.0
    log_y: bool = False
    name: str = "contribution"
    of: str = "layers"

    def lines(self, width: int, height: int, draw: Draw) -> list[Line]:
        """Return the map in its frame."""
        look, log = draw.look, self.log_y if draw.log_y is None else draw.log_y
        title = [Span(f"{self.title}{' (log)' if log else ''}", "title")]
        if not self.values.size:
            told: list[Line] = [
                (Span(" " + line, "dim"),) for text in self.empty for line in wrap(text, max(4, width - 4))
            ]
            return box(title, told, width, height, look, focused=draw.focused)
        room, inner = max(1, height - 2), width - 2
        first = self.first if self.chosen is None else max(0, self.chosen - room // 2)
        first = min(first, max(0, len(self.layers) - room))
        shown = self.layers[first : first + room]
        label = min(max(map(len, shown)), max(6, inner // 3))
        wide = max(1, inner - label - 2)
        cells, starts = shrunk(self, wide, draw.window)
        cells = cells[first : first + room]
        if log:
            cells = np.log10(cells, out=np.full_like(cells, np.nan), where=cells > 0)
        finite = cells[np.isfinite(cells)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        shades = ASCII_SHADES if look.ascii else SHADES
        cursor = -1 if draw.cursor is None else int(starts.searchsorted(draw.cursor, side="right")) - 1
        lines: list[Line] = []
        for place, (name, row) in enumerate(zip(shown, cells.tolist(), strict=True), first):
            keys = [
                ("select" if x == cursor else _tone(value, low, high), _shade(value, low, high, shades))
                for x, value in enumerate(row)
            ]
            runs = [(tone, "".join(mark for _, mark in run)) for tone, run in groupby(keys, lambda k: k[0])]
            spans = [Span(text, tone) for tone, text in runs]
            here = place == self.chosen
            mark = (">" if look.ascii else "▸") if here else " "
            text = pad(shortened(name, label, ellipsis=look.ellipsis), label)
            lines.append((Span(f"{mark}{text} ", "focus" if here else "text"), *spans))
        hidden = len(self.layers) - len(shown)
        more = f"j/k: {hidden} more {self.of}, " if hidden > 0 else ""
        ends = [compact(10**end if log else end, 2) for end in (low, high)]
        scale = f"{ends[0]} {shades.strip()} {ends[1]}" if finite.size else "no value in sight"
        both = f"{more}{scale}"
        foot = both if cells_of(both) + 3 <= inner else more.removesuffix(", ") or scale
        return box(title, lines, width, height, look, focused=draw.focused, foot=foot)

    def table(self) -> Table:
        """Return one row a step, a column a layer."""
        columns: dict[str, list[Value]] = {
            "step": [int(step) if step == int(step) else step for step in self.step.tolist()]
        }
        for index, name in enumerate(self.layers):
            columns[name] = self.values[:, index].tolist()
        return Table(self.name, columns)


@functools.lru_cache(maxsize=8)
def shrunk(
    pane: LayerMapPane, columns: int, window: tuple[float, float] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the means over steps (layer, column) of what is in sight, and where each column begins.

    Of fewer rows than columns each row has several. A part without a finite value is NaN. Cached: the cursor
    does not move it.
    """
    low, high = window or (float(pane.step[0]), float(pane.step[-1]))
    inside = np.flatnonzero((pane.step >= max(low, pane.start)) & (pane.step <= high))
    if not inside.size:
        return np.full((len(pane.layers), columns), np.nan), np.linspace(low, high, columns)
    at = np.arange(columns) * inside.size // columns
    edges = np.unique(at)
    values = pane.values[inside]
    known = np.isfinite(values)
    sums = np.add.reduceat(np.where(known, values, 0.0), edges, 0)
    counts = np.add.reduceat(known.astype(float), edges, 0)
    means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return means[np.searchsorted(edges, at)].T, pane.step[inside][at]


def _unit(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _tone(value: float, low: float, high: float) -> str:
    return f"heat{min(LEVELS - 1, int(_unit(value, low, high) * LEVELS))}" if value == value else "dim"


def _shade(value: float, low: float, high: float, shades: str) -> str:
    return shades[min(len(shades) - 1, int(_unit(value, low, high) * len(shades)))] if value == value else "?"
