"""How kernels that were estimated from sketches are shown: series of the probe set, with their error."""

from __future__ import annotations

import math

from tscope_format import Result, clean

from tscope_cli.numerals import percent, significant
from tscope_cli.readings import series
from tscope_cli.view import Curve, Panel, View


def read(result: Result) -> tuple[str, ...]:
    """Return what the estimates mean, in words, their error first."""
    probe = clean(result.scalars.get("probe"))
    lines = [f"These are estimates, of the probe set {probe}: {_error(result)}."]
    moved, apart = _number(result, "movement_test"), _number(result, "distance_test")
    if math.isfinite(moved):
        lines.append(
            f"At step {result.scalars.get('steps')} its tangent kernel has moved by {significant(moved, 3)} "
            f"times its size at the start, to a kernel distance (1 − cosine) of {significant(apart, 3)}."
        )
    if "alignment_test" in result.arrays:
        first, last = (float(series(result, "alignment_test")[row]) for row in (0, -1))
        lines.append(
            f"Its alignment with the labels went from {significant(first, 3)} to {significant(last, 3)}."
        )
    return tuple(lines)


def _error(result: Result) -> str:
    estimated = f"the halves of the columns put the error at {percent(_number(result, 'error_test'))}"
    measured = _number(result, "error_exact_test")
    if not math.isfinite(measured):
        return f"{estimated} of the kernel's norm at the last step"
    steps = ", ".join(str(int(step)) for step in result.arrays["exact_step"].data)
    return (
        f"at most {percent(measured)} of the kernel's norm off exact blocks at step {steps}; {estimated} at "
        "the last step"
    )


def _number(result: Result, name: str) -> float:
    value = result.scalars.get(name)
    return float(value) if isinstance(value, int | float) else math.nan


VIEW = View(
    coordinate="step",
    columns=(
        Curve("trace_test", "trace"),
        Curve("effective_rank_test", "eff. rank"),
        Curve("alignment_test", "align"),
        Curve("movement_test", "movement"),
        Curve("distance_test", "distance"),
        Curve("velocity_test", "velocity"),
        Curve("error_test", "± of K", share=True),
    ),
    panels=(
        Panel(
            "movement of the kernel, relative to its start (estimate)", (Curve("movement_test", "probe set"),)
        ),
        Panel(
            "alignment with the labels (estimate)",
            (Curve("alignment_test", "probe set"), Curve("alignment_centered_test", "centred")),
        ),
        Panel("trace (estimate)", (Curve("trace_test", "probe set"),), log=True),
        Panel("effective rank (estimate)", (Curve("effective_rank_test", "probe set"),)),
        Panel("velocity: distance a step (estimate)", (Curve("velocity_test", "probe set"),), log=True),
        Panel("error of the kernel, estimated from halves", (Curve("error_test", "‖K̂ − K‖ / ‖K‖"),)),
    ),
    reading=read,
)


def view(result: Result) -> View | None:
    """Return the view of a result of the metric `kernel` that is of sketches; None of any other."""
    return VIEW if result.scalars.get("form") == "sketch" else None
