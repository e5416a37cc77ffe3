"""The panes of an opened run, from its data and the reader's choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tscope_tui.data.entry import Entry
from tscope_tui.data.run import RunData
from tscope_tui.data.telescoping import Telescoping, shares
from tscope_tui.panes.chart import ChartPane
from tscope_tui.panes.facts import FactsPane
from tscope_tui.panes.pane import Pane
from tscope_tui.panes.shares import SharesPane
from tscope_tui.panes.traces import TracesPane
from tscope_tui.plot import Dash, Series
from tscope_tui.stages import run_examples
from tscope_tui.stages.flags import analyse_text
from tscope_tui.stages.run_absence import unread
from tscope_tui.stages.run_along import along_panes
from tscope_tui.stages.run_averaging import averaging_panes
from tscope_tui.stages.run_boosting import boosting_panes
from tscope_tui.stages.run_collapse import collapse_panes
from tscope_tui.stages.run_effective import effective_panes
from tscope_tui.stages.run_events import events_pane
from tscope_tui.stages.run_forks import forks_panes
from tscope_tui.stages.run_kernel import kernel_panes
from tscope_tui.stages.run_layers import layers_panes
from tscope_tui.stages.run_regime import regime_panes
from tscope_tui.stages.run_state import RunState

# One dash and one colour for each of the three, in every pane.
_HUES = {"actual": 0, "telescoped": 1, "lazy": 2}
_DASHES: dict[str, Dash] = {"actual": "solid", "telescoped": "dash", "lazy": "dot"}


def panes_of(
    data: RunData, state: RunState, siblings: Sequence[Entry], side: int, *, loaded: bool
) -> dict[str, Pane]:
    """Return every pane by name.

    Args:
        data: The run.
        state: What the reader looks at.
        siblings: The traces of the side bar.
        side: The chosen one of them.
        loaded: Whether the predictions have been read.
    """
    telescoping = data.telescoping
    averaged = loaded and data.averages is not None
    return {
        "loss": _scalars(data, state, "loss", {"loss": "loss"}, log=True),
        "accuracy": _accuracy(data, state),
        "update": _scalars(data, state, "update", {"update_norm": "‖Δθ‖", "theta_norm": "‖θ‖"}, log=True),
        "events": events_pane(data, loaded=loaded),
        "prediction": _predictions(data, telescoping, loaded),
        "error": _errors(data, telescoping, loaded),
        "layers": _layers(data, state, telescoping, loaded),
        **effective_panes(data, loaded=loaded),
        **kernel_panes(data, state, loaded=loaded),
        **boosting_panes(data, loaded=loaded),
        **averaging_panes(data, state, loaded=averaged),
        **forks_panes(data, state, loaded=averaged),
        **along_panes(data, state, loaded=averaged),
        **layers_panes(data, state, loaded=loaded),
        **regime_panes(data, state, loaded=loaded),
        **collapse_panes(data, state, loaded=loaded),
        **run_examples.panes_of(data, state, loaded=loaded),
        "traces": TracesPane(tuple(siblings), selected=side, compact=True),
        "recorded": FactsPane(_facts(data)),
    }


def _facts(data: RunData) -> tuple[tuple[str, str], ...]:
    return (*(("error", text) for text in data.problems), *data.facts)


def _scalars(data: RunData, state: RunState, name: str, labels: Mapping[str, str], *, log: bool) -> ChartPane:
    dashes: tuple[Dash, ...] = ("solid", "dash")
    series: list[Series] = []
    for array, label in labels.items():
        curve = data.curve(array, state.window)
        if curve is not None and curve.values.size and not (curve.values != curve.values).all():
            # Row 0 is the state before training: its update is zero by definition.
            skip = 1 if array == "update_norm" and curve.steps.size > 1 and curve.steps[0] == 0 else 0
            series.append(Series(label, curve.steps[skip:], curve.values[skip:], dashes[len(series)]))
    first = series[0] if series else None
    positive = first is not None and bool((first.points[1] > 0).any())
    return ChartPane(name, tuple(series), log and positive, unread(data) or (f"no {name} was recorded",))


def _accuracy(data: RunData, state: RunState) -> ChartPane:
    telescoping = data.telescoping
    if telescoping is not None and telescoping.accuracy:
        series = tuple(
            Series(label, telescoping.step, telescoping.accuracy[name], _DASHES[name], _HUES[name])
            for name, label in (("actual", "network"), ("telescoped", "telescoped"), ("lazy", "lazy"))
            if name in telescoping.accuracy
        )
        return ChartPane(f"accuracy on {telescoping.probe}", series)
    return _scalars(data, state, "gradient", {"grad_norm": "‖g‖"}, log=True)


def _missing(data: RunData, loaded: bool) -> tuple[str, ...]:
    """Return what would provide the predictions."""
    return unread(data, loaded=loaded) or (
        "no predictions were recorded and none are saved",
        "press a, or run:",
        f"{analyse_text(data.path, 'telescoping')} --probe FILE.npz",
    )


def _predictions(data: RunData, telescoping: Telescoping | None, loaded: bool) -> ChartPane:
    if telescoping is None or not telescoping.step.size:
        return ChartPane("f(x)", (), empty=_missing(data, loaded))
    series = [
        Series(name, telescoping.step, telescoping.curves[name], _DASHES[name], _HUES[name])
        for name in ("actual", "telescoped", "lazy")
    ]
    return ChartPane("f(x)" if telescoping.single else "‖f−f₀‖ rms", tuple(series))


def _errors(data: RunData, telescoping: Telescoping | None, loaded: bool) -> ChartPane:
    if telescoping is None or telescoping.step.size < 2:
        return ChartPane("|error|", (), empty=_missing(data, loaded))
    # The error at the start is zero by definition, which a log axis could not show.
    series = [
        Series(name, telescoping.step[1:], telescoping.errors[name][1:], _DASHES[name], _HUES[name])
        for name in ("telescoped", "lazy")
    ]
    return ChartPane("|error|", tuple(series), log_y=True)


def _layers(data: RunData, state: RunState, telescoping: Telescoping | None, loaded: bool) -> SharesPane:
    band = state.shown_band() or (0.0, float(data.last))
    low, high = round(band[0]), round(band[1])
    if telescoping is None or telescoping.contribution is None:
        told = (
            _missing(data, loaded)
            if telescoping is None
            else ("needs replay: press a, or run:", f"{analyse_text(data.path, 'telescoping')} --replay")
        )
        return SharesPane((), low, high, empty=told)
    parts = tuple(shares(telescoping, low, high))
    return SharesPane(parts, low, high, state.first_layer, ("the predictions did not move in this range",))
