"""The metric `gradients`: what it needs, and how it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tscope.analyses.effective.metric import PROGRAM
from tscope.analyses.gradients.options import Options
from tscope.analyses.layerwise.metric import PARAMETERS
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


def _has_examples(trace: Trace, options: Options) -> bool:
    return "examples/input/0" in trace.reader.arrays()


EXAMPLES = Need(
    "the training examples",
    "Record with `tscope record --max-examples N`",
    _has_examples,
)

METRIC = Metric(
    name="gradients",
    summary="How far each layer's gradients of the predictions move from a step to later ones.",
    requires=((PROGRAM, PARAMETERS, EXAMPLES),),
    options=Options,
    run=run,
    plan=plan,
)
