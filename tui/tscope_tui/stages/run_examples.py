"""The panes of the examples of an opened run: their list, and what is known of one of them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tscope_tui.data.examples import Examples
from tscope_tui.data.kernel import METRIC as KERNEL
from tscope_tui.data.run import RunData
from tscope_tui.data.telescoping import Choice
from tscope_tui.data.updates import Updates
from tscope_tui.panes.chart import ChartPane
from tscope_tui.panes.examples import ExamplesPane
from tscope_tui.panes.layermap import LayerMapPane
from tscope_tui.panes.neighbours import NeighboursPane
from tscope_tui.panes.pane import Pane
from tscope_tui.panes.picture import PicturePane
from tscope_tui.plot import DASHES, Series, compact
from tscope_tui.spans import Span
from tscope_tui.stages.flags import analyse_text
from tscope_tui.stages.run_absence import absence, unread
from tscope_tui.stages.run_state import RunState

Order = Literal["loss", "forgetting", "‖s(x)‖²", "influence", "number"]
ORDERS: tuple[Order, ...] = get_args(Order)
# Outputs whose curves are told apart in one chart.
_CURVES = 6
_TOP = 3
_NOTHING = np.zeros(0)


def norms_of(data: RunData, step: float) -> NDArray[np.float64] | None:
    """Return ‖s(x)‖² of each example of the shown probe set (example,) at a step; None where not known.

    Held-out examples are those of the saved result if it is of the same set, and of all of it. Examples of an
    in-sample set are looked up among the training examples; NaN where one is none of them.
    """
    found, effective = data.examples, data.effective
    if found is None or effective is None:
        return None
    _, norms = effective.spread(step)
    held = norms.get("test")
    if held is not None and effective.probe == found.probe and held.size == found.count:
        return held.astype(np.float64)
    trained = norms.get("train")
    if trained is None or found.numbers is None:
        return None
    size = max(int(effective.examples.max(initial=-1)), int(found.numbers.max(initial=-1))) + 1
    known = np.full(size + 1, np.nan)
    known[effective.examples] = trained
    return known[np.where(found.numbers < 0, size, found.numbers)]


def orders_of(data: RunData, step: float) -> list[Order]:
    """Return what the examples can be ordered by."""
    found = data.examples
    if found is None:
        return ["number"]
    there = {
        "loss": bool(found.measure),
        "forgetting": found.forgotten is not None,
        "‖s(x)‖²": norms_of(data, step) is not None,
        "influence": bool(_influences(data)),
        "number": True,
    }
    return [order for order in ORDERS if there[order]]


def order_of(data: RunData, state: RunState) -> Order:
    """Return what they are ordered by: what was asked for, if it is known, else the first that is."""
    known = orders_of(data, state.cursor)
    return next((order for order in known if order == state.example_order), known[0])


def ranked(data: RunData, state: RunState) -> NDArray[np.int64]:
    """Return the examples (example,) in the order that was asked for, the largest first, then by number."""
    found, order = data.examples, order_of(data, state)
    if found is None:
        return np.zeros(0, np.int64)
    values: NDArray[np.float64] | None = None
    if order == "loss":
        return _by_loss(found, found.row(state.cursor))
    if order == "number":
        return np.arange(found.count)
    if order == "forgetting" and found.forgotten is not None:
        values = found.forgotten.astype(np.float64)
    elif order == "‖s(x)‖²":
        values = norms_of(data, state.cursor)
    elif order == "influence":
        values = np.zeros(found.count)
        for example, (total, _) in _influences(data).items():
            values[example] = total
    return np.arange(found.count) if values is None else _descending(values)


def _descending(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")


def _by_loss(found: Examples, row: int) -> NDArray[np.int64]:
    """Remembered: one painting asks for it several times."""

    def made() -> NDArray[np.int64]:
        values = found.loss(row)
        return np.arange(found.count) if values is None else _descending(values)

    return found.once(("by loss", row), made)


def chosen_of(data: RunData, state: RunState) -> int:
    """Return the chosen example: the first of the list as long as none is."""
    if state.choice.example is not None:
        return state.choice.example
    order = ranked(data, state)
    return int(order[0]) if order.size else 0


def panes_at(data: RunData, state: RunState, prediction: Pane, *, loaded: bool) -> dict[str, Pane]:
    """Return the panes that are of the cursor's step or of the chosen example.

    Args:
        data: The run.
        state: What the reader looks at.
        prediction: The chart of the chosen example and output, or of all.
        loaded: Whether the outputs have been read.
    """
    chosen = chosen_of(data, state)
    influences = {example: top for example, (_, top) in _influences(data).items()}
    return {
        "examples": ExamplesPane(
            data.examples,
            state.cursor,
            ranked(data, state),
            order_of(data, state),
            chosen,
            norms_of(data, state.cursor),
            influences,
            _missing(data, loaded),
        ),
        "outputs": _outputs(data, state, chosen, prediction, loaded),
        "neighbours": _neighbours(data, state, chosen, loaded),
        "picture": _picture(data, state, chosen, loaded),
    }


def panes_of(data: RunData, state: RunState, *, loaded: bool) -> dict[str, Pane]:
    """Return the panes that are of all steps."""
    return {"contribution": _contribution(data, state, loaded)}


def status_of(data: RunData, state: RunState) -> list[Span]:
    """Return which examples are shown, and in which order."""
    found = data.examples
    if found is None:
        return []
    measure = f" · loss: {found.measure}" if found.measure else " · no labels, no loss"
    place = ", in-sample" if found.in_sample else ""
    return [
        Span(
            f" probe {found.probe}{place}: {found.count:,} examples × {found.width}{measure} · "
            f"by {order_of(data, state)} (s)",
            "dim",
        )
    ]


def _missing(data: RunData, loaded: bool) -> tuple[str, ...]:
    return unread(data, loaded=loaded) or (
        "no outputs of single examples were recorded, and none are saved",
        "record with a probe set (`tscope record --probe FILE.npz`), or run:",
        f"{_telescoping(data)} --probe FILE.npz",
    )


def _telescoping(data: RunData) -> str:
    """Return the command that replays a run, as one types it."""
    return f"{analyse_text(data.path, 'telescoping')} --replay"


def _influences(data: RunData) -> Mapping[int, tuple[float, tuple[int, ...]]]:
    """Return Σ|influence| of each traced example that is shown, and the training examples with most of it."""
    found, updates = data.examples, data.updates
    if found is None or updates is None or updates.probe != found.probe:
        return {}
    return _traced(updates, found.count)


@lru_cache(maxsize=4)
def _traced(updates: Updates, count: int) -> Mapping[int, tuple[float, tuple[int, ...]]]:
    """Cached: no cursor moves it, and there may be many training examples to sort."""
    if updates.influence is None:
        return {}
    sizes = np.nan_to_num(np.abs(updates.influence)).sum(1)
    order = np.argsort(-sizes, axis=1, kind="stable")[:, :_TOP]
    return {
        example: (float(sizes[place].sum()), tuple(updates.train[order[place]].tolist()))
        for place, example in enumerate(updates.traced.tolist())
        if example < count
    }


def _outputs(data: RunData, state: RunState, chosen: int, prediction: Pane, loaded: bool) -> Pane:
    """Return every output of the chosen example over steps; of one output the models that tell it."""
    found, told = data.examples, data.telescoping
    if found is None:
        return ChartPane("f(x)", (), empty=_missing(data, loaded))
    output = state.choice.output
    if (
        told is not None
        and (told.probe, told.choice) == (found.probe, Choice(chosen, output))
        and (output is not None or found.width == 1)
    ):
        return prediction
    series = _curves(found, min(chosen, found.count - 1), output)
    rest = found.width - len(series)
    more = f", {rest} more (o)" if rest > 0 and output is None else ""
    return ChartPane(f"f(x) of {chosen}{more}", series)


def _curves(found: Examples, example: int, output: int | None) -> tuple[Series, ...]:
    """Return an example's curves; remembered, so that charts are not drawn anew when the cursor moves."""

    def made() -> tuple[Series, ...]:
        places = [output] if output is not None and output < found.width else _largest(found, example)
        return tuple(
            Series(
                str(place), found.step, found.outputs[:, example, place], DASHES[index % len(DASHES)], index
            )
            for index, place in enumerate(places)
        )

    return found.once(("curves", example, output), made)


