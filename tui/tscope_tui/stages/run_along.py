"""The panes of averages along a run: view 5, a third time."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tscope_tui.data.averaging import FAMILIES, METRIC, SETS, Along, Set
from tscope_tui.data.run import RunData
from tscope_tui.panes.chart import ChartPane
from tscope_tui.panes.pane import Pane
from tscope_tui.panes.rows import RowsPane
from tscope_tui.plot import DASHES, Series
from tscope_tui.spans import Span
from tscope_tui.stages.flags import analyse_text
from tscope_tui.stages.run_absence import absence
from tscope_tui.stages.run_averaging import averages_of
from tscope_tui.stages.run_notes import status
from tscope_tui.stages.run_state import RunState

COURSES: dict[str, Set] = {"run course": "test", "run course train": "train"}
QUANTITIES = ("loss", "accuracy")
# The part that averages were chosen on comes last: it flatters what was chosen.
PARTS = {"test": "held out", "train": "training", "select": "search"}


def shown_of(data: RunData, state: RunState) -> Along | None:
    """Return the result that is shown; None where none is saved."""
    runs = averages_of(data).runs
    return runs[min(state.rows.get("along", 0), len(runs) - 1)] if runs else None


def along_panes(data: RunData, state: RunState, *, loaded: bool) -> dict[str, Pane]:
    """Return the panes."""
    found = shown_of(data, state)
    if found is None:
        told = absence(
            data,
            "averages over its steps",
            averages_of(data).lacks,
            analyse_text(data.path, METRIC),
            loaded=loaded,
        )
        return {
            **{name: ChartPane(SETS[of], (), empty=told) for name, of in COURSES.items()},
            "candidates": RowsPane("candidates", "averages along the run", "average", (), {}, empty=told),
        }
    return {
        **{name: _course(found, of, quantity_of(state)) for name, of in COURSES.items()},
        "candidates": _candidates(found, state),
    }


def quantity_of(state: RunState) -> str:
    """Return which quantity is drawn."""
    return QUANTITIES[state.quantities.get("along", 0)]


def arrays_of(found: Along, of: Set, quantity: str) -> list[str]:
    """Return the arrays that a chart shows."""
    names = (f"{quantity}_{family}_{of}" for family in FAMILIES)
    return ["step", *(name for name in names if name in found.series)]


def _course(found: Along, of: Set, quantity: str) -> ChartPane:
    """Return a quantity of the run and of the chosen average of each family, over the steps."""
    series = tuple(
        Series(
            label, found.step, found.series[f"{quantity}_{family}_{of}"], DASHES[place % len(DASHES)], place
        )
        for place, (family, label) in enumerate(FAMILIES.items())
        if f"{quantity}_{family}_{of}" in found.series
    )
    if series:
        positive = not any((one.points[1] <= 0).any() for one in series)
        return ChartPane(f"{SETS[of]} {quantity}", series, quantity == "loss" and positive)
    if of not in found.sets:
        why = "no labels on these examples: see the notes (r); --probe FILE.npz (x, y) gives held-out ones"
    else:
        why = "no accuracy: the labels are values, or not known"
    return ChartPane(f"{SETS[of]} {quantity}", (), empty=(why,))


def _candidates(found: Along, state: RunState) -> RowsPane:
    """Return every average that was tried; the found one of each family is marked."""
    columns: dict[str, NDArray[np.float64]] = {}
    for quantity in (quantity_of(state), *QUANTITIES):
        for part, title in PARTS.items():
            values = np.array([getattr(one, quantity).get(part, math.nan) for one in found.candidates])
            if np.isfinite(values).any():
                columns.setdefault(title if quantity == "loss" else f"acc. {title}", values)
    names = tuple(f"{'* ' if one.found else ''}{one.name}" for one in found.candidates)
    return RowsPane(
        "candidates",
        f"averages along the run; best: {found.best}",
        "average",
        names,
        columns,
        min(state.rows.get("candidate", 0), len(names) - 1),
        foot="*: found by the search, of its family",
    )


def status_of(data: RunData, found: Along, state: RunState) -> list[Span]:
    """Return which average is best, and which of the saved results is shown."""
    count = len(averages_of(data).runs)
    place = min(state.rows.get("along", 0), count - 1) + 1
    which = f" · result {place} of {count} (o)" if count > 1 else ""
    return status(f" best: {found.best} · saved result{which}", found.notes)
