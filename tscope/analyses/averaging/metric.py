"""The metric `weight-averaging`: what it needs, and how it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tscope.analyses import kernel
from tscope.analyses.averaging.options import Options
from tscope.analyses.metric import Metric, Watch

if TYPE_CHECKING:
    from tscope_format.results import Result

    from tscope.trace import Trace


def run(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric; see `tscope.analyses.averaging.analysis`."""
    from tscope.analyses.averaging.analysis import analyse

    return analyse(trace, options, watch)


METRIC = Metric(
    name="weight-averaging",
    summary="Averaged models: between runs (--against), between steps (--at), or along one run.",
    requires=kernel.METRIC.requires,
    options=Options,
    run=run,
)
