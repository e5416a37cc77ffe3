"""What a status line says of a saved result: some values at the cursor, and how many notes it has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tscope_tui.plot import compact
from tscope_tui.spans import Span


def status(text: str, notes: Sequence[str], warning: str = "") -> list[Span]:
    """Return a status line, with how many notes the result has and the key that shows them.

    Args:
        text: What is known of the view.
        notes: The result's notes.
        warning: What stands before their number.
    """
    count = f" · {len(notes)} note{'' if len(notes) == 1 else 's'} (r)" if notes else ""
    return [Span(text, "dim"), Span(warning + count, "warn")]


def readings(series: Mapping[str, NDArray[np.float64]], row: int, shown: Mapping[str, str]) -> str:
    """Return the values of a row that are finite, each after what it is called.

    Args:
        series: By the array's name, each (step,).
        row: The row.
        shown: What the arrays are called, by their names, in order.
    """
    known = [(label, float(series[name][row])) for name, label in shown.items() if name in series]
    return "  ".join(f"{label} {compact(value, 3)}" for label, value in known if math.isfinite(value))