def _largest(found: Examples, example: int) -> list[int]:
    """Return the outputs to show of an example: its label's, and the largest at the end."""
    last = np.nan_to_num(found.outputs[-1, example].astype(np.float64))
    order = np.argsort(-np.abs(last), kind="stable")[:_CURVES].tolist()
    label = None if found.classes is None or found.width == 1 else int(found.classes.labels[example])
    if label is not None and label not in order:
        order[-1] = label
    return sorted(order, key=lambda place: place != label)


def _contribution(data: RunData, state: RunState, loaded: bool) -> LayerMapPane:
    told = data.telescoping
    if told is None or told.contribution is None or told.contribution_step is None:
        lacks = ("an ensemble of trees has none",) if data.trees else ()
        empty = absence(data, "contributions of layers", lacks, _telescoping(data), loaded=loaded)
        return LayerMapPane((), _NOTHING, np.zeros((0, 0)), empty=empty)
    of = "all examples" if told.own is None else f"example {told.choice.example}"
    values = told.contribution if told.own is None else told.own
    title = f"‖JΔθ‖ by layer and step, {of}"
    return LayerMapPane(told.layers, told.contribution_step, values, state.first_layer, title)


def _neighbours(data: RunData, state: RunState, chosen: int, loaded: bool) -> NeighboursPane:
    kernel, found = data.kernel, data.examples
    title = f"nearest to {chosen} in K"

    def nothing(*told: str) -> NeighboursPane:
        return NeighboursPane(title, (), _NOTHING, _NOTHING, told)

    command = f"{analyse_text(data.path, KERNEL)} --matrix 0,last"
    if kernel is None:
        told = absence(data, "tangent kernel", data.kernel_lacks, command, loaded=loaded)
        return NeighboursPane(title, (), _NOTHING, _NOTHING, told)
    if kernel.matrices is None or not kernel.matrices.pairs.size:
        return nothing("no matrix of the kernel was kept: press a, or run:", command)
    if found is None:
        return nothing(*_missing(data, loaded))
    matrices = kernel.matrices
    point = matrices.point(train=False, number=chosen) if kernel.probe == found.probe else None
    if point is None and found.numbers is not None and found.numbers[chosen] >= 0:
        point = matrices.point(train=True, number=int(found.numbers[chosen]))
    if point is None:
        probe = f" --probe {shlex.quote(found.probe)}" if not found.in_sample else ""
        return nothing(
            f"example {chosen} of {found.probe} is none of the saved kernel's points; for all of them:",
            f"{command}{probe} --test {found.count} --train N",
        )
    index = matrices.at(state.cursor)
    order, cosine = matrices.nearest(index, point)
    names = [matrices.name(one) for one in order.tolist()]
    step = int(matrices.step[index])
    empty = (f"the kernel of example {chosen} is zero at step {step:,}",)
    return NeighboursPane(f"{title} @{step:,}", names, cosine, matrices.pairs[index, point, order], empty)


def _picture(data: RunData, state: RunState, chosen: int, loaded: bool) -> PicturePane:
    found, shown = data.examples, data.shown
    if found is None:
        return PicturePane(None, empty=_missing(data, loaded))
    row = found.row(state.cursor)
    label, told = found.label, found.told(row)
    title = f"input {chosen}"
    if label is not None:
        title += f", y {compact(float(label[chosen]))}"
    if told is not None:
        title += f", told {compact(float(told[chosen]), 3)}"
    if shown is None:
        return PicturePane(None, title, ("no inputs of this set are in the trace",))
    if shown.example != chosen:
        return PicturePane(None, title, ("reading …",))
    return PicturePane(shown, title)
