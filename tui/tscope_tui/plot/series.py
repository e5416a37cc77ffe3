"""One curve of a chart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Dash = Literal["solid", "dash", "dot", "dashdot"]
DASHES: tuple[Dash, ...] = get_args(Dash)

# (on, off, on, off) lengths along the curve in braille dots; None draws everything.
PATTERN: dict[Dash, tuple[int, int, int, int] | None] = {
    "solid": None,
    "dash": (5, 3, 5, 3),
    "dot": (1, 2, 1, 2),
    "dashdot": (6, 2, 1, 2),
}
GLYPH: dict[Dash, str] = {"solid": "━", "dash": "╌", "dot": "┄", "dashdot": "╍"}
# In ASCII every curve has a mark of its own, by its place in the chart.
ASCII_MARKS = "*+ox#@%&"


@dataclass(frozen=True, eq=False)
class Series:
    """One curve: `y` (point,) over `x` (point,).

    Points are drawn in the order of `x`. NaN breaks the line; infinities, and values that are not positive on
    a logarithmic axis, are left out and counted in the notes of the chart.

    Args:
        label: Shown in the legend; its first free letter marks the end of the curve.
        x: Coordinates (point,), any real dtype.
        y: Values (point,), any real dtype.
        dash: How the curve is dashed, so that colour is never the only difference.
        hue: Its colour's number, so that one thing has one colour in every chart; by default its place.

    Raises:
        ValueError: If `x` and `y` are not one-dimensional arrays of one length.
    """

    label: str
    x: ArrayLike
    y: ArrayLike
    dash: Dash = "solid"
    hue: int | None = None

    def __post_init__(self) -> None:
        x, y = (np.asarray(values, dtype=np.float64) for values in (self.x, self.y))
        if x.ndim != 1 or x.shape != y.shape:
            raise ValueError(
                f"series {self.label!r}: x has shape {x.shape} and y {y.shape}; both must be (point,)"
            )
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)

    def colour(self, place: int) -> int:
        """Return the number of its colour when it is the `place`-th curve of a chart."""
        return place if self.hue is None else self.hue

    @property
    def points(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The coordinates and values as float64 arrays (point,)."""
        return np.asarray(self.x), np.asarray(self.y)
