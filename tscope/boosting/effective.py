"""Effective parameters of an ensemble of trees [Curth23]: p(I) = (n/|I|) ‖S_I‖_F², exactly.

S is followed tree by tree, as many of its columns at once as memory allows: they do not depend on each other.
Several outputs (a forest's classes, say) have the same S, so that p is that of each of them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tscope_format.errors import AnalysisError, UsageError, clean
from tscope_format.results import Array, Result

from tscope.analyses.effective.options import Options
from tscope.boosting.evaluation import Evaluation, evaluation, held_out, refuse
from tscope.boosting.recursion import follow, outputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.analyses.metric import Watch
    from tscope.probes import ProbeSet
    from tscope.trace import Trace

_NETWORKS = ("form", "loss", "labels", "decay", "dtype", "workers")
# F, what it is subtracted from, the means of leaves, and their copy for each point.
_COPIES = 4
_CELL = 6e-9  # seconds for a point, a label and a tree, on the machine of docs/benchmarks.md


@dataclass(frozen=True, eq=False)
class _Found:
    """What the passes found.

    Attributes:
        norms: ‖s(x)‖² (row, point).
        smoother: S at the chosen rows (chosen, point, train).
        passes: How often the trees were walked.
    """

    norms: NDArray[np.float64]
    smoother: NDArray[np.float64]
    passes: int


def run(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric.

    Raises:
        UsageError: An option that only networks have, or a value that does not fit the trace.
        AnalysisError: The ensemble's smoother is not exact, or what is to be kept does not fit in memory.
    """
    began = time.monotonic()
    given = {name: getattr(options, name) for name in _NETWORKS}
    refuse("effective-params", given, Options, "its smoother is exact, from leaves and weights")
    probe = held_out(trace, options.probe)
    places = None if probe is None else _places(probe, options)
    points = evaluation(trace, probe, places)
    last = points.ensemble.trees
    rows = sorted({*range(0, last + 1, options.every), last})
    chosen = _chosen(options, last)
    n, total = points.counts[0], sum(points.counts)
    watch.say(
        f"exact, from the leaves of {last} trees: about {_CELL * last * total * n:.2g} s of arithmetic at "
        f"{total} points and {n} labels"
    )
    found = _walk(points, rows, chosen, options.max_memory_mb * 1e6, watch)
    return _result(trace, points, probe, rows, chosen, found, time.monotonic() - began)


def _places(probe: ProbeSet, options: Options) -> NDArray[np.intp] | None:
    """Return which held-out examples are taken; None for all of them."""
    if options.test is None:
        return None
    if options.test > probe.examples:
        raise UsageError(
            f"test is {options.test}, but probe set {clean(probe.name)} has {probe.examples} examples"
        )
    drawn = np.random.default_rng(options.seed).choice(probe.examples, options.test, replace=False)
    return np.sort(drawn)


def _chosen(options: Options, last: int) -> list[int]:
    """Return the rows at which S is kept."""
    if options.smoother is None:
        return []
    steps = [last] if options.smoother == "last" else sorted({int(t) for t in options.smoother.split(",")})
    if steps[-1] > last:
        raise UsageError(f"step {steps[-1]} is not in the trace; it holds steps 0 to {last}")
    return steps


