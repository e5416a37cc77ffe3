"""The metric `layers`: what it needs, and how it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tscope.analyses.layerwise.options import Options
from tscope.analyses.metric import Metric, Need, Watch

if TYPE_CHECKING:
    from tscope_format.results import Result

    from tscope.trace import Trace


def run(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric; see `tscope.analyses.layerwise.analysis`."""
    from tscope.analyses.layerwise.analysis import analyse

    return analyse(trace, options, watch)


def _has_parameters(trace: Trace, options: Options) -> bool:
    return any(name.startswith("theta") and name.endswith("/update") for name in trace.reader.arrays())


PARAMETERS = Need(
    "the parameters at every row (theta)",
    "The run was recorded with `--updates none`: record it without",
    _has_parameters,
)

METRIC = Metric(
    name="layers",
    summary="What each layer did: norms, ranks, movement, its part in predictions and loss, balancedness.",
    requires=((PARAMETERS,),),
    options=Options,
    run=run,
)
