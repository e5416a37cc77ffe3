"""What must be said beside the figures of telescoping: where it fails, and what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from tscope_format.errors import clean

if TYPE_CHECKING:
    from tscope.analyses.decision import Decision
    from tscope.analyses.predictions import Predictions
    from tscope.probes import ProbeSet
    from tscope.trace import Trace

# Above a tenth of the predictions' own size the sum of first-order steps is no description of the run any
# more.
_SCALE = 0.1
# An error above half the lazy one is no gain over the lazy model.
_LAZY = 0.5
# Second-order change above this share of the change means that steps are large, even where errors cancel.
_RESIDUAL = 0.3


@dataclass(frozen=True)
class Grain:
    """What one first-order term of the sum stands for, and what it leaves out.

    Attributes:
        steps: The most optimizer steps that one term spans.
        finer: What gives terms of fewer steps.
        drift: How much of the error is the drift of buffers: "none", "most", "little", or "unknown" where
            buffers moved and only a replay can tell.
    """

    steps: int = 1
    finer: str = "`--replay`"
    drift: Literal["none", "little", "most", "unknown"] = "none"


def grain(trace: Trace, every: int, predictions: Predictions) -> Grain:
    """Return what the terms of these predictions stand for."""
    recorded = int(np.diff(trace.steps).max(initial=1))
    steps = int(np.diff(predictions.step).max(initial=1))
    skipped = "leave out `--every`" if every > 1 else "`--replay` takes every recorded row"
    finer = skipped if steps > recorded else "record without `--every`"
    changes = predictions.changes
    if changes is None:
        return Grain(steps, finer, "unknown" if trace.reader.buffers_move else "none")
    drift, residual = (float(np.square(part).sum()) for part in (changes.buffer, changes.residual))
    return Grain(steps, finer, "none" if drift == 0 else "most" if drift > residual else "little")


def failure(scalars: Mapping[str, float | int | str | bool | None], grain: Grain) -> list[str]:
    """Say plainly whether the telescoping model describes the run, and if not, why."""
    error, lazy = _number(scalars["final_error_telescoped"]), _number(scalars["final_error_lazy"])
    scale, residual = _number(scalars["prediction_scale"]), _number(scalars["relative_residual"])
    coarse = grain.steps > 1
    notes = []
    if error > _SCALE * scale:
        worse = ", no better than the lazy model," if error > _LAZY * lazy else ""
        model = f"a sum over intervals of up to {grain.steps} steps" if coarse else "the telescoping model"
        notes.append(
            f"{model} fails on this run: its final error {error:.3g}{worse} is not small against the "
            f"predictions ({scale:.3g}; lazy error {lazy:.3g}). {_remedy(grain)}"
        )
    elif error > _LAZY * lazy and not coarse:
        notes.append(
            f"the telescoping model is hardly better than the lazy one here ({error:.3g} against "
            f"{lazy:.3g}); both are small against the predictions ({scale:.3g})"
        )
    if residual > _RESIDUAL:
        notes.append(
            f"{residual:.0%} of the change of {'an interval' if coarse else 'a step'} is not first-order "
            f"(‖Δf − JΔθ‖/‖Δf‖){_cause(grain)}"
        )
    return notes


def _remedy(grain: Grain) -> str:
    """Say what to do about a sum that fails."""
    if grain.steps > 1:
        return f"That says nothing of single steps: {grain.finer}"
    if grain.drift == "most":
        return (
            "Most of what it leaves out is the drift of buffers (BatchNorm statistics, say), which it does "
            "not follow: see `change_buffer`"
        )
    unless = ", unless it is the drift of buffers: `--replay` tells" if grain.drift == "unknown" else ""
    return (
        "The steps are too large for first-order terms: use a smaller learning rate, or a higher rule such "
        f"as `--rule simpson`{unless}"
    )


def _cause(grain: Grain) -> str:
    """Say what a large residual comes from."""
    if grain.steps > 1:
        return ""
    if grain.drift == "most":
        return ": most of it is the drift of buffers, not curvature along the steps"
    if grain.drift == "unknown":
        return ": single steps are large, or buffers drift (`--replay` tells)"
    return ": single steps are large, even where their errors cancel in the sum"


def limits(
    trace: Trace,
    probe: ProbeSet,
    every: int,
    predictions: Predictions,
    source: str,
    rule: Decision | None,
) -> list[str]:
    """Say what the figures rest on: which examples, which rows, which labels."""
    notes = []
    if len(trace.roots) > 1:
        others = ", ".join(clean(name) for name in trace.roots if name != trace.name)
        notes.append(f"this is {clean(trace.name)}; the trace also holds {others} (`--root`)")
    if probe.in_sample:
        notes.append(f"probe set {clean(probe.name)} is in-sample: its examples were trained on")
    if predictions.stopped is not None:
        notes.append(
            f"the predictions become NaN or infinite at step {predictions.stopped}; everything ends at step "
            f"{predictions.step[-1]}"
        )
    notes += _intervals(trace, every, predictions, source)
    if rule is not None and rule.threshold == 0.5:
        notes.append("labels are 0 and 1, so class 1 is an output above 0.5; for logits use `--threshold 0`")
    if trace.status == "recording":
        notes.append("the run is still being recorded: these are the rows so far")
    return notes


def _intervals(trace: Trace, every: int, predictions: Predictions, source: str) -> list[str]:
    """Say where one first-order step stands for several of the optimizer's."""
    notes = []
    widest = int(np.diff(trace.steps).max(initial=1))
    if widest > 1:
        notes.append(
            f"recorded every {widest} steps: J at the start of an interval times its whole difference"
        )
    if every > 1:
        notes.append(f"replayed every {every} rows: coarse intervals; without `--every` each row counts")
    rows = np.searchsorted(trace.steps, predictions.step)
    gaps = np.diff(rows)
    if source == "recorded" and (gaps > 1).any():
        notes.append(
            f"the recorder projected {len(rows)} of {rows[-1] + 1} rows (intervals of up to {gaps.max()} "
            "rows); "
            "`--replay` gives every row"
        )
    return notes


def _number(value: float | int | str | bool | None) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
