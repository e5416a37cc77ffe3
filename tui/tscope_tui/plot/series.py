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
        error: Half the length of the error bar at each point (point,), which reaches from y − error to
            y + error; 0 and NaN draw none.

    Raises:
        ValueError: If `x`, `y` and `error` are not one-dimensional arrays of one length.
    """

    label: str
    x: ArrayLike
    y: ArrayLike
    dash: Dash = "solid"
    hue: int | None = None
    error: ArrayLike | None = None

    def __post_init__(self) -> None:
        x, y = (np.asarray(values, dtype=np.float64) for values in (self.x, self.y))
        if x.ndim != 1 or x.shape != y.shape:
            raise ValueError(
                f"series {self.label!r}: x has shape {x.shape} and y {y.shape}; both must be (point,)"
            )
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)
        if self.error is None:
            return
        error = np.asarray(self.error, dtype=np.float64)
        if error.shape != x.shape:
            raise ValueError(f"series {self.label!r}: error has shape {error.shape} and x {x.shape}")
        object.__setattr__(self, "error", error)

    def bounds(self, *, positive: bool) -> tuple[Series, Series] | None:
        """Return the lower and upper ends of the error bars as curves; None where there is no bar.

        Args:
            positive: For a logarithmic axis: an end that is not positive becomes the least number.
        """
        if self.error is None:
            return None
        (x, y), error = self.points, np.asarray(self.error)
        error = np.where(error > 0, error, np.nan)
        if np.isnan(error).all():
            return None
        low = np.where(y - error <= 0, np.finfo(np.float64).tiny, y - error) if positive else y - error
        return Series(self.label, x, low), Series(self.label, x, y + error)

    def colour(self, place: int) -> int:
        """Return the number of its colour when it is the `place`-th curve of a chart."""
        return place if self.hue is None else self.hue

    @property
    def points(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The coordinates and values as float64 arrays (point,)."""
        return np.asarray(self.x), np.asarray(self.y)
