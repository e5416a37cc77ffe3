"""The metric `events`: what it needs, and how it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tscope_format.results import list_results

from tscope.analyses.events.options import Options
from tscope.analyses.metric import Metric, Need, Watch

if TYPE_CHECKING:
    from tscope_format.results import Result

    from tscope.trace import Trace

READ = ("effective-params", "kernel", "telescoping")
"""Metrics whose saved results tell of events."""

_BLOCK = 65536


def run(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric; see `tscope.analyses.events.analysis`."""
    from tscope.analyses.events.analysis import analyse

    return analyse(trace, options)


def _tells(trace: Trace, options: Options) -> bool:
    """Return whether anything is there: outputs of batches or of a labelled probe set, losses, results."""
    present = trace.reader.arrays()
    if "batch/output" in present:
        return True
    names = [f"probe/{name}" for name in trace.reader.probes]
    if any(f"{name}/output" in present and f"{name}/target" in present for name in names):
        return True
    starts = range(0, trace.rows if "loss" in present else 0, _BLOCK)
    if any(np.isfinite(trace.reader.read("loss", k, min(k + _BLOCK, trace.rows))).any() for k in starts):
        return True
    return any(info.root == trace.name and info.metric in READ for info in list_results(trace.path))


SOURCES = Need(
    "losses, outputs of batches or of a probe set with labels, or saved results",
    "Record with `tscope record --probe FILE.npz` (x and y), or compute another metric first: `tscope "
    "analyze TRACE --metric kernel`",
    _tells,
)

METRIC = Metric(
    name="events",
    summary="What happened when: fit, grokking, peaks, jumps, loss spikes, divergence, and how sure that is.",
    requires=((SOURCES,),),
    options=Options,
    run=run,
    trees=run,
)
