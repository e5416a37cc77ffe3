"""The metric `neural-collapse`: what it needs, and how it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tscope.analyses.collapse.options import Options
from tscope.analyses.effective.metric import PROGRAM
from tscope.analyses.gradients.metric import KNOWN_ROWS
from tscope.analyses.kernel.metric import EXAMPLES
from tscope.analyses.metric import Metric, Watch

if TYPE_CHECKING:
    from tscope_format.results import Result

    from tscope.trace import Trace


def run(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric; see `tscope.analyses.collapse.analysis`."""
    from tscope.analyses.collapse.analysis import analyse

    return analyse(trace, options, watch)


METRIC = Metric(
    name="neural-collapse",
    summary="Neural collapse of a classifier: NC1 to NC4 of the last layer's features, means and weights.",
    requires=((PROGRAM, KNOWN_ROWS, EXAMPLES),),
    options=Options,
    run=run,
)
