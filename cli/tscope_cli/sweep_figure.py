"""The figure of a fork sweep: barriers, and how far gradients change, against the step t' of the fork."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tscope_format.errors import MissingDataError

from tscope_cli import figure
from tscope_cli.sweep import SETS, Fork

_TITLES = {"train": "training examples", "test": "held-out examples"}
_MARKS = ("o", "s", "^", "D", "v")
_NAMED = 8  # layers that the legend has room for
_SPREAD = 10  # steps t' further apart than that are on a logarithmic axis

Value = Callable[[Fork], float]


def save(sweeps: Mapping[str, Sequence[Fork]], path: Path) -> None:
    """Draw the sweeps of one or more runs over each other; the suffix chooses the kind of file.

    Raises:
        MissingDataError: Nothing was computed for any fork.
        UsageError: The file cannot be written.
    """
    rows = [fork for sweep in sweeps.values() for fork in sweep]
    drawings: list[figure.Drawing] = []
    for what in ("loss", "accuracy"):
        for name in reversed(SETS):
            title = f"barrier of the {what}, {_TITLES[name]}"
            drawings += _panel(sweeps, title, partial(_scalar, f"barrier_{what}_{name}"), log=False)
    for name in reversed(SETS):
        title = f"change of gradients from t' to the end, {_TITLES[name]}"
        drawings += _panel(sweeps, title, partial(_change, name, None), log=True)
    for base, sweep in sweeps.items():
        known = [own for own in reversed(SETS) if any(fork.layers(own) for fork in sweep)]
        if known:
            drawings.append(partial(_draw_layers, sweep, known[0], base if len(sweeps) > 1 else ""))
    if not drawings:
        raise MissingDataError("--plot: no result is saved for any of these forks; add `--compute`")
    seeds = max(len({fork.seed for fork in sweep}) for sweep in sweeps.values())
    title = f"forks of {', '.join(sweeps)}" + (f": {seeds} seeds, mean and range" if seeds > 1 else "")
    steps = sorted({fork.same_until for fork in rows})
    figure.write([partial(_on_axis, steps, draw) for draw in drawings], path, title, "t', the fork's step")


def _panel(
    sweeps: Mapping[str, Sequence[Fork]], title: str, value: Value, *, log: bool
) -> list[figure.Drawing]:
    """Return a panel of one value, if any fork has it."""
    known = any(math.isfinite(value(fork)) for sweep in sweeps.values() for fork in sweep)
    return [partial(_draw_sweeps, sweeps, title, value, log)] if known else []


def _draw_sweeps(
    sweeps: Mapping[str, Sequence[Fork]], title: str, value: Value, log: bool, axes: Any
) -> None:
    """Draw one value: a mark for each fork, a line through the seeds' means, their range as a band."""
    for index, (name, sweep) in enumerate(sweeps.items()):
        color, mark = figure.CYCLE[index % len(figure.CYCLE)], _MARKS[index % len(_MARKS)]
        known = [fork for fork in sweep if math.isfinite(value(fork))]
        at, middle, low, high = _over_seeds(known, value)
        axes.fill_between(at, low, high, color=color, alpha=0.2, linewidth=0)
        dashes = figure.DASHES[index % len(figure.DASHES)]
        axes.plot(at, middle, color=color, linestyle=dashes, linewidth=1.3, label=figure.plain(name))
        steps = [fork.same_until for fork in known]
        axes.plot(steps, [value(fork) for fork in known], mark, color=color, markersize=3, alpha=0.7)
    if log:
        axes.set_yscale("log")
    axes.set_title(title)
    if len(sweeps) > 1:
        axes.legend()


def _draw_layers(sweep: Sequence[Fork], name: str, base: str, axes: Any) -> None:
    """Draw the mean change of each layer's gradients, coloured by depth."""
    from matplotlib import colormaps

    layers = list(dict.fromkeys(layer for fork in sweep for layer in fork.layers(name)))
    count = len(layers)
    named = set(np.linspace(0, count - 1, min(count, _NAMED)).round().astype(int).tolist())
    for place, layer in enumerate(layers):
        value = partial(_change, name, layer)
        at, middle, _, _ = _over_seeds([fork for fork in sweep if math.isfinite(value(fork))], value)
        axes.plot(
            at,
            middle,
            color=colormaps["viridis"](place / max(1, count - 1) * 0.9),
            linestyle=figure.DASHES[place % len(figure.DASHES)],
            marker=".",
            linewidth=1.1,
            label=figure.plain(layer) if place in named else None,
        )
    axes.set_yscale("log")
    of = f" of {base}" if base else ""
    axes.set_title(figure.plain(f"change by layer{of}, {_TITLES[name]}, dark to light with depth"))
    axes.legend(ncols=2)


def _over_seeds(forks: Sequence[Fork], value: Value) -> NDArray[np.float64]:
    """Return where the forks of each step parted, and a value's mean, least and largest (4, fork step)."""
    groups: dict[int, list[Fork]] = {}
    for fork in forks:
        groups.setdefault(fork.step, []).append(fork)
    found = []
    for own in groups.values():
        at, values = [fork.same_until for fork in own], [value(fork) for fork in own]
        found.append((np.mean(at), np.mean(values), min(values), max(values)))
    return np.array(found, dtype=np.float64).reshape(-1, 4).T


def _on_axis(steps: Sequence[int], draw: figure.Drawing, axes: Any) -> None:
    """Draw something over the steps t': on a logarithmic axis, with room for 0, where they are far apart."""
    positive = [step for step in steps if step > 0]
    far = bool(positive) and steps[-1] > _SPREAD * positive[0]
    if far:  # before anything is drawn, so that the margins are of this scale
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.4)
    draw(axes)
    if far:
        axes.set_xlim(-0.2 * positive[0] if steps[0] == 0 else 0.8 * steps[0], 1.25 * steps[-1])
        axes.set_xticks(steps, [f"{step:,}" for step in steps])
        axes.minorticks_off()


def _scalar(name: str, fork: Fork) -> float:
    return fork.values.get(name, math.nan)


def _change(name: str, layer: str | None, fork: Fork) -> float:
    return fork.change(name, layer)
