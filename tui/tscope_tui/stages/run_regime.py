"""The panes of movement and of singular modes of an opened run: view 6, once more."""

from __future__ import annotations

from tscope_tui.data.regime import METRIC, Regime
from tscope_tui.data.run import RunData
from tscope_tui.panes.chart import ChartPane
from tscope_tui.panes.facts import FactsPane
from tscope_tui.panes.pane import Pane
from tscope_tui.panes.rows import RowsPane
from tscope_tui.plot import DASHES, Dash, Series
from tscope_tui.spans import Span
from tscope_tui.stages.flags import analyse_text
from tscope_tui.stages.run_absence import absence, noted
from tscope_tui.stages.run_collapse import held_out
from tscope_tui.stages.run_notes import readings, status
from tscope_tui.stages.run_state import RunState

VIEW = "regime"
# The array without its set, what it is called, and its colour; what follows is of both sets.
_MOVED = (("kernel_movement", "kernel", 1), ("feature_movement", "features", 2))
_TURNED = (("kernel_distance", "distance", 0), ("kernel_alignment", "align", 1))
# Modes whose curves are told apart, each beside its closed form.
_CURVES = 4
SHOWN = ("strength", "index")
_LABELS = {"strength": "network", "strength_closed": "closed form", "strength_unbalanced": "not balanced"}
_DASHES: tuple[Dash, ...] = ("solid", "dash", "dot")
# What the status line reads out.
_READ = {
    "movement": "θ",
    "kernel_movement_train": "K",
    "feature_movement_train": "features",
}


def regime_panes(data: RunData, state: RunState, *, loaded: bool) -> dict[str, Pane]:
    """Return the panes that are of the whole run."""
    found = data.regime
    if found is None or not found.step.size:
        told = _missing(data, loaded)
        charts = {"moved": "movement", "turned": "distance, alignment of K", "modes": "modes"}
        return {
            **{name: ChartPane(title, (), empty=told) for name, title in charts.items()},
            "regime method": FactsPane(noted(told), "method"),
        }
    moved = (Series("θ", found.step, found.series["movement"], "solid", 0), *_both(found, _MOVED, 1))
    moving = any((one.points[1] > 0).any() for one in moved)
    turned = _both(found, _TURNED, 0)
    return {
        # At the start, where nothing has moved, a logarithmic axis has no point.
        "moved": ChartPane("moved", tuple(map(_after_start, moved)), log_y=moving),
        "turned": ChartPane("K", turned, empty=_without(data, found, "kernel")),
        "modes": _modes(data, found, state),
        "regime method": FactsPane((*found.facts, *(("note", note) for note in found.notes)), "method"),
    }


def panes_at(data: RunData, state: RunState, *, loaded: bool) -> dict[str, Pane]:
    """Return the pane that is of the cursor's step: what each mode has learnt."""
    found = data.regime
    if found is None or not found.count:
        told = _missing(data, loaded) if found is None else _without(data, found, "modes")
        return {"learning": RowsPane("modes", "learning times", "mode", (), {}, empty=told)}
    row, learning = found.row(state.cursor), found.learning
    known = {
        "s": learning.get("target"),
        "u": found.modes["strength"][row],
        "u closed": found.modes["strength_closed"][row] if "strength_closed" in found.modes else None,
        "t half": learning.get("half_step"),
        "t closed": learning.get("half_step_closed"),
        "Λ/s": found.modes["index"][row] if "index" in found.modes else None,
        "D": learning.get("frequency"),
    }
    columns = {name: values for name, values in known.items() if values is not None}
    names = tuple(str(mode) for mode in range(found.count))
    chosen = mode_of(found, state)
    step = int(found.step[row])
    return {"learning": RowsPane("modes", f"modes @{step:,}", "mode", names, columns, chosen, step=step)}


def mode_of(found: Regime, state: RunState) -> int | None:
    """Return the chosen mode; None as long as none is."""
    chosen = state.rows.get("mode", -1)
    return min(chosen, found.count - 1) if chosen >= 0 and found.count else None


