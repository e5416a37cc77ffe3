"""The metric `gradients`: what it needs, and how it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tscope.analyses.effective.metric import PROGRAM
from tscope.analyses.gradients.options import Options
from tscope.analyses.kernel.metric import EXAMPLES
from tscope.analyses.metric import Metric, Need, Watch

if TYPE_CHECKING:
    from tscope_format.results import Result

    from tscope.trace import Trace


def run(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric; see `tscope.analyses.gradients.analysis`."""
    from tscope.analyses.gradients.analysis import analyse

    return analyse(trace, options, watch)


def plan(trace: Trace, options: Options) -> str:
    """Say which gradients would be compared, and what that costs."""
    from tscope.analyses.gradients.analysis import describe

    return describe(trace, options)


def _knows_rows(trace: Trace, options: Any) -> bool:
    """Tell whether θ is known at the rows that are asked for: at every row, or at those that were kept."""
    kept = trace.reader.theta_rows
    if kept is None:
        return True
    asked = [options.at, *([options.since] if isinstance(options, Options) else [])]
    if None in asked:
        return False
    steps = {"last": trace.rows - 1, **{str(trace.steps[row]): row for row in kept}}
    return all(steps.get(step) in kept for words in asked for step in words.split(","))


KNOWN_ROWS = Need(
    "the parameters at the rows that are asked for",
    "The run was recorded with `--updates none`: record it without, or name steps that it keeps (0, powers "
    "of two and the last: `--at 0,last`, and of gradients `--since 0`)",
    _knows_rows,
)

METRIC = Metric(
    name="gradients",
    summary="How far each layer's gradients of the predictions move from a step to later ones.",
    requires=((PROGRAM, KNOWN_ROWS, EXAMPLES),),
    options=Options,
    run=run,
    plan=plan,
)
