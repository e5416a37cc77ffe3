"""What a view is: the arrays of a result's table, chart and figure, and the words that read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tscope_format import Result

from tscope_cli.numerals import percent


@dataclass(frozen=True)
class Curve:
    """One series along the steps.

    Attributes:
        array: Its name.
        title: What it is called on the screen.
        share: It is shown in percent.
        optional: It is left out where it is zero throughout.
        column: Of an array with a second dimension, which of its entries.
    """

    array: str
    title: str
    share: bool = False
    optional: bool = False
    column: int | None = None


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: What it shows.
        curves: Its curves.
        log: Whether y is logarithmic.
        each: An array with a second dimension, whose largest entries are a curve each.
    """

    title: str
    curves: tuple[Curve, ...] = ()
    log: bool = False
    each: str = ""


@dataclass(frozen=True)
class View:
    """How a metric is shown.

    Attributes:
        coordinate: The array along which its curves go.
        columns: Of the table.
        panels: Of the figure; the first is the chart in the terminal.
        reading: What the result says, in words.
        abscissa: What the coordinate is called in the table.
        axis: What it is called in the figure.
        rows: At most so many are in the table.
    """

    coordinate: str
    columns: tuple[Curve, ...]
    panels: tuple[Panel, ...]
    reading: Callable[[Result], tuple[str, ...]]
    abscissa: str = "step"
    axis: str = "step"
    rows: int = 12

    def place(self, value: float) -> str:
        """Return a value of the coordinate as text: a share in percent, a fraction, or a step."""
        if self.coordinate == "share":
            return percent(value)
        return f"{value:.3f}" if self.coordinate == "alpha" else f"{int(value):,}"