def shown_of(found: Regime, state: RunState) -> str:
    """Return what is shown of the modes: their strength, or the index of their layers."""
    known = [name for name in SHOWN if name in found.modes]
    return known[state.quantities.get(VIEW, 0) % len(known)] if known else SHOWN[0]


def status_of(found: Regime, cursor: int) -> list[Span]:
    """Return the movements at the cursor, and how many notes the result has."""
    if not found.step.size:
        return []
    row = found.row(cursor)
    values = readings(found.series, row, _READ)
    return status(f" step {int(found.step[row]):,}: moved {values} · saved result", found.notes)


def arrays_of(found: Regime, state: RunState, pane: str) -> tuple[str, ...]:
    """Return the arrays of the result that a pane shows."""
    if pane == "modes":
        names = ("index",) if shown_of(found, state) == "index" else tuple(_LABELS)
        return tuple(name for name in names if name in found.modes)
    if pane == "learning":
        return (*found.learning, *(name for name in found.modes if name != "strength_unbalanced"))
    shown = {"moved": _MOVED, "turned": _TURNED}.get(pane, ())
    both = [f"{name}_{part}" for name, _, _ in shown for part in ("train", "test")]
    return tuple(name for name in (*(["movement"] if pane == "moved" else []), *both) if name in found.series)


def _missing(data: RunData, loaded: bool) -> tuple[str, ...]:
    """Return what would provide the movements."""
    return absence(data, "movements", data.regime_lacks, analyse_text(data.path, METRIC), loaded=loaded)


def _without(data: RunData, found: Regime, part: str) -> tuple[str, ...]:
    """Return why a result lacks a part: what it says itself, else that it was not asked for."""
    said = tuple(note for note in found.notes if note.startswith(f"no {part}:"))
    return said or (f"the saved result has no {part}: press a, or run:", analyse_text(data.path, METRIC))


def _both(found: Regime, shown: tuple[tuple[str, str, int], ...], first: int) -> tuple[Series, ...]:
    """Return the curves of training and of held-out examples; so many others stand before them."""
    known = [
        (held_out(label) if part == "test" else label, found.series[f"{name}_{part}"], hue)
        for part in ("train", "test")
        for name, label, hue in shown
        if f"{name}_{part}" in found.series
    ]
    return tuple(
        Series(label, found.step, values, DASHES[(first + place) % len(DASHES)], hue)
        for place, (label, values, hue) in enumerate(known)
    )


def _after_start(one: Series) -> Series:
    """Return a curve without its first row; one of a single row as it is."""
    x, y = one.points
    return one if x.size < 2 else Series(one.label, x[1:], y[1:], one.dash, one.hue)


def _modes(data: RunData, found: Regime, state: RunState) -> ChartPane:
    """Return the strengths of the modes beside their closed forms, or the index of each."""
    if not found.count:
        return ChartPane("modes", (), empty=_without(data, found, "modes"))
    chosen = mode_of(found, state)
    if shown_of(found, state) == "index":
        picked = range(min(_CURVES, found.count)) if chosen is None else [chosen]
        values = found.modes["index"]
        curves = [
            Series(str(mode), found.step, values[:, mode], DASHES[mode % len(DASHES)], mode)
            for mode in picked
        ]
        return ChartPane("Λ/s (w)", tuple(curves))
    if chosen is not None:
        series = tuple(
            Series(label, found.step, found.modes[name][:, chosen], dash, hue)
            for hue, ((name, label), dash) in enumerate(zip(_LABELS.items(), _DASHES, strict=True))
            if name in found.modes
        )
        return ChartPane(f"u of mode {chosen} (w)", series)
    pairs: tuple[tuple[str, str, Dash], ...] = (
        ("strength", "", "solid"),
        ("strength_closed", " closed", "dash"),
    )
    curves = [
        Series(f"{mode}{end}", found.step, found.modes[name][:, mode], dash, mode)
        for name, end, dash in pairs
        if name in found.modes
        for mode in range(min(_CURVES, found.count))
    ]
    rest = found.count - _CURVES
    return ChartPane(f"u of modes (w){f', {rest} less' if rest > 0 else ''}", tuple(curves))
