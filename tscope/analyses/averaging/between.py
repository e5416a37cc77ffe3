"""Averages between models: along α between two, and of the first 1, 2, … of several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from tscope_format.errors import AnalysisError, clean
from tscope_format.results import Array

from tscope.analyses.averaging.blend import Blend, rms
from tscope.analyses.averaging.layer_barriers import barriers
from tscope.analyses.averaging.members import Member, check_finite, fork_step, overlaps
from tscope.analyses.layers import layers
from tscope.averaging import State, find_units, highest, match

if TYPE_CHECKING:
    from tscope_format.dtypes import JSON

    from tscope.analyses.averaging.options import Options
    from tscope.analyses.averaging.stage import Stage
    from tscope.analyses.metric import Watch

_TOLERANCE = 1e-3  # of α at the refined maximum
# A model whose units were only put in another order must predict what it did: float32 sums in another order.
_SAME = 1e-3

Scalars = dict[str, float | int | str | bool | None]


@dataclass(frozen=True, eq=False)
class Found:
    """What was found: the parts of a result."""

    scalars: Scalars
    arrays: dict[str, Array]
    provenance: dict[str, JSON]
    notes: tuple[str, ...]


def between(stage: Stage, members: Sequence[Member], options: Options, watch: Watch) -> Found:
    """Average the models with each other.

    Raises:
        AnalysisError: One is not finite, or hidden units cannot be matched.
    """
    states = [member.state(stage.dtype) for member in members]
    for member, state in zip(members, states, strict=True):
        check_finite(member, state)
    scalars: Scalars = {"models": len(members)}
    notes = overlaps(members, stage.probe)
    if options.match:
        states, found = _matched(stage, members, states, options)
        scalars |= found
    blend = Blend(stage, members, states)
    fork = _fork(blend, members, options, notes)
    scalars |= {"fork_step": fork, "recalibrated": stage.recalibration is not None}
    two = len(members) == 2
    coordinate, arrays = _along_alpha(blend, options, watch) if two else _by_count(blend, len(members), watch)
    scalars |= _scalars(blend, members, coordinate, arrays)
    notes += _overflows(blend, coordinate, arrays)
    if not two:
        arrays |= _pairs(blend, len(members))
    names: tuple[str, ...] = ()
    if options.layers and two:
        groups = layers(e for e in members[0].trace.parameters if e.name in stage.program.parameters)
        names = tuple(groups)
        arrays |= barriers(blend, groups, watch)
    provenance: dict[str, JSON] = {
        "members": [
            {"trace": m.trace.fingerprint, "path": m.trace.path.name, "root": m.trace.name, "step": m.step}
            for m in members
        ],
        "layers": [clean(name) for name in names],
    }
    return Found(scalars, arrays, provenance, tuple(notes))


def _along_alpha(blend: Blend, options: Options, watch: Watch) -> tuple[str, dict[str, Array]]:
    """Measure the grid along α, and the highest excess of each set's loss, looked for beside the grid's."""
    grid = [float(alpha) for alpha in np.linspace(0, 1, options.points)]
    for done, alpha in enumerate(grid, 1):
        blend.point((alpha, 1 - alpha))
        watch.progress(done, len(grid))
    kept = set(blend.points)
    for name, scores in blend.scores.items():
        if scores is None:
            continue
        top = int(np.argmax([blend.excess(name, (alpha, 1 - alpha)) for alpha in grid]))
        low, high = grid[max(top - 1, 0)], grid[min(top + 1, len(grid) - 1)]

        def above(alpha: float, name: str = name) -> float:
            return blend.excess(name, (alpha, 1 - alpha))

        highest(above, low, grid[top], high, tolerance=_TOLERANCE)
        kept.add(max(blend.points, key=partial(blend.excess, name)))
    weights = sorted(kept)
    return "alpha", _arrays(blend, "alpha", weights, [own[0] for own in weights])


def _by_count(blend: Blend, count: int, watch: Watch) -> tuple[str, dict[str, Array]]:
    """Measure the plain averages of the first 1, 2, … models."""
    weights = [tuple([1 / j] * j + [0.0] * (count - j)) for j in range(1, count + 1)]
    for done, own in enumerate(weights, 1):
        blend.point(own)
        watch.progress(done, count)
    return "models", _arrays(blend, "models", weights, list(range(1, count + 1)))


def _arrays(
    blend: Blend, coordinate: str, weights: Sequence[tuple[float, ...]], places: Sequence[float]
) -> dict[str, Array]:
    found = {coordinate: Array((coordinate,), np.array(places))}
    points = [blend.point(own) for own in weights]
    for name in points[0]:
        found[name] = Array((coordinate,), np.array([point[name] for point in points]))
    for name in blend.stage.splits:
        for what, kind, sign in (("loss", "excess", 1.0), ("accuracy", "deficit", -1.0)):
            if f"{what}_line_{name}" in found:
                apart = found[f"{what}_average_{name}"].data - found[f"{what}_line_{name}"].data
                found[f"{what}_{kind}_{name}"] = Array((coordinate,), sign * apart + 0.0)  # no −0
    return found


def _overflows(blend: Blend, coordinate: str, arrays: dict[str, Array]) -> list[str]:
    """Return the notes on averages whose loss is not finite; there is no barrier to be told then."""
    found = []
    for name in blend.stage.splits:
        if f"loss_average_{name}" in arrays:
            finite = np.isfinite(arrays[f"loss_average_{name}"].data)
            if not finite.all():
                first = arrays[coordinate].data[int(finite.argmin())]
                found.append(
                    f"the average's loss on {name} examples is NaN or infinite at {int((~finite).sum())} "
                    f"places, the first being {coordinate} = {first:.3g}: the models have no finite barrier"
                )
    return found


def _scalars(blend: Blend, members: Sequence[Member], coordinate: str, arrays: dict[str, Array]) -> Scalars:
    """Return the barriers, the plain average beside the ensemble, and the models' own figures."""
    count = len(members)
    plain = blend.point(tuple([1 / count] * count))
    found: Scalars = {}
    for name, scores in blend.scores.items():
        for what, kind in (("loss", "excess"), ("accuracy", "deficit")):
            excess = arrays.get(f"{what}_{kind}_{name}")
            if excess is not None:
                top = int(np.argmax(excess.data))
                found[f"barrier_{what}_{name}"] = float(excess.data[top])
                found[f"barrier_{what}_{name}_{coordinate}"] = float(arrays[coordinate].data[top])
        shown = [
            f"{what}_{kind}" for what in ("loss", "accuracy") for kind in ("average", "ensemble", "line")
        ]
        for key in (f"{part}_{name}" for part in (*shown, "difference", "explained", "explained_alone")):
            if key in plain:
                found[key] = plain[key]
        for place, score in enumerate(scores or ()):
            found[f"loss_{_letter(place)}_{name}"] = score.loss
            if score.accuracy is not None:
                found[f"accuracy_{_letter(place)}_{name}"] = score.accuracy
    if blend.curvature is not None:
        found |= _curvatures(blend, count)
    return found


