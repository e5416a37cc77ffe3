"""Telescoping: a run's predictions as a sum of first-order steps [Jeffares24], against the lazy model.

    f̃_T(x) = f_0(x) + Σ_t J_t(x)Δθ_t,   J_t the Jacobian at θ_{t−1}
    f_lin,t(x) = f_0(x) + J_0(x)(θ_t − θ_0)

from the projections that were recorded, or by replay. `docs/metrics/telescoping.md` says how to read it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tscope_format.errors import MissingDataError, UsageError, clean
from tscope_format.results import Array, Result

from tscope.analyses.decision import Decision, decision
from tscope.analyses.metric import EVERY_ROW, Metric, Need, Watch
from tscope.analyses.predictions import Changes, Predictions, is_recorded, recorded
from tscope.analyses.rules import RULES
from tscope.analyses.telescoping_notes import failure, grain, limits
from tscope.probes import ProbeSet, read_probe_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tscope.trace import Trace

    Values = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Options:
    """The options of the metric.

    Attributes:
        probe: A probe set of the trace by name, or an `.npz` of new examples. Default: the first that is not
            in-sample, else the first.
        replay: Compute everything anew at every row, although projections were recorded.
        rule: The quadrature rule along each step; all but `left` replay.
        every: Replay only every so many rows, each standing for the whole interval.
        dtype: "float32" or "float64" for the replay; asking for float64 replays.
        layers: Compute the contribution of each layer, when replaying.
        per_layer_full: Keep the layers' contributions for every example and output.
        probe_output: Which functional of the output to follow on a new probe set: auto, full, logprob, loss,
            INDEX.
        threshold: The border between the classes of a model of one output.
        model: `module:factory` that builds the model, for a trace without program. It runs that code.
        max_memory_mb: Bound on the memory of one pass over the probe set; examples are taken in chunks to
            fit.
    """

    probe: str | None = None
    replay: bool = False
    rule: str = "left"
    every: int = 1
    dtype: str | None = None
    layers: bool = True
    per_layer_full: bool = False
    probe_output: str | None = None
    threshold: float | None = None
    model: str | Callable[[], object] | None = field(default=None, repr=False)
    max_memory_mb: float = 512

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise UsageError(f"unknown rule {clean(self.rule)!r}; there is {', '.join(RULES)}")
        if self.dtype not in (None, "float32", "float64"):
            raise UsageError(f"unknown dtype {clean(self.dtype)!r}; there is float32, float64")
        if self.every < 1:
            raise UsageError(f"every must be at least 1, got {self.every}")
        if self.max_memory_mb <= 0:
            raise UsageError(f"max_memory_mb must be positive, got {self.max_memory_mb}")
        if self.per_layer_full and not self.layers:
            raise UsageError("per_layer_full needs layers; leave out one of the two")


def run(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric; see the module."""
    probe = choose_probe(trace, options)
    replayed = must_replay(trace, options, probe)
    if replayed:
        from tscope.analyses.telescoping_replay import replay

        predictions, how = replay(trace, probe, options, watch.progress)
    else:
        predictions = recorded(trace, probe.name)
        how = {name: probe.attributes.get(name) for name in ("functional", "functional_note", "output_shape")}
        watch.progress(len(predictions.step), len(predictions.step))
    return assemble(trace, probe, options, predictions, "replay" if replayed else "recorded", how)


