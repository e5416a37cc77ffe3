"""The panes of averages between models: view 5."""

from __future__ import annotations

import math
import shlex

import numpy as np
from numpy.typing import NDArray

from tscope_tui.data.averages import Averages
from tscope_tui.data.averaging import METRIC, SETS, Average, Set
from tscope_tui.data.run import RunData
from tscope_tui.panes.facts import FactsPane
from tscope_tui.panes.pane import Pane
from tscope_tui.panes.relation import RelationPane
from tscope_tui.panes.rows import RowsPane
from tscope_tui.plot import DASHES, Series, compact
from tscope_tui.spans import Span
from tscope_tui.stages.run_absence import absence, noted
from tscope_tui.stages.run_notes import status
from tscope_tui.stages.run_state import RunState

Floats = NDArray[np.float64]

BLENDS: dict[str, Set] = {"blend": "test", "blend train": "train"}
PANES = (*BLENDS, "single layers", "curvature")
# What is drawn over α by the quantity, as the beginnings of the arrays' names.
QUANTITIES: dict[str, dict[str, str]] = {
    "loss": {"loss_average": "avg", "loss_ensemble": "ens", "loss_line": "line"},
    "accuracy": {"accuracy_average": "avg", "accuracy_ensemble": "ens", "accuracy_line": "line"},
    "outputs": {"difference": "avg-ens", "predicted": "predicted", "curvature_members": "terms"},
}
_EXCESS = {"loss": "loss_excess", "accuracy": "accuracy_deficit"}
_OVER = {"alpha": "α", "models": "models averaged"}


def averages_of(data: RunData) -> Averages:
    """Return what is saved; nothing as long as it has not been looked for."""
    return data.averages or Averages()


def shown_of(data: RunData, state: RunState) -> Average | None:
    """Return the average between models that is shown; None where none is saved."""
    pairs = averages_of(data).pairs
    return pairs[min(state.rows.get("average", 0), len(pairs) - 1)] if pairs else None


def point_of(found: Average, state: RunState) -> int:
    """Return the point on the axis of the averages that is looked at."""
    return min(state.rows.get("point", found.home), found.x.size - 1)


def averaging_panes(data: RunData, state: RunState, *, loaded: bool) -> dict[str, Pane]:
    """Return the panes; none of them is of a step."""
    found = shown_of(data, state)
    if found is None:
        told = _missing(data, loaded)
        return {
            **{name: RelationPane(name, SETS[of], "", (), empty=told) for name, of in BLENDS.items()},
            "single layers": RowsPane("single layers", "single layers", "layer", (), {}, empty=told),
            "curvature": FactsPane(noted(told), "averages"),
        }
    return {
        **{name: _blend(name, of, found, state) for name, of in BLENDS.items()},
        "single layers": _layers(data, state, found),
        "curvature": FactsPane((*_terms(found, state), *_notes(found)), "averages"),
    }


def quantity_of(state: RunState) -> str:
    """Return which quantity is drawn."""
    return tuple(QUANTITIES)[state.quantities.get("averaging", 0)]


def arrays_of(found: Average, of: Set, quantity: str) -> list[str]:
    """Return the arrays that a chart shows."""
    names = (f"{name}_{of}" for name in QUANTITIES[quantity])
    return [found.over, *(name for name in names if name in found.series)]


def _blend(name: str, of: Set, found: Average, state: RunState) -> RelationPane:
    """Return a quantity of the averages, of the ensembles, and on the line between the models."""
    quantity = quantity_of(state)
    title = f"{SETS[of]} {quantity}"
    series = tuple(
        Series(label, found.x, found.series[f"{array}_{of}"], dash, hue)
        for hue, ((array, label), dash) in enumerate(zip(QUANTITIES[quantity].items(), DASHES, strict=False))
        if f"{array}_{of}" in found.series
    )
    if not series:
        return RelationPane(name, title, "", (), empty=_unknown(found, of, quantity))
    return RelationPane(
        name,
        title,
        _OVER[found.over],
        series,
        mark=float(found.x[point_of(found, state)]),
        foot=_barrier(found, of, quantity),
    )


