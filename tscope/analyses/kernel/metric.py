"""The metric `kernel`: what it needs, and how it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tscope.analyses.effective.metric import PROGRAM
from tscope.analyses.kernel.options import Options
from tscope.analyses.metric import Metric, Need, Watch

if TYPE_CHECKING:
    from tscope_format.results import Result

    from tscope.trace import Trace


def run(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric; see `tscope.analyses.kernel.analysis`, and `…sketched` for that of sketches."""
    if takes_sketches(trace, options):
        from tscope.analyses.kernel.sketched import analyse as analyse_sketches

        return analyse_sketches(trace, options, watch)
    from tscope.analyses.kernel.analysis import analyse

    return analyse(trace, options, watch)


def plan(trace: Trace, options: Options) -> str:
    """Say how many rows and examples would be taken, and about what that costs."""
    if takes_sketches(trace, options):
        from tscope.analyses.kernel.sketched import describe as describe_sketches

        return describe_sketches(trace, options)
    from tscope.analyses.kernel.analysis import describe

    return describe(trace, options)


def trees(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric of an ensemble of trees; see `tscope.boosting.kernel`."""
    from tscope.boosting.kernel import run as run_trees

    return run_trees(trace, options, watch)


def _knows_rows(trace: Trace, options: Options) -> bool:
    """Tell whether θ is known at the rows that are asked for: at every row, or at those of `at`."""
    if options.form == "sketch":
        return True  # it is not needed
    kept = trace.reader.theta_rows
    if kept is None:
        return True
    if options.at is None or options.preconditioned:
        return False
    steps = {"last": trace.rows - 1, **{str(trace.steps[row]): row for row in kept}}
    return all(steps.get(step) in kept for step in options.at.split(","))


def _has_examples(trace: Trace, options: Any) -> bool:
    return "examples/input/0" in trace.reader.arrays()


def _sketched(trace: Trace, options: Options) -> bool:
    """Tell whether there are sketches, and exact kernels are not asked for or cannot be had."""
    there = any(f"probe/{name}/sketch" in trace.reader.arrays() for name in trace.reader.probes)
    return there and takes_sketches(trace, options)


def takes_sketches(trace: Trace, options: Options) -> bool:
    """Tell whether the metric is to be taken from sketches: where it is asked for, or is the only way."""
    if options.form != "auto":
        return options.form == "sketch"
    return not _knows_rows(trace, options) and not options.preconditioned


def _exact(trace: Trace, options: Options) -> bool:
    return options.form != "sketch"


EXAMPLES = Need(
    "the training examples",
    "Record with `tscope record --max-examples N`",
    _has_examples,
)
_SKETCHES = "sketches of a probe set"
_RECORD = "Record with `tscope record --sketch K`"

METRIC = Metric(
    name="kernel",
    summary="The tangent kernel along the run: spectrum, alignment with the labels, movement, weights.",
    requires=(
        (PROGRAM, Need(_SKETCHES, _RECORD, _sketched)),
        (
            PROGRAM,
            Need(_SKETCHES, _RECORD, _exact),
            Need(
                "the parameters at every row (theta)",
                "The run was recorded with `--updates none`: record it without, take steps that it keeps (0, "
                "powers of two and the last: `--at 0,last`), or estimates of a run with sketches (`tscope "
                "record --sketch K`, `--form sketch`); `--preconditioned` needs every row",
                _knows_rows,
            ),
            EXAMPLES,
        ),
    ),
    options=Options,
    run=run,
    plan=plan,
    trees=trees,
)
