"""The metric `weight-averaging`: what it needs, and how it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tscope.analyses.averaging.options import Options
from tscope.analyses.effective.metric import PROGRAM
from tscope.analyses.metric import Metric, Need, Watch

if TYPE_CHECKING:
    from tscope_format.results import Result

    from tscope.trace import Trace


def run(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric; see `tscope.analyses.averaging.analysis`."""
    from tscope.analyses.averaging.analysis import analyse

    return analyse(trace, options, watch)


def _knows_rows(trace: Trace, options: Options) -> bool:
    """Tell whether θ is known where it is needed; of single steps the reader itself says so."""
    along = options.against is None and options.at is None
    return not along or trace.reader.theta_rows is None


def _has_examples(trace: Trace, options: Options) -> bool:
    return "examples/input/0" in trace.reader.arrays()


METRIC = Metric(
    name="weight-averaging",
    summary="Averaged models: between runs (--against), between steps (--at), or along one run.",
    requires=(
        (
            PROGRAM,
            Need(
                "the parameters at every row (theta)",
                "The run was recorded with `--updates none`: record it without, or average steps that it "
                "keeps (`--at 0,last`) or runs (`--against OTHER.zarr`)",
                _knows_rows,
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
)