def _unknown(found: Average, of: Set, quantity: str) -> tuple[str, ...]:
    """Return why a quantity is not known on a set of examples."""
    if f"difference_{of}" not in found.series:
        return ("no held-out examples: analyse with --probe FILE.npz (x, y)",)
    if quantity == "loss":
        return ("no labels on these examples: see the notes (r)",)
    if quantity == "accuracy":
        return ("no accuracy: the labels are values, or not known",)
    return ("no outputs",)


def _barrier(found: Average, of: Set, quantity: str) -> str:
    """Return the highest excess over the line, in words; empty where there is none."""
    excess = found.series.get(f"{_EXCESS.get(quantity, '')}_{of}")
    if excess is None or not np.isfinite(excess).any():
        return ""
    top = int(np.nanargmax(excess))
    height = float(excess[top])
    share = f"{height:.1%}" if quantity == "accuracy" else compact(height, 3)
    where = "" if height <= 0 else f" at {_OVER[found.over]} {place_text(found, top)}"
    return f"barrier {share}{where}"


def place_text(found: Average, point: int) -> str:
    """Return a point on the axis of the averages."""
    return f"{found.x[point]:.3g}" if found.over == "alpha" else f"{found.x[point]:.0f}"


def _layers(data: RunData, state: RunState, found: Average) -> RowsPane:
    """Return the barriers where a single layer is averaged, and how far its gradients moved."""
    of = next((name for name in SETS if f"layer_barrier_{name}" in found.barriers), None)
    if of is None:
        why = (
            "only averages of two models have them" if found.over == "models" else "--no-layers left them out"
        )
        return RowsPane(
            "single layers", "single layers", "layer", (), {}, empty=(f"no barriers of layers: {why}",)
        )
    barrier, rise = (found.barriers[f"layer_{kind}_{of}"] for kind in ("barrier", "rise"))
    columns = {"barrier": barrier.max(0)}
    moved = _moved(data, found, of)
    if moved is not None:
        columns["∇ change"] = moved
    columns |= {"half in A": rise[0], "half in B": rise[1]}
    chosen = min(state.rows.get("layer", 0), len(found.layers) - 1)
    return RowsPane(
        "single layers",
        f"one layer averaged, {SETS[of]} loss",
        "layer",
        found.layers,
        columns,
        chosen,
        foot="" if moved is None else f"∇: t'={found.fork:,} to the end",
        bar="barrier",
    )


def _moved(data: RunData, found: Average, of: Set) -> Floats | None:
    """Return how far each layer's gradients moved from the fork to the end of this run, if that is saved."""
    known = averages_of(data)
    for one in known.gradients if known.fingerprint in found.traces else ():
        places = np.flatnonzero(one.since == found.fork)
        if (
            places.size
            and one.layers == found.layers
            and of in one.sets
            and one.since[places[0]] < one.step[-1]
        ):
            moved: Floats = one.by_layer[f"change_{of}"][int(places[0]), -1]
            return moved
    return None


def _terms(found: Average, state: RunState) -> list[tuple[str, str]]:
    """Return the models, and what curvature says of average − ensemble where the charts are marked."""
    at = point_of(found, state)

    def value(name: str) -> str:
        return " / ".join(
            compact(float(found.series[f"{name}_{of}"][at]), 3)
            for of in found.known
            if f"{name}_{of}" in found.series
        )

    def share(name: str) -> str:
        texts = [
            _percent(float(found.series[f"{name}_{of}"][at]))
            for of in found.known
            if f"{name}_{of}" in found.series
        ]
        return " / ".join(texts) if any(text != "–" for text in texts) else ""

    where = f"{_OVER[found.over]} {place_text(found, at)}"
    lines = [
        (chr(ord("A") + place) if place < 26 else str(place), member)
        for place, member in enumerate(found.members[:6])
    ]
    lines += [
        ("fork", "none in common" if found.fork is None else f"the same up to step {found.fork:,}"),
        (where, f"avg-ens {value('difference')} rms, of {' / '.join(SETS[of] for of in found.known)}"),
        ("predicted", f"{share('explained')} by 2nd order at the fork" if share("explained") else ""),
        ("alone", f"{share('explained_alone')} by the models' own terms" if share("explained_alone") else ""),
        ("shares", _shares(share("share_average"), share("share_members"))),
        ("curvature", _curvature(found)),
        ("identity", _identity(found)),
        ("units", _units(found)),
    ]
    return [(label, text) for label, text in lines if text]


