"""Plain-text tables: columns as wide as their content, the loosest one cut to fit the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tscope_format.errors import clean


@dataclass(frozen=True)
class Column:
    """A column: its title, whether it holds numbers (set flush right), whether it may be cut to fit."""

    title: str
    number: bool = True
    elastic: bool = False


def render(
    columns: Sequence[Column], rows: Sequence[Sequence[object]], width: int | None = None
) -> list[str]:
    """Return the lines of a table, title first.

    Args:
        columns: One a column.
        rows: The cells, cleaned of control characters here; `len(columns)` each.
        width: Cut elastic columns so that lines fit; None leaves them whole.
    """
    cells = [[column.title for column in columns], *([clean(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    if width is not None:
        _shrink(columns, widths, width)
    return [_line(columns, row, widths) for row in cells]


def facts(pairs: Sequence[tuple[str, str]], indent: int = 2) -> list[str]:
    """Return `label  value` lines with the values in one column; an empty label continues the one above."""
    longest = max((len(label) for label, _ in pairs), default=0)
    return [f"{'':{indent}}{clean(label):{longest}}  {clean(value)}".rstrip() for label, value in pairs]


def _shrink(columns: Sequence[Column], widths: list[int], width: int) -> None:
    """Narrow the elastic columns of `widths` in place until the line fits, to 8 characters at least."""
    while (excess := sum(widths) + 2 * (len(widths) - 1) - width) > 0:
        loose = [i for i, column in enumerate(columns) if column.elastic and widths[i] > 8]
        if not loose:
            return
        widest = max(loose, key=widths.__getitem__)
        others = [widths[i] for i in loose if i != widest]
        floor = max(8, min(max(others, default=8), widths[widest] - 1))
        widths[widest] = max(floor, widths[widest] - excess)


def _line(columns: Sequence[Column], row: Sequence[str], widths: Sequence[int]) -> str:
    parts = []
    for column, cell, width in zip(columns, row, widths, strict=True):
        shown = cell if len(cell) <= width else cell[: width - 1] + "…"
        parts.append(f"{shown:>{width}}" if column.number else f"{shown:<{width}}")
    return "  ".join(parts).rstrip()
