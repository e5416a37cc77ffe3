"""The panes of the layers of an opened run: view 6."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tscope_tui.data.layers import METRIC, SINGULAR, Kind, Layers, Quantity, short
from tscope_tui.data.run import RunData
from tscope_tui.panes.chart import ChartPane
from tscope_tui.panes.facts import FactsPane
from tscope_tui.panes.layermap import LayerMapPane
from tscope_tui.panes.pane import Pane
from tscope_tui.panes.rows import RowsPane, several
from tscope_tui.plot import DASHES, Series, compact
from tscope_tui.spans import Span
from tscope_tui.stages.flags import analyse_text
from tscope_tui.stages.run_absence import absence, noted
from tscope_tui.stages.run_notes import status
from tscope_tui.stages.run_state import RunState

VIEW = "layers"
# Rows whose curves are told apart in one chart.
_CURVES = 6
_BALANCE = ("balance", "balance_drift", "balance_off", "balance_flow")
_NOTHING = np.zeros(0)


def quantity_of(found: Layers, state: RunState) -> Quantity:
    """Return the quantity that the map and the curves show."""
    return found.quantities[state.quantities.get(VIEW, 0) % len(found.quantities)]


def chosen_of(found: Layers, state: RunState, kind: Kind) -> int:
    """Return the chosen layer, matrix or pair."""
    return min(state.rows.get(kind, 0), max(0, len(found.rows[kind]) - 1))


def layers_panes(data: RunData, state: RunState, *, loaded: bool) -> dict[str, Pane]:
    """Return the panes that are of the whole run."""
    found = data.layers
    if found is None or not found.step.size:
        told = _missing(data, loaded)
        return {
            "layer map": LayerMapPane((), _NOTHING, np.zeros((0, 0)), title="by layer", empty=told),
            "layer course": ChartPane("over steps", (), empty=told),
            "within": ChartPane("singular values", (), empty=told),
            "layer method": FactsPane(noted(told), "method"),
        }
    quantity = quantity_of(found, state)
    chosen = chosen_of(found, state, quantity.kind)
    return {
        "layer map": LayerMapPane(
            found.rows[quantity.kind],
            found.step,
            quantity.values,
            title=f"{quantity.label} (w) by {quantity.kind}",
            chosen=chosen,
            start=quantity.start,
            log_y=_log(quantity),
            name=quantity.name,
            of=several(quantity.kind),
        ),
        "layer course": _course(found, quantity, chosen),
        "within": _within(data, found, state, quantity.kind),
        "layer method": FactsPane((*found.facts, *(("note", note) for note in found.notes)), "method"),
    }


def panes_at(data: RunData, state: RunState, *, loaded: bool) -> dict[str, Pane]:
    """Return the pane that is of the cursor's step."""
    found = data.layers
    if found is None or not found.step.size:
        told = _missing(data, loaded)
        return {"layer values": RowsPane("layers", "at the cursor", "layer", (), {}, empty=told)}
    quantity, row = quantity_of(found, state), found.row(state.cursor)
    kind = quantity.kind
    # The quantity that is shown comes first, and the others in their order.
    known = [quantity, *(one for one in found.of(kind) if one.name != quantity.name)]
    ends = [
        (name, whole)
        for name, whole in (("all", found.whole), ("rest", found.rest))
        if any(one.name in whole for one in known)
    ]
    columns = {
        one.label: np.append(
            one.values[row], [whole[one.name][row] if one.name in whole else np.nan for _, whole in ends]
        )
        for one in known
    }
    return {
        "layer values": RowsPane(
            "layers",
            f"{several(kind)} @{int(found.step[row]):,}",
            kind,
            (*found.rows[kind], *(name for name, _ in ends)),
            columns,
            chosen_of(found, state, kind),
            len(ends),
            step=int(found.step[row]),
        )
    }


