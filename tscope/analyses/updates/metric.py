"""The metric `updates`: what it needs, and how it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tscope.analyses.effective.metric import BATCHES, GRADIENTS, PROGRAM
from tscope.analyses.metric import EVERY_ROW, Metric, Watch
from tscope.analyses.telescoping import PROBE
from tscope.analyses.updates.options import Options

if TYPE_CHECKING:
    from tscope_format.results import Result

    from tscope.trace import Trace


def run(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric; see `tscope.analyses.updates.analysis`."""
    from tscope.analyses.updates.analysis import analyse

    return analyse(trace, options, watch)


METRIC = Metric(
    name="updates",
    summary="What each part of the optimizer's steps, each layer and training example did to predictions.",
    requires=((PROGRAM, EVERY_ROW, BATCHES, GRADIENTS, PROBE),),
    options=Options,
    run=run,
)
