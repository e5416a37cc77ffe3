"""The panes of the updates of an opened run: the optimizer's terms, and the training examples' influences."""

from __future__ import annotations

import numpy as np

from tscope_tui.data.run import RunData
from tscope_tui.data.updates import METRIC, Updates
from tscope_tui.panes.influence import InfluencePane
from tscope_tui.panes.pane import Pane
from tscope_tui.panes.terms import TermsPane, span
from tscope_tui.plot import compact
from tscope_tui.spans import Span
from tscope_tui.stages.flags import analyse_text, flags
from tscope_tui.stages.run_absence import absence
from tscope_tui.stages.run_examples import chosen_of
from tscope_tui.stages.run_notes import status
from tscope_tui.stages.run_state import RunState

_NONE = np.zeros(0, np.int64)
# Traced examples that are named.
_NAMED = 8


def panes_at(data: RunData, state: RunState, *, loaded: bool) -> dict[str, Pane]:
    """Return the panes of the terms and the influences; what they show is of the cursor's step."""
    found = data.updates
    if found is None:
        told = _missing(data, loaded)
        return {"terms": TermsPane((), None, 0, empty=told), **_nothing(told)}
    return {"terms": _terms(data, found, state), **_influences(data, found, state)}


def _terms(data: RunData, found: Updates, state: RunState) -> TermsPane:
    """Return the terms over the part of the view's range that the result covers."""
    start = 0 if data.steps is None else data.steps.first
    band = state.shown_band() or (float(start), float(data.last))
    low, high = round(band[0]), round(band[1])
    steps = found.covered(low, high)
    step = int(found.step[found.row(state.cursor)]) if found.step.size else 0
    # Steps are counted from the one after the range's first state, as `--steps` does.
    asked = (max(low, start) + 1, high)
    if steps is None:
        return TermsPane((), None, step, empty=_beyond(data, found, asked))
    left = ((asked[0], min(asked[1], steps[0] - 1)), (max(asked[0], steps[1] + 1), asked[1]))
    return TermsPane(
        tuple(found.terms(low, high, state.cursor)),
        steps,
        step,
        tuple(part for part in left if part[0] <= part[1]),
        ("the predictions did not move in this range",),
    )


def _beyond(data: RunData, found: Updates, asked: tuple[int, int]) -> tuple[str, ...]:
    """Return why a result shows nothing of the steps that are asked for."""
    if asked[0] > asked[1]:
        return ("no step is marked",)
    saved = f"the saved result is of steps {span(found.first, found.last)}"
    if asked[0] <= found.last and asked[1] >= found.first:
        return (f"{saved}, in intervals, and none ends in steps {span(*asked)}: mark more",)
    chosen = flags(METRIC, {name: value for name, value in found.options.items() if name != "steps"})
    return (
        f"steps {span(*asked)} are not covered: {saved}; for all steps, run:",
        " ".join((analyse_text(data.path, METRIC), *chosen)),
    )


def _nothing(told: tuple[str, ...]) -> dict[str, Pane]:
    return {
        name: InfluencePane(title, _NONE, np.zeros(0), empty=told)
        for name, title in (("influence", "influence"), ("visits", "by visits"))
    }


def _influences(data: RunData, found: Updates, state: RunState) -> dict[str, Pane]:
    if found.influence is None:
        told = ("no influences were traced: press a, or run:", analyse_text(data.path, METRIC))
        return _nothing(told)
    example = traced_example(data, found, state)
    if example is not None and example not in found.traced:
        known = ", ".join(map(str, found.traced[:_NAMED].tolist())) + (
            ", …" if found.traced.size > _NAMED else ""
        )
        return _nothing(
            (
                f"example {example} was not traced, only {known} (s orders by influence); press a, or run:",
                f"{analyse_text(data.path, METRIC)} --influence {example}",
            )
        )
    place = found.place(example)
    output = _output(data, found, state, int(found.traced[place]))
    name = f"f{f'[{output}]' if found.outputs > 1 else ''} of example {int(found.traced[place])}"
    whole = found.influences(place, output)
    steps = f"steps {span(found.first, found.last)}" if found.step.size else ""
    influence = InfluencePane(
        f"influence on {name}, {steps}",
        whole.example,
        whole.value,
        whole.memory if whole.memory.any() else None,
        state.first_influence,
        f"{whole.example.size} add up to {compact(whole.total, 3)}",
    )
    at = found.visits(place, output, state.cursor)
    if at is None:
        return {"influence": influence, "visits": influence}
    visits = InfluencePane(
        f"by visits @{at.step:,}",
        at.example,
        at.value,
        foot="what they did until the last step",
        empty=("no example was visited in this row",),
    )
    return {"influence": influence, "visits": visits}


def _output(data: RunData, found: Updates, state: RunState, example: int) -> int:
    """Return the output whose influences are shown: the chosen one, else that of the example's class."""
    examples = data.examples
    if state.choice.output is not None:
        return min(state.choice.output, max(0, found.outputs - 1))
    if examples is None or examples.classes is None or examples.probe != found.probe:
        return 0
    # Of a single output the class is its sign.
    return int(examples.classes.labels[example]) if examples.width == found.outputs > 1 else 0


def traced_example(data: RunData, found: Updates, state: RunState) -> int | None:
    """Return the chosen example, of the result's own probe set; None leaves the choice to the result."""
    if data.examples is None or data.examples.probe != found.probe:
        return state.choice.example if state.choice.example in found.traced else None
    return chosen_of(data, state)


def status_of(data: RunData, found: Updates, state: RunState) -> list[Span]:
    """Return which prediction is shown, and how many notes the result has."""
    place = found.place(traced_example(data, found, state))
    traced = f"example {int(found.traced[place])}, {found.traced.size} traced · " if found.traced.size else ""
    told = data.telescoping
    # The chart above them is of the newest predictions, which may be of other examples.
    other = f" · f(x) of {told.probe}" if told is not None and told.probe != found.probe else ""
    return status(f" {traced}probe {found.probe}", found.notes, other)


def _missing(data: RunData, loaded: bool) -> tuple[str, ...]:
    """Return what would provide the terms and influences."""
    return absence(
        data, "terms of updates", data.updates_lacks, analyse_text(data.path, METRIC), loaded=loaded
    )
