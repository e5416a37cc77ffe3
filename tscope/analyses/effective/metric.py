"""The metric `effective-params`: what it needs, and how it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tscope.analyses.effective.options import Options
from tscope.analyses.metric import EVERY_ROW, Metric, Need, Watch

if TYPE_CHECKING:
    from tscope_format.results import Result

    from tscope.trace import Trace


def run(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric; see `tscope.analyses.effective.analysis`."""
    from tscope.analyses.effective.analysis import analyse

    return analyse(trace, options, watch)


def plan(trace: Trace, options: Options) -> str:
    """Say which form would be used, and about what it costs."""
    from tscope.analyses.effective.analysis import describe

    return describe(trace, options)


def trees(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric of an ensemble of trees; see `tscope.boosting.effective`."""
    from tscope.boosting.effective import run as run_trees

    return run_trees(trace, options, watch)


def _has_program(trace: Trace, options: Options) -> bool:
    return "program/graph" in trace.reader.arrays()


def _has_batches(trace: Trace, options: Options) -> bool:
    return "batch/example" in trace.reader.arrays() and "examples/input/0" in trace.reader.arrays()


def _has_gradients(trace: Trace, options: Options) -> bool:
    present = trace.reader.arrays()
    return "batch/output" in present and "batch/output_grad" in present


PROGRAM = Need(
    "the model as data (program)",
    "Record a model that `torch.export` can export; `tscope info` says what failed",
    _has_program,
)
BATCHES = Need(
    "the training examples of each batch",
    "Record with `tscope record --max-examples N`, at least as many as the run has",
    _has_batches,
)
GRADIENTS = Need(
    "outputs and output gradients of each batch",
    "Record with `tscope record --outputs all`",
    _has_gradients,
)

METRIC = Metric(
    name="effective-params",
    summary="How strongly predictions depend on the training labels: the smoother's effective parameters.",
    requires=((PROGRAM, EVERY_ROW, BATCHES, GRADIENTS),),
    options=Options,
    run=run,
    plan=plan,
    trees=trees,
)
