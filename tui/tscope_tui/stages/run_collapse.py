"""The panes of neural collapse of an opened run: view 6, for the third time."""

from __future__ import annotations

import numpy as np

from tscope_tui.data.collapse import LABELS, METRIC, PARTS, Collapse
from tscope_tui.data.run import RunData
from tscope_tui.panes.chart import ChartPane
from tscope_tui.panes.facts import FactsPane
from tscope_tui.panes.pane import Pane
from tscope_tui.panes.rows import RowsPane
from tscope_tui.plot import DASHES, Series
from tscope_tui.spans import Span
from tscope_tui.stages.flags import analyse_text
from tscope_tui.stages.run_absence import absence, noted
from tscope_tui.stages.run_notes import readings, status
from tscope_tui.stages.run_state import RunState

VIEW = "collapse"
# The measures of each pane, its title, and whether its axis is logarithmic.
_PANES: dict[str, tuple[tuple[str, ...], str, bool]] = {
    "nc1": (("nc1",), "NC1 (w)", True),
    "nc2": (("nc2_norm", "nc2_cosine_sd", "nc2_angle"), "NC2", True),
    "nc3": (("nc3",), "NC3", True),
    "nc4": (("nc4", "accuracy"), "NC4", False),
}
# What the ratio of NC1 is of, shown in its place.
_SPREAD = (("within", "between"), "tr Σ (w)", True)
SHOWN = ("nc1", "spread")
# What the status line reads out.
_READ = {
    "nc1_train": "NC1",
    "nc2_angle_train": "NC2 angle",
    "nc3_train": "NC3",
    "nc4_train": "NC4",
}


def collapse_panes(data: RunData, state: RunState, *, loaded: bool) -> dict[str, Pane]:
    """Return the panes that are of the whole run."""
    found = data.collapse
    if found is None or not found.step.size:
        told = _missing(data, loaded)
        return {
            **{name: ChartPane(name.upper(), (), empty=told) for name in _PANES},
            "collapse method": FactsPane(noted(told), "method"),
        }
    panes: dict[str, Pane] = {name: _chart(found, *_shown(name, state)) for name in _PANES}
    facts = (*found.facts, *(("note", note) for note in found.notes))
    return {**panes, "collapse method": FactsPane(facts, "method")}


def panes_at(data: RunData, state: RunState, *, loaded: bool) -> dict[str, Pane]:
    """Return the pane that is of the cursor's step."""
    found = data.collapse
    if found is None or not found.step.size:
        told = _missing(data, loaded)
        return {"collapse": RowsPane("collapse", "at the cursor", "measure", (), {}, empty=told)}
    row = found.row(state.cursor)
    names = [name for name in LABELS if f"{name}_train" in found.series]
    columns = {
        head: np.array([found.series[f"{name}_{part}"][row] for name in names])
        for part, head in zip(PARTS, ("training", "held-out"), strict=True)
        if f"nc1_{part}" in found.series
    }
    labels = tuple(f"NC2 {LABELS[name]}" if name.startswith("nc2") else LABELS[name] for name in names)
    step, chosen = int(found.step[row]), state.rows.get("measure")
    chosen = None if chosen is None else min(chosen, len(labels) - 1)
    return {"collapse": RowsPane("collapse", f"NC @{step:,}", "measure", labels, columns, chosen, step=step)}


def status_of(found: Collapse, cursor: int) -> list[Span]:
    """Return the four numbers of the training examples at the cursor, and how many notes the result has."""
    if not found.step.size:
        return []
    row = found.row(cursor)
    values = readings(found.series, row, _READ)
    return status(f" step {int(found.step[row]):,}: {values} · saved result", found.notes)


def arrays_of(found: Collapse, state: RunState, pane: str) -> tuple[str, ...]:
    """Return the arrays of the result that a pane shows."""
    measures = _shown(pane, state)[0] if pane in _PANES else tuple(LABELS) if pane == "collapse" else ()
    both = [f"{name}_{part}" for name in measures for part in PARTS]
    return tuple(name for name in both if name in found.series)


def _missing(data: RunData, loaded: bool) -> tuple[str, ...]:
    """Return what would provide the numbers."""
    return absence(
        data, "neural-collapse numbers", data.regime_lacks, analyse_text(data.path, METRIC), loaded=loaded
    )


def _shown(pane: str, state: RunState) -> tuple[tuple[str, ...], str, bool]:
    """Return the measures of a pane, its title, and whether its axis is logarithmic."""
    spread = pane == "nc1" and state.quantities.get(VIEW, 0) % len(SHOWN)
    return _SPREAD if spread else _PANES[pane]


def _chart(found: Collapse, measures: tuple[str, ...], title: str, log: bool) -> ChartPane:
    """Return the measures of the training and of the held-out examples."""
    known = [
        (hue, name, part)
        for part in PARTS
        for hue, name in enumerate(measures)
        if f"{name}_{part}" in found.series
    ]
    series = tuple(
        Series(
            _label(measures, name, part),
            found.step,
            found.series[f"{name}_{part}"],
            DASHES[place % len(DASHES)],
            hue,
        )
        for place, (hue, name, part) in enumerate(known)
    )
    return ChartPane(title, series, log and any((one.points[1] > 0).any() for one in series))


def _label(measures: tuple[str, ...], name: str, part: str) -> str:
    """Return what a curve is called: its set alone where the pane has one measure."""
    if len(measures) == 1:
        return "training" if part == "train" else "held-out"
    label = LABELS[name].lower()
    return label if part == "train" else held_out(label)


def held_out(label: str) -> str:
    """Return what the curve of held-out examples is called: the letter at its end is a capital one."""
    return f"{label[0].upper()}{label[1:]} held-out"
