"""What must be said beside the terms of updates: what they rest on, and where they say little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tscope_format.errors import clean

from tscope.analyses.standing import standing

if TYPE_CHECKING:
    from tscope.analyses.updates.run import Run
    from tscope.analyses.updates.walk import Walk

    Scalars = Mapping[str, float | int | str | bool | None]

# As for telescoping: beyond this share of a change, first-order terms are no description of it.
_RESIDUAL = 0.3


def notes(run: Run, walk: Walk, scalars: Scalars, remarks: Sequence[str]) -> tuple[str, ...]:
    """Return the notes of a result; `remarks` are on the influences."""
    trace = run.trace
    found = list(remarks)
    residual = scalars["relative_residual"]
    if isinstance(residual, float) and residual > _RESIDUAL:
        what = f"an interval of {run.every} steps" if run.every > 1 else "a step"
        found.append(
            f"{residual:.0%} of the change of {what} is not first-order (‖Δf − JΔθ‖/‖Δf‖), and is in none of "
            "these terms"
        )
    if run.every > 1:
        found.append(
            f"{run.every} steps are taken together: J where each interval begins, times the sum of each term"
        )
    if run.held.in_sample:
        found.append(f"probe set {clean(run.held.name)} is in-sample: its examples were trained on")
    if walk.stopped is not None:
        found.append(f"the run holds NaN or infinite values at step {walk.stopped}; figures end before")
    return (*found, *standing(trace))
