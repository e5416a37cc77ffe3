"""The metric `layers`: what it needs, and how it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tscope.analyses.layerwise.options import Options
from tscope.analyses.metric import EVERY_ROW, Metric, Watch

if TYPE_CHECKING:
    from tscope_format.results import Result

    from tscope.trace import Trace


def run(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric; see `tscope.analyses.layerwise.analysis`."""
    from tscope.analyses.layerwise.analysis import analyse

    return analyse(trace, options, watch)


def plan(trace: Trace, options: Options) -> str:
    """Say how many rows would be taken, and about what their spectra cost."""
    from tscope.analyses.layerwise.analysis import describe

    return describe(trace, options)


METRIC = Metric(
    name="layers",
    summary="What each layer did: norms, ranks, movement, its part in predictions and loss, balancedness.",
    requires=((EVERY_ROW,),),
    options=Options,
    run=run,
    plan=plan,
)
