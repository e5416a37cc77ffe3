"""The metric `regime`: what it needs, and how it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tscope.analyses.effective.metric import PROGRAM
from tscope.analyses.gradients.metric import KNOWN_ROWS
from tscope.analyses.kernel.metric import EXAMPLES
from tscope.analyses.metric import Metric, Watch
from tscope.analyses.regime.options import Options

if TYPE_CHECKING:
    from tscope_format.results import Result

    from tscope.trace import Trace


def run(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric; see `tscope.analyses.regime.analysis`."""
    from tscope.analyses.regime.analysis import analyse

    return analyse(trace, options, watch)


def plan(trace: Trace, options: Options) -> str | None:
    """Say what the kernels cost; the rest is cheap."""
    if not options.wants("kernel"):
        return None
    from tscope.analyses.kernel.analysis import describe

    return describe(trace, options.kernel())


METRIC = Metric(
    name="regime",
    summary="Lazy or rich: movement of kernel, features and parameters; linear nets against closed forms.",
    requires=((KNOWN_ROWS, PROGRAM, EXAMPLES),),
    options=Options,
    run=run,
    plan=plan,
)