def run_trees(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric of an ensemble of trees; see `tscope.boosting.telescoping`."""
    from tscope.boosting.telescoping import run as run_of_trees

    return run_of_trees(trace, options, watch)


def choose_probe(trace: Trace, options: Options) -> ProbeSet:
    """Return the probe set that the options ask for.

    Raises:
        UsageError: Neither a probe set of the trace nor a good file.
        MissingDataError: None is named, and the trace has none.
    """
    if options.probe is None:
        if not trace.probes:
            raise MissingDataError(
                f"{clean(trace.path)} holds no probe set; give examples with `--probe FILE.npz`"
            )
        return next((p for p in trace.probes.values() if not p.in_sample), next(iter(trace.probes.values())))
    if options.probe in trace.probes:
        return trace.probes[options.probe]
    if options.probe.endswith(".npz") or Path(options.probe).exists():
        return read_probe_file(options.probe, trace.input_specs)
    names = ", ".join(clean(name) for name in trace.probes) or "none"
    raise UsageError(
        f"no probe set {clean(options.probe)!r}; the trace has {names}, and a file must be named *.npz"
    )


def must_replay(trace: Trace, options: Options, probe: ProbeSet) -> bool:
    """Return whether the options ask for something that was not recorded."""
    chosen = options.rule != "left" or options.every > 1 or options.dtype == "float64"
    asked = options.replay or chosen or options.per_layer_full or options.probe_output is not None
    # A file may have the name of a recorded probe set, and is still another one.
    return asked or trace.probes.get(probe.name) is not probe or not is_recorded(trace, probe.name)


def assemble(
    trace: Trace,
    probe: ProbeSet,
    options: Options,
    predictions: Predictions,
    source: str,
    how: dict[str, Any],
) -> Result:
    """Derive every series of the metric from the predictions.

    Args:
        trace: The run.
        probe: The probe set.
        options: The options of the metric.
        predictions: What was recorded or replayed.
        source: Which of the two, "recorded" or "replay".
        how: Facts for the provenance; `functional` and `output_shape` say what the outputs are.
    """
    actual = predictions.actual
    telescoped = accumulate(actual[0], predictions.gradient)
    lazy = actual[0] + predictions.lazy
    errors = {"telescoped": np.abs(actual - telescoped), "lazy": np.abs(actual - lazy)}
    change = np.diff(actual.astype(np.float64), axis=0, prepend=actual[:1].astype(np.float64))
    residual, moved = _norm(change - predictions.gradient), _norm(change)
    arrays = {
        "step": Array(("step",), predictions.step),
        "actual": Array(("step", "example", "output"), actual),
        "telescoped": Array(("step", "example", "output"), telescoped),
        "lazy": Array(("step", "example", "output"), lazy),
        "residual": Array(("step",), residual),
        "residual_relative": Array(("step",), ratio(residual, moved)),
    }
    for model, error in errors.items():
        arrays[f"error_{model}"] = Array(("step",), error.mean((1, 2), dtype=np.float64))
        arrays[f"error_{model}_output"] = Array(("step", "output"), error.mean(1, dtype=np.float64))
    is_whole = (how.get("functional") or "full") == "full" and len(how.get("output_shape") or ()) <= 2
    rule = decision(probe.target, actual.shape[-1], options.threshold) if is_whole else None
    scalars: dict[str, float | int | str | bool | None] = {
        "probe": clean(probe.name),
        "rule": options.rule,
        "source": source,
        "steps": int(predictions.step[-1]),
        "final_error_telescoped": float(arrays["error_telescoped"].data[-1]),
        "final_error_lazy": float(arrays["error_lazy"].data[-1]),
        "prediction_scale": float(np.abs(actual[-1]).mean(dtype=np.float64)),
        "relative_residual": float(ratio(_norm(residual), _norm(moved))),
        "skipped_rows": _skipped(trace, predictions),
    }
    if rule is not None:
        curves = accuracies(rule, actual, telescoped, lazy)
        arrays |= {name: Array(("step",), curve) for name, curve in curves.items()}
        scalars |= {name: float(curve[-1]) for name, curve in curves.items()}
    if predictions.changes is not None:
        arrays |= change_arrays(predictions.changes)
        scalars["decomposition_check"] = predictions.changes.check
    notes = [
        *failure(scalars, grain(trace, options.every, predictions)),
        *limits(trace, probe, options.every, predictions, source, rule),
    ]
    provenance = {
        "probe": {"examples": probe.examples, "in_sample": probe.in_sample, **probe.attributes},
        "decision": None if rule is None else str(rule),
        "layers": [] if predictions.changes is None else [clean(n) for n in predictions.changes.layers],
        **how,
    }
    return Result("telescoping", scalars, arrays, provenance, tuple(notes))


def accumulate(first: Values, increments: Values) -> Values:
    """Return first + the running sum of the increments, summed in float64, in the increments' dtype.

    Args:
        first: (example, output).
        increments: (step, example, output).
    """
    total = first.astype(np.float64)
    sums = np.empty_like(increments)
    for k, increment in enumerate(increments):
        total += increment
        sums[k] = total
    return sums


def accuracies(rule: Decision, actual: Values, telescoped: Values, lazy: Values) -> dict[str, Values]:
    """Return how often each model agrees with the network, and with the labels where they are known.

    Every curve is a share of the examples (step).
    """
    curves = {}
    network = rule.classes(actual)
    models = {"telescoped": rule.classes(telescoped), "lazy": rule.classes(lazy)}
    for name, classes in models.items():
        curves[f"agreement_{name}"] = (classes == network).mean(1)
    if rule.labels is not None:
        for name, classes in {"actual": network, **models}.items():
            curves[f"accuracy_{name}"] = (classes == rule.labels).mean(1)
    return curves


def change_arrays(changes: Changes) -> dict[str, Array]:
    """Name the parts of each change as the result's arrays."""
    arrays = {
        "change_gradient": Array(("step",), changes.gradient),
        "change_residual": Array(("step",), changes.residual),
        "change_buffer": Array(("step",), changes.buffer),
        "share_residual": Array(("step",), changes.residual_share),
        "share_buffer": Array(("step",), changes.buffer_share),
    }
    if changes.layers:
        arrays["contribution"] = Array(("step", "layer"), changes.layer)
        arrays["contribution_signed"] = Array(("step", "layer"), changes.layer_share)
    if changes.per_layer is not None:
        arrays["layer_contribution"] = Array(("step", "layer", "example", "output"), changes.per_layer)
    return arrays


def ratio(part: Values, whole: Values) -> Values:
    """Return part / whole, and 0 where nothing changed."""
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)


