"""The panes of a run's forks and of how its gradients move: view 5, once more."""

from __future__ import annotations

import math
import shlex

import numpy as np

from tscope_tui.data.averaging import SETS
from tscope_tui.data.forks import Sweep
from tscope_tui.data.gradients import METRIC, Gradients
from tscope_tui.data.run import RunData
from tscope_tui.panes.chart import ChartPane
from tscope_tui.panes.pane import Pane
from tscope_tui.panes.relation import RelationPane
from tscope_tui.panes.rows import RowsPane
from tscope_tui.plot import DASHES, Dash, Series, compact
from tscope_tui.spans import Span
from tscope_tui.stages.run_absence import absence, unread
from tscope_tui.stages.run_averaging import averages_of
from tscope_tui.stages.run_state import RunState

SWEEP = ("sweep", "since")
DRIFT = ("drift", "stable")
# By the quantity: the change of gradients that is drawn, and the barrier beside it.
QUANTITIES = {"change": "loss", "cosine": "accuracy"}
_TITLES = {"change": "∇ change", "cosine": "∇ cosine"}
_LABELS = {"train": "train", "test": "held out"}
_DASHES: dict[str, Dash] = {"train": "solid", "test": "dash"}
# Layers whose curves are told apart in one chart.
_LAYERS = 6


def shown_of(data: RunData, state: RunState) -> Gradients | None:
    """Return the gradients that are shown; None where none are saved."""
    known = averages_of(data).gradients
    return known[min(state.rows.get("gradients", 0), len(known) - 1)] if known else None


def fork_of(sweep: Sweep, state: RunState) -> int:
    """Return the chosen fork; the trace itself where it is one and none is chosen."""
    return min(state.rows.get("fork", sweep.shown or 0), len(sweep.forks) - 1)


def since_of(data: RunData, found: Gradients, state: RunState) -> int:
    """Return the chosen t': at first that of the chosen fork, or the first."""
    if "since" in state.rows:
        return min(state.rows["since"], found.since.size - 1)
    sweep = averages_of(data).sweep
    return found.place(sweep.forks[fork_of(sweep, state)].same_until if sweep and sweep.forks else None)


def known_of_forks(data: RunData, quantity: str) -> bool:
    """Whether it is saved of any fork and its base how far their gradients moved."""
    sweep = averages_of(data).sweep
    return sweep is not None and any(getattr(one, quantity) for one in sweep.forks)


def quantity_of(state: RunState) -> str:
    """Return which quantity of the gradients is drawn."""
    return tuple(QUANTITIES)[state.quantities.get("forks", 0)]


def forks_panes(data: RunData, state: RunState, *, loaded: bool) -> dict[str, Pane]:
    """Return the panes; only the cursor of one of them is of a step."""
    quantity = quantity_of(state)
    return {
        "sweep": _sweep(data, state, quantity, loaded),
        "since": _since(data, state, quantity, loaded),
        "drift": _drift(data, state, quantity, loaded),
        "stable": _stable(data, state, loaded),
    }


def _sweep(data: RunData, state: RunState, quantity: str, loaded: bool) -> RelationPane:
    """Return the barriers between the forks and their base, against where they part."""
    sweep, what = averages_of(data).sweep, QUANTITIES[quantity]
    title = f"{'' if what == 'loss' else 'accuracy '}barrier, by t'"
    if sweep is None or not sweep.forks:
        return RelationPane("sweep", title, "", (), empty=_no_forks(data, sweep, loaded))
    series = []
    for hue, of in enumerate(reversed(SETS)):
        known = [
            math.nan if one.average is None else one.average.scalar(f"barrier_{what}_{of}")
            for one in sweep.forks
        ]
        steps, middle, reach = sweep.against(known)
        if not np.isnan(middle).all():
            series.append(Series(_LABELS[of], steps, middle, _DASHES[of], hue, reach))
    if not series:
        count = sum(one.average is not None for one in sweep.forks)
        told = (
            (f"no {what} of the averages is known: give labels, as with --probe FILE.npz (x, y)",)
            if count
            else (f"{len(sweep.forks)} forks, no barriers saved: press a, or run:", forks_text(sweep))
        )
        return RelationPane("sweep", title, "", (), empty=(*told, *sweep.problems))
    return RelationPane(
        "sweep",
        title,
        "t'",
        tuple(series),
        log_x=state.log_x,
        mark=float(sweep.forks[fork_of(sweep, state)].same_until),
        foot=_spread(sweep),
        bars="half range",
    )


