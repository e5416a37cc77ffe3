"""The commands that give the numbers of the panes of view 5, to be copied."""

from __future__ import annotations

from collections.abc import Sequence

from tscope_tui.data.averaging import FAMILIES, Average
from tscope_tui.data.forks import Sweep
from tscope_tui.data.run import RunData
from tscope_tui.stages import run_along, run_averaging, run_forks
from tscope_tui.stages.averaging_keys import request_of
from tscope_tui.stages.flags import word
from tscope_tui.stages.repro import repro, text_of
from tscope_tui.stages.run_state import RunState


def reproduced(data: RunData, state: RunState, pane: str) -> list[str]:
    """Return the lines of a pane of view 5: the command line, Python, and notes; none of other panes."""
    sweep = run_averaging.averages_of(data).sweep
    if sweep is not None and sweep.forks and (pane == "sweep" or _of_forks(data, state, pane)):
        return _sweep(
            sweep, run_forks.QUANTITIES[run_forks.quantity_of(state)], run_forks.quantity_of(state), pane
        )
    request = request_of(data, state, pane)
    if pane in run_averaging.PANES:
        average = run_averaging.shown_of(data, state)
        if average is not None:
            arrays = _of_averages(average, state, pane)
            return [
                *repro(pane, average.path, options=average.options, arrays=arrays),
                *_notes(average.notes),
            ]
    if pane in (*run_along.COURSES, "candidates"):
        along = run_along.shown_of(data, state)
        if along is not None:
            arrays = _along(along.sets, state, pane)
            return [*repro(pane, along.path, options=along.options, arrays=arrays), *_notes(along.notes)]
    if pane in (*run_forks.DRIFT, "since"):
        found = run_forks.shown_of(data, state)
        if found is not None:
            arrays = _gradients(found.sets, run_forks.quantity_of(state), pane)
            return [*repro(pane, found.path, options=found.options, arrays=arrays), *_notes(found.notes)]
    if request is not None and request.metric:
        return repro(pane, request.path, options=request.options)
    return []


def _of_forks(data: RunData, state: RunState, pane: str) -> bool:
    """Whether the changes of gradients in view are the means of forks and their base."""
    return pane == "since" and run_forks.known_of_forks(data, run_forks.quantity_of(state))


def _of_averages(average: Average, state: RunState, pane: str) -> list[str]:
    if pane in run_averaging.BLENDS:
        of = run_averaging.BLENDS[pane]
        return run_averaging.arrays_of(average, of, run_averaging.quantity_of(state))
    if pane == "single layers":
        return [name for name in average.barriers if name.endswith(average.sets[0])] if average.sets else []
    names = ("difference", "explained", "explained_alone", "share_average", "share_members")
    return [
        average.over,
        *(f"{name}_{of}" for name in names for of in average.known if f"{name}_{of}" in average.series),
    ]


def _along(sets: Sequence[str], state: RunState, pane: str) -> list[str]:
    quantity = run_along.quantity_of(state)
    if pane in run_along.COURSES:
        of = run_along.COURSES[pane]
        return ["step", *(f"{quantity}_{family}_{of}" for family in FAMILIES)]
    return ["candidate_value", *(f"candidate_loss_{of}" for of in sets)]


def _gradients(sets: Sequence[str], quantity: str, pane: str) -> list[str]:
    if pane == "drift":
        return ["since", "step", f"{quantity}_{sets[0]}", f"{quantity}_layer_{sets[0]}"]
    if pane == "stable":
        return ["since", *(f"stabilised_layer_{of}" for of in sets), f"change_end_layer_{sets[0]}"]
    return ["since", *(f"{quantity}_end_{of}" for of in sets)]


def _notes(notes: Sequence[str]) -> list[str]:
    return [f"# note: {note}" for note in notes]


def _sweep(sweep: Sweep, what: str, quantity: str, pane: str) -> list[str]:
    """Return the lines of a value against where forks part."""
    start = [
        "import tscope",
        "from pathlib import Path",
        f"base = Path({text_of(sweep.base)})",
        'for fork in tscope.open(base).facts["forks"]:',
        '    since = fork["same_until"]',
        '    path = base.parent / fork["trace"]',
    ]
    if pane == "sweep":
        loop = [
            "    pair = tscope.analyze(",
            '        path, "weight-averaging", against=str(base)',
            "    )",
            "    print(since, {",
            "        name: value",
            "        for name, value in pair.scalars.items()",
            f'        if name in ("barrier_{what}_train",',
            f'                    "barrier_{what}_test")',
            "    })",
        ]
    else:
        loop = [
            "    for run in (base, path):",
            "        moved = tscope.analyze(",
            '            run, "gradients", since=str(since)',
            "        )",
            f'        print(since, moved.scalars["{quantity}_train"])',
        ]
    return [
        "# command line",
        f"tscope forks {word(sweep.base)} --json",
        "",
        "# Python",
        *start,
        *loop,
        *(f"# {problem}" for problem in sweep.problems),
    ]
