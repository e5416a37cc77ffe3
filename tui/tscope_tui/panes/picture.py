"""The input of one example: an image as half-blocks, anything else as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from tscope_tui.data.shown import Shown
from tscope_tui.data.table import Table
from tscope_tui.panes.box import box
from tscope_tui.panes.heat import ASCII_SHADES, SHADES
from tscope_tui.panes.pane import Draw
from tscope_tui.plot import compact
from tscope_tui.spans import Line, Span, wrap

# Levels of each channel: enough for the eye, and few enough different colours for a slow line.
_LEVELS = 32


@dataclass(frozen=True, eq=False)
class PicturePane:
    """What the model was given.

    Attributes:
        shown: The example's input; None where there is none to show.
        title: Which example, and what is known of it.
        empty: What to say then.
    """

    shown: Shown | None
    title: str = "input"
    empty: tuple[str, ...] = ()

    def lines(self, width: int, height: int, draw: Draw) -> list[Line]:
        """Return the picture in its frame."""
        title, look = [Span(self.title, "title")], draw.look
        if self.shown is None:
            told: list[Line] = [
                (Span(" " + line, "dim"),) for text in self.empty for line in wrap(text, max(4, width - 4))
            ]
            return box(title, told, width, height, look, focused=draw.focused)
        image, values = self.shown.image, self.shown.values
        if image is None:
            numbers = " ".join(compact(float(value), 3) for value in values.reshape(-1)[:4096].tolist())
            told = [(Span(f" {line}"),) for line in wrap(numbers, max(4, width - 4))]
            foot = "×".join(map(str, values.shape))
            return box(title, told, width, height, look, focused=draw.focused, foot=foot)
        scaled = fitted(image, 2 * max(1, height - 2), max(1, width - 2))
        drawn = _coloured(scaled) if look.colour and not look.ascii else _inked(scaled, ascii=look.ascii)
        left = (width - 2 - scaled.shape[1]) // 2
        lines = [(Span(" " * left), *line) for line in drawn]
        foot = "×".join(map(str, image.shape[:2])) + (", a vector" if self.shown.flat else "")
        return box(title, lines, width, height, look, focused=draw.focused, foot=foot)

    def table(self) -> Table:
        """Return one row a number."""
        values = [] if self.shown is None else self.shown.values.reshape(-1).astype(np.float64).tolist()
        return Table("input", {"position": [*range(len(values))], "value": [*values]})


def fitted(image: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
    """Return an image (row, column, channel) in [0, 1] that fits so many square pixels, its rows even.

    Smaller ones are enlarged by whole numbers, larger ones averaged over parts. What is not finite is 0.
    """
    finite = np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    unit = (finite - low) / (high - low) if high > low else np.zeros_like(finite)
    tall, wide = unit.shape[:2]
    times = min(rows // tall, columns // wide)
    if times >= 1:
        unit = unit.repeat(times, 0).repeat(times, 1)
    else:
        scale = min(rows / tall, columns / wide)
        unit = _shrunk(_shrunk(unit, max(1, int(tall * scale)), 0), max(1, int(wide * scale)), 1)
    return unit if len(unit) % 2 == 0 else np.concatenate([unit, unit[-1:]])


def _shrunk(values: NDArray[np.float64], size: int, axis: int) -> NDArray[np.float64]:
    """Return means over `size` parts of an axis."""
    length = values.shape[axis]
    starts = np.arange(size) * length // size
    counts = np.diff(np.append(starts, length))
    shape = [1] * values.ndim
    shape[axis] = size
    return np.asarray(np.add.reduceat(values, starts, axis) / counts.reshape(shape))


def _coloured(image: NDArray[np.float64]) -> list[Line]:
    """Return half-blocks: a character is two pixels, the upper in its own colour, the lower behind it."""
    levels = np.rint(image * (_LEVELS - 1)) / (_LEVELS - 1) * 255
    codes = np.rint(levels).astype(int)
    if codes.shape[2] == 1:
        codes = codes.repeat(3, 2)
    names = [["#{:02x}{:02x}{:02x}".format(*pixel) for pixel in row] for row in codes.tolist()]
    lines = []
    for upper, lower in zip(names[::2], names[1::2], strict=True):
        tones = [f"{above}/{below}" for above, below in zip(upper, lower, strict=True)]
        lines.append(tuple(Span("▀" * len(list(run)), tone) for tone, run in groupby(tones)))
    return lines


def _inked(image: NDArray[np.float64], *, ascii: bool) -> list[Line]:
    """Return density of ink, for terminals without colour: one character for two pixels."""
    grey = image.mean(2)
    pairs = (grey[::2] + grey[1::2]) / 2
    shades = ASCII_SHADES if ascii else SHADES
    index = np.minimum((pairs * len(shades)).astype(int), len(shades) - 1)
    return [(Span("".join(shades[value] for value in row)),) for row in index.tolist()]
