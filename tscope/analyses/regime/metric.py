"""The metric `regime`: what it needs, and how it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tscope.analyses.metric import EVERY_ROW, Metric, Need, Watch
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


PROGRAM = Need(
    "the model as data (program)",
    "Record a model that `torch.export` can take; `tscope info` says why this one was not",
    lambda trace, options: "program/graph" in trace.reader.arrays(),
)
EXAMPLES = Need(
    "the training examples",
    "Record a model whose output has a row for each input row, without `--max-examples 0`",
    lambda trace, options: "examples/input/0" in trace.reader.arrays(),
)

METRIC = Metric(
    name="regime",
    summary="Lazy or rich: movement of kernel, features and parameters; linear nets against closed forms.",
    requires=((EVERY_ROW, PROGRAM, EXAMPLES),),
    options=Options,
    run=run,
    plan=plan,
)