def _spread(sweep: Sweep) -> str:
    missing = sum(one.average is None for one in sweep.forks)
    seeds = len({one.seed for one in sweep.forks})
    bars = f"bars: {seeds} seeds' range" if seeds > 1 else ""
    return "; ".join(text for text in (bars, f"{missing} forks without" if missing else "") if text)


def _no_forks(data: RunData, sweep: Sweep | None, loaded: bool) -> tuple[str, ...]:
    if reading := unread(data, loaded=loaded):
        return reading
    if sweep is not None:
        return ("its forks cannot be read:", *sweep.problems)
    return (
        "this run has no forks; record it with some:",
        "tscope record --fork-at STEP,… --seeds 1,2 -- COMMAND",
    )


def _since(data: RunData, state: RunState, quantity: str, loaded: bool) -> RelationPane:
    """Return how far gradients move from t' to the end: of both runs of each fork, else of this run."""
    known, found = averages_of(data), shown_of(data, state)
    title = f"{_TITLES[quantity]} t'→end"
    series, foot = [], ""
    sweep = known.sweep
    for hue, of in enumerate(reversed(SETS)):
        if sweep is not None:
            steps, middle, reach = sweep.against(
                getattr(one, quantity).get(of, math.nan) for one in sweep.forks
            )
            if not np.isnan(middle).all():
                series.append(Series(_LABELS[of], steps, middle, _DASHES[of], hue, reach))
    if series:
        foot = "mean of fork and base"
    elif found is not None:
        series = [
            Series(_LABELS[of], found.since, found.to_end(quantity, of), _DASHES[of], hue)
            for hue, of in enumerate(reversed(SETS))
            if of in found.sets
        ]
    if not series:
        return RelationPane("since", title, "", (), empty=_missing(data, state, loaded))
    mark = None if found is None else float(found.since[since_of(data, found, state)])
    if sweep is not None and sweep.forks and foot:
        mark = float(sweep.forks[fork_of(sweep, state)].same_until)
    return RelationPane(
        "since",
        title,
        "t'",
        tuple(series),
        log_x=state.log_x,
        log_y=quantity == "change",
        mark=mark,
        foot=foot,
        bars="half range",
    )


def _drift(data: RunData, state: RunState, quantity: str, loaded: bool) -> ChartPane:
    """Return how far each layer's gradients moved from one t' to the later steps."""
    found = shown_of(data, state)
    if found is None:
        return ChartPane(f"{_TITLES[quantity]} by layer", (), empty=_missing(data, state, loaded))
    place, of = since_of(data, found, state), found.sets[0]
    split = found.by_layer[f"{quantity}_{of}"][place]
    known = np.isfinite(split).any(1)
    if not known.any():
        why = "it is the last step examined" if found.since[place] >= found.step[-1] else "they vanish there"
        return ChartPane(f"∇ {_place(found, place)}", (), empty=(f"no {quantity} of gradients: {why}",))
    at = int(np.flatnonzero(known)[-1])
    # At t' itself nothing has changed, which a logarithmic axis could not show.
    later = found.step > found.since[place]
    step = found.step[later]
    # Those that moved most: by a change that is large, a cosine that is small.
    far = split[at] if quantity == "change" else -split[at]
    order = np.argsort(-np.where(np.isnan(far), -np.inf, far), kind="stable")[:_LAYERS].tolist()
    series = [Series("all", step, found.whole[f"{quantity}_{of}"][place][later], "solid", 0)]
    series += [
        Series(found.layers[layer], step, split[later, layer], DASHES[(index + 1) % len(DASHES)], index + 1)
        for index, layer in enumerate(order)
    ]
    rest = len(found.layers) - len(order)
    more = f", {rest} layers less" if rest else ""
    title = f"{'' if quantity == 'change' else 'cos '}∇ {_place(found, place)} {SETS[of]}{more}"
    return ChartPane(title, tuple(series), quantity == "change")


