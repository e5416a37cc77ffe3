"""The kernel as a map of its pairs, darker where they share less."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from tscope_tui.data.kernel import Matrices
from tscope_tui.data.table import Table, Value
from tscope_tui.panes.box import box
from tscope_tui.panes.pane import Draw
from tscope_tui.plot import compact
from tscope_tui.spans import Line, Span, wrap

LEVELS = 16
# Density of ink, so that the map is read without colour; sixteen tones refine it.
SHADES = " ·░▒▓█"
ASCII_SHADES = " .:-=+*#%@"
# Beyond these quantiles values are drawn alike: a few diagonal entries would flatten all others.
_QUANTILES = (0.01, 0.99)


@dataclass(frozen=True, eq=False)
class HeatPane:
    """K at the cursor's step, with the chosen pair marked.

    Attributes:
        matrices: What was kept; None without any.
        step: The cursor.
        pair: The chosen row and column.
        difference: Show what has changed since the first kept matrix.
        empty: What to say, and what would provide the data, when there are none.
    """

    matrices: Matrices | None
    step: float
    pair: tuple[int, int] = (0, 0)
    difference: bool = False
    empty: tuple[str, ...] = ()

    def lines(self, width: int, height: int, draw: Draw) -> list[Line]:
        """Return the map in its frame."""
        look, found = draw.look, self.matrices
        if found is None or not found.pairs.size:
            told: list[Line] = [
                (Span(" " + line, "dim"),) for text in self.empty for line in wrap(text, max(4, width - 4))
            ]
            return box([Span("K", "title")], told, width, height, look, focused=draw.focused)
        index = found.at(self.step)
        points = found.pairs.shape[1]
        held = f" + {points - found.train} held out" if points > found.train else ""
        what = f"K @{int(found.step[index]):,}"
        if self.difference:
            what += f" − @{int(found.step[0]):,}"
        if found.order != "label":
            what += f" by {found.order}"
        sets = f"{found.train} train{held}" if found.train else f"{points} of the probe set"
        title = [Span(f"{what}, {sets}", "title")]
        rows, columns = max(1, height - 2), max(1, width - 2)
        values, low, high = shrunk(found, index, rows, columns, difference=self.difference)
        shades = ASCII_SHADES if look.ascii else SHADES
        span = high - low
        unit = np.clip((values - low) / span, 0, 1) if span > 0 else np.full(values.shape, 0.5)
        at = tuple(
            place * size // points for place, size in zip(self._inside(), (rows, columns), strict=True)
        )
        lines: list[Line] = []
        for y, row in enumerate(unit):
            marked = at[1] if y == at[0] else -1
            keys = [
                ("select", "+") if x == marked else _cell(value, shades)
                for x, value in enumerate(row.tolist())
            ]
            lines.append(tuple(Span("".join(mark for _, mark in run), tone) for tone, run in _runs(keys)))
        foot = f"{compact(low, 2)} {shades.strip()} {compact(high, 2)}"
        return box(title, lines, width, height, look, focused=draw.focused, foot=foot)

    def _inside(self) -> tuple[int, int]:
        """Return the chosen pair, within the matrix."""
        points = 0 if self.matrices is None else self.matrices.pairs.shape[1]
        return min(self.pair[0], max(0, points - 1)), min(self.pair[1], max(0, points - 1))

    def table(self) -> Table:
        """Return one row a point: what it is, and its entry with each point."""
        found = self.matrices
        if found is None:
            return Table("kernel", {})
        pairs = found.pairs[found.at(self.step)]
        names: list[Value] = [found.name(point) for point in range(len(pairs))]
        columns: dict[str, list[Value]] = {"point": names}
        for point, values in enumerate(pairs.T):
            columns[f"{point}: {names[point]}"] = values.astype(np.float64).tolist()
        return Table("kernel", columns)

    def at(self) -> str:
        """Return the chosen pair, tab separated."""
        found = self.matrices
        if found is None or not found.pairs.size:
            return "step\trow\tcolumn\tK\n"
        index, (row, column) = found.at(self.step), self._inside()
        value = float(found.pairs[index, row, column])
        cells = (str(int(found.step[index])), found.name(row), found.name(column), str(value))
        return "step\trow\tcolumn\tK\n" + "\t".join(cells) + "\n"


@functools.lru_cache(maxsize=8)
def shrunk(
    matrices: Matrices, index: int, rows: int, columns: int, *, difference: bool = False
) -> tuple[NDArray[np.float64], float, float]:
    """Return the means of one matrix over rows × columns cells, and the range in which they are drawn.

    Cached: it is the same until another step or size is looked at. Of fewer points than cells each point has
    several.
    """
    pairs = np.nan_to_num(matrices.pairs[index].astype(np.float64))
    if difference:
        pairs = pairs - np.nan_to_num(matrices.pairs[0].astype(np.float64))
    down, across = (_starts(pairs.shape[0], count) for count in (rows, columns))
    sums = np.add.reduceat(np.add.reduceat(pairs, np.unique(down), 0), np.unique(across), 1)
    counts = np.outer(*(np.diff(np.append(np.unique(one), len(pairs))) for one in (down, across)))
    means = sums / counts
    values = means[np.unique(down, return_inverse=True)[1]][:, np.unique(across, return_inverse=True)[1]]
    low, high = np.quantile(means, _QUANTILES)
    return values, float(low), float(high)


def _starts(points: int, cells: int) -> NDArray[np.int64]:
    """Return the first point of each cell."""
    return np.arange(cells) * points // cells


def _cell(value: float, shades: str) -> tuple[str, str]:
    shade = shades[min(len(shades) - 1, int(value * len(shades)))]
    return f"heat{min(LEVELS - 1, int(value * LEVELS))}", shade


def _runs(cells: list[tuple[str, str]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return neighbouring cells of one tone together."""
    return [(tone, list(run)) for tone, run in groupby(cells, key=lambda cell: cell[0])]
