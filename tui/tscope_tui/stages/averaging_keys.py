"""What the keys of view 5 choose, and which analysis fills its panes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tscope_tui.data import averaging, gradients
from tscope_tui.data.run import RunData
from tscope_tui.stages import run_along, run_averaging, run_forks
from tscope_tui.stages.run_averaging import averages_of
from tscope_tui.stages.run_state import RunState

VIEWS = ("averaging", "forks", "along")
# The saved results of each view: where the chosen one is kept in the state.
_RESULTS = {"averaging": "average", "forks": "gradients", "along": "along"}
_STEPS = re.compile(r"\s*(\d+|last)(\s*,\s*(\d+|last))+\s*")


@dataclass(frozen=True)
class Request:
    """An analysis that fills a pane.

    Attributes:
        path: The trace.
        metric: The metric; empty for the whole fork sweep.
        options: Its options.
    """

    path: Path
    metric: str
    options: Mapping[str, object]


def chosen(data: RunData, state: RunState, pane: str, direction: int) -> RunState | None:
    """Return the state with the next row of a pane chosen; None where there is nothing to choose from."""
    sweep = averages_of(data).sweep
    if pane == "sweep" and sweep is not None and sweep.forks:
        # From the fork that is shown first on.
        state = state.at_row("fork", run_forks.fork_of(sweep, state))
        state = state.other_row("fork", direction, len(sweep.forks))
        # The steps from which gradients are followed, and the pair of view 5, come along.
        state = state.without_row("since")
        average = sweep.forks[state.rows["fork"]].average
        ids = [one.id for one in averages_of(data).pairs]
        return (
            state if average is None else state.at_row("average", ids.index(average.id)).without_row("point")
        )
    found = run_forks.shown_of(data, state)
    if pane in ("since", "drift") and found is not None:
        state = state.at_row("since", run_forks.since_of(data, found, state))
        return state.other_row("since", direction, found.since.size)
    if pane == "stable" and found is not None:
        return state.other_row("layer", direction, len(found.layers))
    average = run_averaging.shown_of(data, state)
    if pane == "single layers" and average is not None and average.layers:
        return state.other_row("layer", direction, len(average.layers))
    along = run_along.shown_of(data, state)
    if pane == "candidates" and along is not None:
        return state.other_row("candidate", direction, len(along.candidates))
    return None


def pointed(data: RunData, state: RunState, direction: int) -> RunState | None:
    """Return the state with the next place on the axis of the averages; None where there is none."""
    found = run_averaging.shown_of(data, state)
    if found is None:
        return None
    state = state.at_row("point", run_averaging.point_of(found, state))
    return state.other_row("point", direction, found.x.size)


def quantities(view: str) -> Sequence[str]:
    """Return the quantities that a view shows one after the other."""
    shown: Mapping[str, Sequence[str]] = {
        "averaging": tuple(run_averaging.QUANTITIES),
        "forks": tuple(run_forks.QUANTITIES),
        "along": run_along.QUANTITIES,
    }
    return shown[view]


def other_result(data: RunData, state: RunState) -> tuple[RunState, str]:
    """Return the state with the next saved result of the view, and what to say of it."""
    known = averages_of(data)
    name = _RESULTS[state.view]
    found = {"average": known.pairs, "gradients": known.gradients, "along": known.runs}[name]
    if data.averages is None:
        return state, "the saved results are being read"
    if len(found) < 2:
        return state, "only one result is saved" if found else "no result is saved; see the pane"
    place = (min(state.rows.get(name, 0), len(found) - 1) + 1) % len(found)
    own = found[place]
    told = f"result {place + 1} of {len(found)}"
    if isinstance(own, averaging.Average):
        told = f"{told}: {', '.join(own.members)}"
    return state.at_row(name, place).without_row("point" if name == "average" else "since"), told


def request_of(data: RunData, state: RunState, pane: str) -> Request | None:
    """Return the analysis that fills a pane, with the options of what is shown.

    None where it has to be asked what to average with.
    """
    known = averages_of(data)
    along, average = run_along.shown_of(data, state), run_averaging.shown_of(data, state)
    if state.view == "along":
        return Request(data.path, averaging.METRIC, {} if along is None else along.options)
    sweep = known.sweep
    if pane in run_forks.DRIFT or (pane in run_forks.SWEEP and (sweep is None or not sweep.forks)):
        return Request(data.path, gradients.METRIC, run_forks.since_option(data, state))
    if (
        sweep is not None
        and sweep.forks
        and (pane in run_forks.SWEEP or (average is None and sweep.shown is None))
    ):
        return Request(sweep.base, "", {})
    if average is not None:
        return Request(average.path, averaging.METRIC, _reachable(average.options, average.path.parent))
    if sweep is not None and sweep.shown is not None:
        return Request(data.path, averaging.METRIC, {"against": str(sweep.base)})
    return None


def answered(data: RunData, text: str) -> Request | None:
    """Return the analysis that an answer asks for: other traces, or steps of this one; None for nothing."""
    if not text.strip():
        return None
    name = "at" if _STEPS.fullmatch(text) else "against"
    return Request(data.path, averaging.METRIC, {name: re.sub(r"\s*,\s*", ",", text.strip())})


def _reachable(options: Mapping[str, object], folder: Path) -> dict[str, object]:
    """Return options with the other traces where they are: as they were named, else beside the trace."""
    against = options.get("against")
    if not isinstance(against, str) or Path(against).exists():
        return dict(options)
    paths = [Path(one) for one in against.split(",")]
    beside = [one if one.exists() or not (folder / one.name).exists() else folder / one.name for one in paths]
    return {**options, "against": ",".join(map(str, beside))}
