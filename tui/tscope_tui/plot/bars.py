"""Bars and sparklines."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"
_ASCII_LEVELS = "_.-=+*#@"


def bar(share: float, width: int, *, ascii: bool = False) -> str:
    """Return a horizontal bar that fills `share` (clipped to [0, 1]) of `width` characters."""
    share = min(1.0, max(0.0, share)) if np.isfinite(share) else 0.0
    if ascii:
        return ("#" * round(share * width)).ljust(width)
    eighths = round(share * width * 8)
    whole, part = divmod(eighths, 8)
    return ("█" * whole + (_EIGHTHS[part] if part else "")).ljust(width)


def sparkline(values: ArrayLike, width: int, *, ascii: bool = False) -> str:
    """Return `values` (point,) as `width` block heights from their minimum to maximum; the mean of each part.

    Values that are not finite are shown as spaces.
    """
    data = np.asarray(values, dtype=np.float64)
    levels = _ASCII_LEVELS if ascii else _LEVELS
    if not data.size or width <= 0:
        return " " * max(0, width)
    edges = np.linspace(0, data.size, min(width, data.size) + 1).round().astype(int)
    means = []
    for start, stop in pairwise(edges.tolist()):
        part = data[start:stop][np.isfinite(data[start:stop])]
        means.append(float(np.mean(part / part.size) * part.size) if part.size else np.nan)
    finite = [value for value in means if np.isfinite(value)]
    if not finite:
        return " " * width
    low, high = min(finite), max(finite)
    span = high / 2 - low / 2
    text = ""
    for value in means:
        level = (value / 2 - low / 2) / span if span > 0 else 0.0
        text += levels[min(len(levels) - 1, int(level * len(levels)))] if np.isfinite(value) else " "
    return text.ljust(width)