def _norm(values: Values) -> Values:
    """Return the Frobenius norm of each row of (step, …); of a vector, its norm as a 0-d array."""
    axes = tuple(range(1, values.ndim)) or None
    return np.asarray(np.sqrt(np.square(values, dtype=np.float64).sum(axis=axes)))


def _skipped(trace: Trace, predictions: Predictions) -> int:
    """Count the rows of the trace that have no prediction of their own, up to the last that has."""
    return int(np.searchsorted(trace.steps, predictions.step[-1], side="right")) - len(predictions.step)


def _has_projections(trace: Trace, options: Options) -> bool:
    if options.probe is None and not trace.probes:
        return False
    return not must_replay(trace, options, choose_probe(trace, options))


def _has_program(trace: Trace, options: Options) -> bool:
    return options.model is not None or "program/graph" in trace.reader.arrays()


def _has_probe(trace: Trace, options: Options) -> bool:
    return options.probe is not None or bool(trace.probes)


PROBE = Need(
    "a probe set",
    "Give examples now with `--probe FILE.npz`, or when recording, with `tscope record --probe`",
    _has_probe,
)

METRIC = Metric(
    name="telescoping",
    summary="Predictions as a sum of first-order steps, against the lazy (linear at initialisation) model.",
    requires=(
        (
            Need(
                "recorded projections of a probe set",
                "Record with `tscope record --probe FILE.npz -- …`",
                _has_projections,
            ),
        ),
        (
            Need(
                "the model as data (program)",
                "Give the model's code with `--model module:factory`",
                _has_program,
            ),
            EVERY_ROW,
            PROBE,
        ),
    ),
    options=Options,
    run=run,
    trees=run_trees,
)