def _place(found: Gradients, place: int) -> str:
    return f"t'={found.since[place]:,.0f}"


def _stable(data: RunData, state: RunState, loaded: bool) -> RowsPane:
    """Return by layer from which step on gradients are stable, and how far they move from t' to the end."""
    found = shown_of(data, state)
    if found is None:
        return RowsPane("stable", "stable gradients", "layer", (), {}, empty=_missing(data, state, loaded))
    place = since_of(data, found, state)
    columns = {}
    for of in reversed(found.sets):
        columns[_LABELS[of]] = np.append(found.stabilised[of], found.stabilised_whole[of])
    for quantity in QUANTITIES:
        of = found.sets[0]
        ends = (found.by_layer[f"{quantity}_{of}"][place, -1], [found.whole[f"{quantity}_{of}"][place, -1]])
        columns[quantity] = np.concatenate(ends)
    return RowsPane(
        "stable",
        f"stable from (within {found.stable:.0%})",
        "layer",
        (*found.layers, "all"),
        columns,
        min(state.rows.get("layer", 0), len(found.layers) - 1),
        last=1,
        foot=f"change, cosine: {_place(found, place)}→end",
    )


def status_of(data: RunData, state: RunState) -> list[Span]:
    """Return the chosen fork, and from which step on gradients are stable."""
    sweep, found, texts = averages_of(data).sweep, shown_of(data, state), []
    if sweep is not None and sweep.forks:
        place = fork_of(sweep, state)
        one = sweep.forks[place]
        barriers = [
            f"{SETS[of]} {compact(value, 3)}"
            for of in SETS
            if one.average is not None and math.isfinite(value := one.average.scalar(f"barrier_loss_{of}"))
        ]
        shown = " (shown)" if sweep.shown == place else ""
        texts.append(
            f"fork {place + 1} of {len(sweep.forks)}{shown}: step {one.step:,}, seed {one.seed}, "
            f"same until {one.same_until:,}" + (f": barrier {', '.join(barriers)}" if barriers else "")
        )
    if found is not None:
        steps = [
            f"{SETS[of]} {'none' if math.isnan(step) else f'{step:,.0f}'}"
            for of, step in found.stabilised_whole.items()
        ]
        texts.append(f"stable from: {', '.join(steps)}")
    problems = "" if sweep is None or not sweep.problems else f" · {sweep.problems[0]}"
    return [Span(f" {' · '.join(texts)}" if texts else "", "dim"), Span(problems, "warn")]


def forks_text(sweep: Sweep) -> str:
    """Return the command that computes what is missing, as one types it."""
    return f"tscope forks {shlex.quote(str(sweep.base))} --compute"


def since_option(data: RunData, state: RunState) -> dict[str, object]:
    """Return the options of the shown gradients; where none are, the steps at which forks part."""
    found, sweep = shown_of(data, state), averages_of(data).sweep
    if found is not None:
        return dict(found.options)
    steps = sorted({one.same_until for one in sweep.forks if one.same_until < data.last}) if sweep else []
    return {"since": ",".join(map(str, steps))} if steps else {}


def analyse_text(data: RunData, state: RunState) -> str:
    """Return the command that computes the gradients, as one types it."""
    since = since_option(data, state).get("since")
    command = f"tscope analyze {shlex.quote(str(data.path))} --metric {METRIC}"
    return f"{command} --since {since}" if since else command


def _missing(data: RunData, state: RunState, loaded: bool) -> tuple[str, ...]:
    """Return what would provide the gradients."""
    lacks = averages_of(data).lacks
    return absence(data, "changes of gradients", lacks, analyse_text(data, state), loaded=loaded)
