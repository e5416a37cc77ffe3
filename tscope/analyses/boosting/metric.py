"""The metric `boosting`: what it needs, and how it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tscope.analyses.boosting.options import Options
from tscope.analyses.effective.metric import PROGRAM
from tscope.analyses.kernel.metric import EXAMPLES
from tscope.analyses.metric import EVERY_ROW, Metric, Need, Watch

if TYPE_CHECKING:
    from tscope_format.results import Result

    from tscope.trace import Trace


def run(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric; see `tscope.analyses.boosting.analysis`."""
    from tscope.analyses.boosting.analysis import analyse

    return analyse(trace, options, watch)


def _has_trees(trace: Trace, options: Options) -> bool:
    return options.against is not None


_TREES = Need(
    "an ensemble of trees to compare with",
    "Name its trace: `--against TREES.zarr`",
    _has_trees,
)
METRIC = Metric(
    name="boosting",
    summary="A network against trees (--against): kernel weights and errors on irregular test examples.",
    requires=((PROGRAM, EVERY_ROW, EXAMPLES, _TREES),),
    options=Options,
    run=run,
)
