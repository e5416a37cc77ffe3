"""The panes of the tangent kernel of an opened run."""

from __future__ import annotations

import math

import numpy as np

from tscope_tui.data.kernel import METRIC, Kernel, Matrices, ordered
from tscope_tui.data.run import RunData
from tscope_tui.panes.chart import ChartPane
from tscope_tui.panes.facts import FactsPane
from tscope_tui.panes.heat import HeatPane
from tscope_tui.panes.pane import Pane
from tscope_tui.panes.relation import RelationPane
from tscope_tui.panes.spectrum import spectrum_pane
from tscope_tui.plot import DASHES, Dash, Series, compact
from tscope_tui.spans import Span
from tscope_tui.stages.flags import analyse_text
from tscope_tui.stages.run_absence import absence, noted
from tscope_tui.stages.run_notes import status
from tscope_tui.stages.run_state import RunState

# Layers whose curves are told apart in one chart.
_LAYERS = 6
# The series of the whole kernel, and what they are called; of one that was estimated, with its error.
_SERIES = {"distance_train": "distance", "alignment_train": "align", "alignment_test": "held-out align"}
_ESTIMATED = {"distance_test": "distance", "alignment_test": "align", "error_test": "± of K"}
_DASHES: tuple[Dash, ...] = ("solid", "dash", "dot")


def kernel_panes(data: RunData, state: RunState, *, loaded: bool) -> dict[str, Pane]:
    """Return the panes that are of the whole run."""
    return {
        "course": _course(data, state, loaded),
        "kernel method": FactsPane(_method(data, loaded), "method"),
    }


def panes_at(data: RunData, state: RunState, *, loaded: bool) -> dict[str, Pane]:
    """Return the panes that are of the cursor's step."""
    found = data.kernel
    if found is None:
        told = _missing(data, loaded)
        return {
            "kernel": HeatPane(None, 0, empty=told),
            "spectrum": RelationPane("spectrum", "", "", (), empty=told),
            "pair": FactsPane((), "pair"),
        }
    kept = (
        "no matrix was kept: press a, or run:",
        f"{analyse_text(data.path, METRIC)} --matrix 0,last",
    )
    return {
        "kernel": HeatPane(_matrices(found, state), state.cursor, state.pair, state.difference, kept),
        "spectrum": spectrum_pane(found, state.cursor),
        "pair": FactsPane(_pair(found, state), "pair"),
    }


def _matrices(found: Kernel, state: RunState) -> Matrices | None:
    """Return the kept matrices in the chosen order."""
    if found.matrices is None or state.kernel_order == found.matrices.order:
        return found.matrices
    return ordered(found.matrices, state.kernel_order)


def shared_of(found: Kernel, state: RunState) -> str:
    """Return the quantity whose shares of the layers are shown; empty for none."""
    known = list(found.shares)
    return known[state.kernel_share - 1] if 0 < state.kernel_share <= len(known) else ""


def status_of(found: Kernel, cursor: int) -> list[Span]:
    """Return the values at the cursor, and how many notes the result has."""
    if not found.step.size:
        return []
    values = [
        f"{label} {compact(found.value(name, cursor), 3)}"
        for name, label in (
            (f"movement_{found.own}", "moved"),
            (f"alignment_{found.own}", "align"),
            (f"effective_rank_{found.own}", "eff. rank"),
            *([("error_test", "±")] if found.estimated else []),
        )
        if name in found.series and math.isfinite(found.value(name, cursor))
    ]
    return status(
        f" step {int(found.step[found.row(cursor)]):,}: {'  '.join(values)} · saved result", found.notes
    )


def _missing(data: RunData, loaded: bool) -> tuple[str, ...]:
    """Return what would provide the kernel."""
    command = f"{analyse_text(data.path, METRIC)} --matrix 0,last"
    return absence(data, "tangent kernel", data.kernel_lacks, command, loaded=loaded)


def _course(data: RunData, state: RunState, loaded: bool) -> ChartPane:
    """Return the series of the whole kernel, or the layers' shares of one of its quantities."""
    found = data.kernel
    if found is None or not found.step.size:
        return ChartPane("distance, alignment", (), empty=_missing(data, loaded))
    if quantity := shared_of(found, state):
        return _layers(found, quantity)
    shown = _ESTIMATED if found.estimated else _SERIES
    series = [
        Series(label, found.step, found.series[name], dash, hue)
        for hue, ((name, label), dash) in enumerate(zip(shown.items(), _DASHES, strict=True))
        if name in found.series
    ]
    return ChartPane("K, estimated" if found.estimated else "K", tuple(series))


def _layers(found: Kernel, quantity: str) -> ChartPane:
    """Return the course of the shares of the layers that have most of a quantity at the end."""
    shares = found.shares[quantity]
    order = np.argsort(-np.nan_to_num(shares[-1]), kind="stable")[:_LAYERS]
    series = tuple(
        Series(found.layers[layer], found.step, shares[:, layer], DASHES[place % len(DASHES)], place)
        for place, layer in enumerate(order.tolist())
    )
    rest = len(found.layers) - len(series)
    return ChartPane(
        f"share of {quantity.replace('_', ' ')}{f', {rest} layers less' if rest else ''}", series
    )


def _pair(found: Kernel, state: RunState) -> tuple[tuple[str, str], ...]:
    """Return the chosen pair, and what of the kernel as a whole is not in the charts."""
    lines = []
    matrices = _matrices(found, state)
    if matrices is not None and matrices.pairs.size:
        index, points = matrices.at(state.cursor), matrices.pairs.shape[1]
        row, column = (min(at, points - 1) for at in state.pair)
        value = float(matrices.pairs[index, row, column])
        rank = matrices.rank(index, row, column)
        lines += [
            (f"K @{int(matrices.step[index]):,}", f"{compact(value)}  (above {rank:.0%} of pairs)"),
            ("row", matrices.name(row)),
            ("column", matrices.name(column)),
        ]
    at = found.row(state.cursor)

    def value_of(name: str) -> str:
        return compact(found.value(name, state.cursor), 3)

    lines.append(
        (
            "eff. rank",
            f"{value_of(f'effective_rank_{found.own}')}   λmax {compact(float(found.eigenvalues[at, 0]), 3)}",
        )
    )
    lines.append(("moved", f"{value_of(f'movement_{found.own}')} times ‖K₀‖"))
    if found.estimated:
        return (*lines, ("error", f"±{found.value('error_test', state.cursor):.1%} of ‖K‖, estimated"))
    if found.shares:
        quantity = shared_of(found, state) or next(iter(found.shares))
        lines.append(("layers (w)", f"{quantity.replace('_', ' ')}: {_largest(found, quantity, at)}"))
    weights = value_of("weight_norm_max_train")
    if "weight_norm_max_test" in found.series:
        weights += f" train, {value_of('weight_norm_max_test')} held out"
    lines.append(("max ‖k(x)‖", weights))
    return tuple(lines)


def _largest(found: Kernel, quantity: str, row: int) -> str:
    """Return the layers with most of a quantity at a row, in words."""
    shares = np.nan_to_num(found.shares[quantity][row])
    order = np.argsort(-np.abs(shares), kind="stable")[:4].tolist()
    return ", ".join(f"{found.layers[layer]} {shares[layer]:.0%}" for layer in order)


def _method(data: RunData, loaded: bool) -> tuple[tuple[str, str], ...]:
    found = data.kernel
    if found is None:
        return noted(_missing(data, loaded))
    return (*found.facts, *(("note", note) for note in found.notes))