def _curvatures(blend: Blend, count: int) -> Scalars:
    """Return each model's curvature term, also relative to how far it went, and the identity's check."""
    found: Scalars = {}
    for name, curvature in (blend.curvature or {}).items():
        for place in range(count):
            moved = rms(blend.outputs[place][name] - curvature.origin)
            term = rms(curvature.terms[place])
            found[f"curvature_{_letter(place)}_{name}"] = term
            found[f"curvature_relative_{_letter(place)}_{name}"] = term / moved if moved else None
    return found | blend.identity([1 / count] * count)


def _pairs(blend: Blend, count: int) -> dict[str, Array]:
    """Return the excess of the loss half-way between each two of several models (model, model)."""
    found = {}
    for name, scores in blend.scores.items():
        if scores is None:
            continue
        values = np.zeros((count, count))
        for i in range(count):
            for j in range(i):
                weights = tuple(0.5 if place in (i, j) else 0.0 for place in range(count))
                values[i, j] = values[j, i] = blend.excess(name, weights)
        found[f"barrier_pair_{name}"] = Array(("model", "other"), values)
    return found


def _fork(blend: Blend, members: Sequence[Member], options: Options, notes: list[str]) -> int | None:
    """Take the curvature terms around the last state that the models have in common, and return its step."""
    if options.match:
        notes.append("matched units are not where the runs parted: the curvature terms are not defined")
        return None
    fork = fork_step(members)
    if fork is None:
        notes.append(
            "the runs start from different parameters: they have no fork, and the curvature terms are not "
            "defined"
        )
        return None
    trace = members[0].trace
    if any(member.trace.reader.theta_rows is not None for member in members):
        notes.append(
            f"a run was recorded with `--updates none`: step {fork} is the last in common of those it kept"
        )
    origin = Member(trace, trace.row(fork)).state(blend.stage.dtype)
    blend.linearise(origin)
    buffers = [state.buffers for state in blend.states]
    if any(
        not v.equal(own[n]) for n, v in origin.buffers.items() if v.is_floating_point() for own in buffers
    ):
        notes.append("buffers change too: what they do to the outputs counts as curvature")
    return fork


def _matched(
    stage: Stage, members: Sequence[Member], states: Sequence[State], options: Options
) -> tuple[list[State], Scalars]:
    """Return the models with their units in the order of the first one's.

    Raises:
        AnalysisError: Units cannot be followed through the model, or a model is not what it was.
    """
    units = find_units(stage.program)
    turned, scalars = [states[0]], Scalars()
    for place, (member, state) in enumerate(zip(members[1:], states[1:], strict=True), 1):
        found = match(units, states[0].theta, state.theta, seed=options.seed)
        new = found.apply(units, state)
        for before, after in zip(stage.outputs(state).values(), stage.outputs(new).values(), strict=True):
            off, size = rms(after - before), rms(before)
            if not off <= _SAME * size:
                raise AnalysisError(
                    f"{member.name} predicts otherwise with its units in another order (by {off:.2g}, of "
                    f"{size:.2g}): they are not units whose order is free; leave out `--match`"
                )
        turned.append(new)
        scalars[f"units_moved_{_letter(place)}"] = found.moved
        scalars[f"distance_before_{_letter(place)}"] = math.sqrt(found.before)
        scalars[f"distance_after_{_letter(place)}"] = math.sqrt(found.after)
    scalars["units"] = sum(units.sizes.values())
    return turned, scalars


def _letter(place: int) -> str:
    """Return a, b, c, … of the models, then their numbers."""
    return chr(ord("a") + place) if place < 26 else str(place)
