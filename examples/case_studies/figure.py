"""What the figures of the case study have in common: curves over seeds, colours, and how they are saved."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

# Okabe and Ito: training and held-out.
TRAIN, TEST = "#0072B2", "#D55E00"

Values = NDArray[np.float64]


def grid(
    rows: int, columns: int, width: float = 3.4, share: Literal["col", "none"] = "col"
) -> tuple[Figure, NDArray[np.object_]]:
    """Return a figure with axes (row, column) of a width in inches, those of a column with one abscissa."""
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "tscope"  # the same file from the same numbers
    size = (width * columns, 2.4 * rows)
    return plt.subplots(rows, columns, figsize=size, sharex=share, squeeze=False, layout="constrained")


def band(axes: Axes, x: Values, y: Values, color: str, label: str | None = None, style: str = "-") -> None:
    """Draw the mean over seeds of y (seed, x), and their range as a band."""
    axes.plot(x, y.mean(0), style, color=color, label=label)
    axes.fill_between(x, y.min(0), y.max(0), color=color, alpha=0.2, linewidth=0)


def save(figure: Figure, paths: Sequence[Path]) -> None:
    """Save the figure, as SVG or PNG by the names of the files."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
