"""The metric `kernel`: what it needs, and how it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tscope.analyses.effective.metric import PROGRAM
from tscope.analyses.kernel.options import Options
from tscope.analyses.metric import Metric, Need, Watch

if TYPE_CHECKING:
    from tscope_format.results import Result

    from tscope.trace import Trace


def run(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric; see `tscope.analyses.kernel.analysis`."""
    from tscope.analyses.kernel.analysis import analyse

    return analyse(trace, options, watch)


def plan(trace: Trace, options: Options) -> str:
    """Say how many rows and examples would be taken, and about what that costs."""
    from tscope.analyses.kernel.analysis import describe

    return describe(trace, options)


def trees(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric of an ensemble of trees; see `tscope.boosting.kernel`."""
    from tscope.boosting.kernel import run as run_trees

    return run_trees(trace, options, watch)


def _has_parameters(trace: Trace, options: Options) -> bool:
    return any(name.startswith("theta") and name.endswith("/update") for name in trace.reader.arrays())


def _has_examples(trace: Trace, options: Options) -> bool:
    return "examples/input/0" in trace.reader.arrays()


METRIC = Metric(
    name="kernel",
    summary="The tangent kernel along the run: spectrum, alignment with the labels, movement, weights.",
    requires=(
        (
            PROGRAM,
            Need(
                "the parameters at every row (theta)",
                "An exact kernel is computed from them: record with `tscope record`, which keeps them",
                _has_parameters,
            ),
            Need(
                "the training examples",
                "Record with `tscope record --max-examples N`",
                _has_examples,
            ),
        ),
    ),
    options=Options,
    run=run,
    plan=plan,
    trees=trees,
)
