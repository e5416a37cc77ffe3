"""The panes of the effective parameters of an opened run."""

from __future__ import annotations

import numpy as np

from tscope_tui.data.effective import METRIC, PARTS, Effective
from tscope_tui.data.run import RunData
from tscope_tui.panes.chart import ChartPane
from tscope_tui.panes.facts import FactsPane
from tscope_tui.panes.pane import Pane
from tscope_tui.panes.spread import SpreadPane
from tscope_tui.plot import Dash, Series, compact
from tscope_tui.spans import Span
from tscope_tui.stages.flags import analyse_text
from tscope_tui.stages.run_absence import absence, noted
from tscope_tui.stages.run_notes import status
from tscope_tui.stages.run_state import RunState

_DASHES: dict[str, Dash] = {"train": "solid", "test": "dash"}


def effective_panes(data: RunData, *, loaded: bool) -> dict[str, Pane]:
    """Return the panes that are of the whole run."""
    return {
        "parameters": _parameters(data, loaded),
        "gap": _gap(data, loaded),
        "method": FactsPane(_method(data, loaded), "method"),
    }


def spread_of(data: RunData, state: RunState, *, loaded: bool) -> SpreadPane:
    """Return the norms of the examples at the cursor's step."""
    found = data.effective
    if found is None:
        return SpreadPane(0, {}, np.zeros(0, np.int64), _missing(data, loaded))
    step, norms = found.spread(state.cursor)
    return SpreadPane(step, norms, found.examples, ("the saved result has no norms of examples",))


def status_of(found: Effective, cursor: int, *, ascii: bool) -> list[Span]:
    """Return the values at the cursor, and how many notes the result has."""
    if not found.step.size:
        return []
    row = found.row(cursor)
    values = []
    for part in PARTS:
        if part in found.p:
            error = float(found.error[part][row])
            bar = f" {'+-' if ascii else '±'} {compact(error, 2)}" if error > 0 else ""
            values.append(f"p_{part} {compact(float(found.p[part][row]))}{bar}")
    form = dict(found.facts).get("form", "")
    return status(f" step {int(found.step[row]):,}: {'  '.join(values)} · saved result, {form}", found.notes)


def _missing(data: RunData, loaded: bool) -> tuple[str, ...]:
    """Return what would provide the effective parameters."""
    return absence(
        data, "effective parameters", data.effective_lacks, analyse_text(data.path, METRIC), loaded=loaded
    )


def _parameters(data: RunData, loaded: bool) -> ChartPane:
    found = data.effective
    if found is None or not found.step.size:
        return ChartPane("effective params", (), empty=_missing(data, loaded))
    series = tuple(
        Series(part, found.step, values, _DASHES[part], hue, found.bars(part))
        for hue, (part, values) in enumerate(found.p.items())
    )
    return ChartPane("effective params", series)


def _gap(data: RunData, loaded: bool) -> ChartPane:
    found = data.effective
    if found is None or not found.step.size:
        return ChartPane("gap", (), empty=_missing(data, loaded))
    if found.gap is None:
        told = (
            "no held-out examples: for p_test, run:",
            f"{analyse_text(data.path, METRIC)} --probe FILE.npz",
        )
        return ChartPane("gap", (), empty=told)
    return ChartPane("gap", (Series("p_test−p_train", found.step, found.gap, "dot", 2, found.gap_bars),))


def _method(data: RunData, loaded: bool) -> tuple[tuple[str, str], ...]:
    found = data.effective
    if found is None:
        return noted(_missing(data, loaded))
    return (*found.facts, *(("note", note) for note in found.notes))