def _shares(average: str, members: str) -> str:
    return f"{average} by the average's, {members} by the models' curvature" if average else ""


def _curvature(found: Average) -> str:
    """Return each model's curvature term relative to how far it went."""
    texts = []
    for letter in "abcdefgh"[: len(found.members)]:
        values = [found.scalar(f"curvature_relative_{letter}_{of}") for of in found.known]
        if any(map(math.isfinite, values)):
            texts.append(f"{letter.upper()} {' / '.join(_percent(value) for value in values)}")
    return f"{', '.join(texts)} of the way gone" if texts else ""


def _identity(found: Average) -> str:
    values = [value for of in found.known if math.isfinite(value := found.scalar(f"identity_error_{of}"))]
    return f"holds to {compact(max(values), 2)}" if values else ""


def _units(found: Average) -> str:
    """Return what matching changed."""
    texts = []
    for letter in "bcdefgh":
        share = found.scalar(f"units_moved_{letter}")
        if math.isfinite(share):
            before, after = (found.scalar(f"distance_{when}_{letter}") for when in ("before", "after"))
            apart = f"‖θ_A−θ_{letter.upper()}‖ {compact(before, 3)} → {compact(after, 3)}"
            texts.append(f"{_percent(share)} moved, {apart}")
    return "; ".join(texts)


def _percent(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:.0%}" if abs(value) < 100 else f"{value:.1g}×"


def _notes(found: Average) -> tuple[tuple[str, str], ...]:
    return (*found.facts, *(("note", note) for note in found.notes))


def status_of(data: RunData, found: Average, state: RunState) -> list[Span]:
    """Return the values where the charts are marked, and which of the saved results is shown."""
    at, quantity = point_of(found, state), quantity_of(state)
    texts = []
    for of in SETS:
        values = [
            f"{label} {_value(float(found.series[f'{array}_{of}'][at]), quantity)}"
            for array, label in QUANTITIES[quantity].items()
            if f"{array}_{of}" in found.series
        ]
        if values:
            texts.append(f"{SETS[of]} {' '.join(values)}")
    count = len(averages_of(data).pairs)
    place = min(state.rows.get("average", 0), count - 1) + 1
    which = f" result {place} of {count} (o) ·" if count > 1 else ""
    return status(f"{which} {_OVER[found.over]} {place_text(found, at)}: {'; '.join(texts)}", found.notes)


def _value(value: float, quantity: str) -> str:
    return f"{value:.1%}" if quantity == "accuracy" else compact(value, 3)


def analyse_text(data: RunData) -> str:
    """Return the command that computes the metric, as one types it."""
    known = averages_of(data)
    path = shlex.quote(str(data.path))
    if known.sweep is not None and known.sweep.shown is None and known.sweep.forks:
        return f"tscope forks {path} --compute"
    other = "OTHER.zarr" if known.sweep is None else shlex.quote(str(known.sweep.base))
    return f"tscope analyze {path} --metric {METRIC} --against {other}"


def _missing(data: RunData, loaded: bool) -> tuple[str, ...]:
    """Return what would provide averages between models."""
    known = averages_of(data)
    told = absence(data, "averages between models", known.lacks, analyse_text(data), loaded=loaded)
    if known.runs and not known.lacks:
        told = (*told, "averages along this run are saved: press 5 twice")
    return told
