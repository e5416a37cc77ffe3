"""What must be said beside the series of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tscope_format.errors import clean

from tscope.analyses.standing import standing

if TYPE_CHECKING:
    from tscope.probes import ProbeSet
    from tscope.trace import Trace

    Scalars = Mapping[str, float | int | str | bool | None]


def notes(
    trace: Trace, scalars: Scalars, remarks: Sequence[str], probe: ProbeSet | None, left: int
) -> tuple[str, ...]:
    """Return the notes of a result.

    Args:
        trace: The run.
        scalars: Of the result.
        remarks: On parts that were left out.
        probe: The probe set, where contributions were computed.
        left: How many parameters are not real numbers.
    """
    found = list(remarks)
    every = scalars["every"]
    if isinstance(every, int) and every > 1:
        found.append(
            f"{every} rows are taken together: updates and contributions are of whole intervals, J where "
            "each begins (`--every 1` takes all rows)"
        )
    if probe is not None and probe.in_sample:
        found.append(f"probe set {clean(probe.name)} is in-sample: its examples were trained on")
    if probe is not None and trace.reader.buffers_move:
        found.append(
            "predictions are of the model in evaluation mode; the residual holds the drift of its buffers"
        )
    if left:
        found.append(f"{left} parameter(s) are not real floating-point numbers, and are in no layer")
    if scalars["stopped"] is not None:
        found.append(
            f"the parameters or their squares are not finite at step {scalars['stopped']}; figures end before"
        )
    return (*found, *standing(trace))