def _walk(points: Evaluation, rows: list[int], chosen: list[int], limit: float, watch: Watch) -> _Found:
    """Follow all columns of S, in as many passes as memory asks for."""
    n, m = points.counts
    held = 8.0 * (len(rows) * (n + m) + len(chosen) * (n + m) * n)
    columns = int((limit - held) // (8 * _COPIES * (n + m)))
    if columns < 1:
        raise AnalysisError(
            f"{len(rows)} rows of {n + m} examples, and the smoother at {len(chosen)} of them, take "
            f"{held / 1e6:.3g} MB of the {limit / 1e6:.3g} MB allowed (`--max-memory MB`); keep fewer "
            "(`--every K`, `--test N`, fewer steps of `--smoother`)"
        )
    starts = range(0, n, min(columns, n))
    norms = np.zeros((len(rows), n + m))
    smoother = np.zeros((len(chosen), n + m, n))
    kept = {row: place for place, row in enumerate(rows)}
    total = len(starts) * points.ensemble.trees
    for index, start in enumerate(starts):
        stop = min(start + columns, n)
        basis = np.zeros((n, stop - start))
        basis[np.arange(start, stop), np.arange(stop - start)] = 1.0
        for row, S in enumerate(follow(points.ensemble, points.leaf, basis, constant=False)):
            if row in kept:
                norms[kept[row]] += np.einsum("xi,xi->x", S, S)
            if row in chosen:
                smoother[chosen.index(row), :, start:stop] = S
            watch.progress(index * points.ensemble.trees + row, total)
    return _Found(norms, smoother, len(starts))


def _result(
    trace: Trace,
    points: Evaluation,
    probe: ProbeSet | None,
    rows: list[int],
    chosen: list[int],
    found: _Found,
    took: float,
) -> Result:
    """Name what was found."""
    ensemble = points.ensemble
    n, m = points.counts
    zeros = np.zeros(len(rows))
    arrays = {"step": Array(("step",), trace.steps[rows])}
    p_train = found.norms[:, :n].sum(1)
    arrays |= {"p_train": Array(("step",), p_train), "p_train_se": Array(("step",), zeros)}
    if m:
        p_test = n / m * found.norms[:, n:].sum(1)
        for name, values in (("p_test", p_test), ("gap", p_test - p_train)):
            arrays |= {name: Array(("step",), values), f"{name}_se": Array(("step",), zeros)}
    arrays["norms_train"] = Array(("step", "train"), found.norms[:, :n])
    arrays["train"] = Array(("train",), np.arange(n, dtype=np.int64))
    if m:
        arrays["norms_test"] = Array(("step", "test"), found.norms[:, n:])
    apart, scale, largest = _discrepancy(points, rows)
    for name in ("telescoped", "anchored"):
        arrays[f"discrepancy_{name}"] = Array(("step",), apart)
    arrays["discrepancy_between"] = Array(("step",), zeros)
    arrays["prediction_scale"] = Array(("step",), scale)
    if chosen:
        arrays["smoother_step"] = Array(("smoother_step",), np.array(chosen, np.int64))
        dims = ("output", "label", "label_output")
        for part, S in (("train", found.smoother[:, :n]), ("test", found.smoother[:, n:])):
            if S.shape[1]:
                arrays[f"smoother_{part}"] = Array(("smoother_step", part, *dims), S[:, :, None, :, None])
    curves = [name for name, array in arrays.items() if array.dims == ("step",) and name != "step"]
    scalars: dict[str, float | int | str | bool | None] = {
        **{name: float(arrays[name].data[-1]) for name in curves},
        "form": "leaves",
        "exact": True,
        "probes": 0,
        "passes": found.passes,
        "loss": "mse",
        "decay": "none",
        "examples_train": n,
        "examples_test": m,
        "steps": int(trace.steps[-1]),
        "stopped": None,
        "prediction_check": largest,
    }
    provenance = {
        "probe": None if probe is None else probe.name,
        "dtype": "float64",
        "rule_of_trees": ensemble.rule,
        "seconds": took,
    }
    return Result("effective-params", scalars, arrays, provenance, _notes(trace, points, probe))


def _discrepancy(
    points: Evaluation, rows: list[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return the root mean squares of Sy − f and of f (row), and the largest |Sy − f| of all rows."""
    ensemble, leaf = points.ensemble, points.leaf
    apart, scale = np.zeros(len(rows)), np.zeros(len(rows))
    largest, place = 0.0, 0
    pairs = zip(follow(ensemble, leaf, ensemble.target, constant=True), outputs(ensemble, leaf), strict=True)
    for row, (smoothed, own) in enumerate(pairs):
        difference = smoothed - own
        largest = max(largest, float(np.abs(difference).max()))
        if row == rows[place]:
            apart[place] = np.sqrt(np.square(difference).mean())
            scale[place] = np.sqrt(np.square(own).mean())
            place += 1
    return apart, scale, largest


def _notes(trace: Trace, points: Evaluation, probe: ProbeSet | None) -> tuple[str, ...]:
    ensemble = points.ensemble
    found = [
        "an ensemble of trees: each step is a tree, and leaves are taken as given, although they depend on "
        "the labels too"
    ]
    if ensemble.target.shape[1] > 1:
        found.append(f"the {ensemble.target.shape[1]} outputs have the same smoother: p is that of each")
    if probe is None:
        found.append("no held-out examples: give some with `--probe FILE.npz` for p_test")
    elif probe.in_sample:
        found.append(f"probe set {clean(probe.name)} is in-sample: its examples were trained on")
    if len(trace.roots) > 1:
        others = ", ".join(clean(name) for name in trace.roots if name != trace.name)
        found.append(f"this is {clean(trace.name)}; the trace also holds {others} (`--root`)")
    return tuple(found)