def status_of(found: Layers, state: RunState) -> list[Span]:
    """Return the chosen value at the cursor, and how many notes the result has."""
    if not found.step.size:
        return []
    quantity, row = quantity_of(found, state), found.row(state.cursor)
    chosen = chosen_of(found, state, quantity.kind)
    value = compact(float(quantity.values[row, chosen]), 3)
    place = found.quantities.index(quantity) + 1
    return status(
        f" step {int(found.step[row]):,}: {found.rows[quantity.kind][chosen]} {quantity.label} {value} · "
        f"w: {place} of {len(found.quantities)} quantities",
        found.notes,
    )


def arrays_of(found: Layers, state: RunState, pane: str) -> tuple[str, ...]:
    """Return the arrays of the result that a pane shows."""
    quantity = quantity_of(found, state)
    if pane == "within":
        return _BALANCE[: len(found.of("pair"))] if quantity.kind == "pair" else (SINGULAR,)
    if pane == "layer values":
        return tuple(one.name for one in found.of(quantity.kind))
    return () if pane == "layer method" else (quantity.name,)


def _missing(data: RunData, loaded: bool) -> tuple[str, ...]:
    """Return what would provide the layers."""
    return absence(
        data, "numbers of layers", data.layers_lacks, analyse_text(data.path, METRIC), loaded=loaded
    )


def _log(quantity: Quantity) -> bool:
    """Whether a quantity is shown on a logarithmic axis: one that is zero throughout has none."""
    return quantity.log and bool((quantity.values > 0).any())


def _series(
    label: str, step: NDArray[np.float64], quantity: Quantity, row: int, *, place: int, hue: int
) -> Series:
    """Return the curve of one row, from where it says something."""
    first = int(step.searchsorted(quantity.start))
    return Series(label, step[first:], quantity.values[first:, row], DASHES[place % len(DASHES)], hue)


def _course(found: Layers, quantity: Quantity, chosen: int) -> ChartPane:
    """Return the curve of the chosen row, and of those with the largest values at the end."""
    order = np.argsort(-np.nan_to_num(np.abs(quantity.values[-1])), kind="stable").tolist()
    rows = [chosen, *(row for row in order if row != chosen)][:_CURVES]
    names = short(found.rows[quantity.kind])
    series = tuple(
        _series(names[row], found.step, quantity, row, place=place, hue=row) for place, row in enumerate(rows)
    )
    rest = len(names) - len(rows)
    return ChartPane(
        f"{quantity.label}{f', {rest} {several(quantity.kind)} less' if rest else ''}", series, _log(quantity)
    )


def _within(data: RunData, found: Layers, state: RunState, kind: Kind) -> ChartPane:
    """Return the balance of the chosen pair, or the singular values of the chosen matrix."""
    chosen = chosen_of(found, state, kind)
    if kind == "pair":
        parts = [one for name in _BALANCE if (one := found.named(name)) is not None]
        balance = tuple(
            _series(one.label, found.step, one, chosen, place=place, hue=place)
            for place, one in enumerate(parts)
        )
        return ChartPane(f"balance of {found.rows[kind][chosen]}", balance, log_y=True)
    if found.singular is None:
        told = ("the saved result has no singular values: press a, or run:", analyse_text(data.path, METRIC))
        return ChartPane("singular values", (), empty=told)
    matrix = chosen if kind == "matrix" else found.matrix_of(chosen)
    if matrix is None:
        none = f"{found.rows[kind][chosen]} has no matrix: none of its parameters has two dimensions"
        return ChartPane("singular values", (), empty=(none,))
    series = tuple(
        Series(
            f"{value + 1}", found.step, found.singular[:, matrix, value], DASHES[value % len(DASHES)], value
        )
        for value in range(min(_CURVES, found.singular.shape[2]))
        if np.isfinite(found.singular[:, matrix, value]).any()
    )
    return ChartPane(f"σ of {found.rows['matrix'][matrix]}", series, log_y=True)
