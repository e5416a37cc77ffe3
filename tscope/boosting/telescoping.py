"""Telescoping of an ensemble of trees: its predictions as a sum over trees, which is exact.

    f̃_t(x) = f_0 + Σ_{s≤t} γ Σ_i k_s(x, x_i) (y_i − f̃_{s−1}(x_i)),   k_s(x, x_i) = 1{same leaf} w_i / (Σw + λ)

against the values that the library keeps in its leaves. The lazy model keeps the first tree's kernel k_1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tscope.analyses.predictions import Predictions
from tscope.analyses.telescoping import Options, assemble, choose_probe
from tscope.boosting.evaluation import evaluation, refuse
from tscope.boosting.recursion import follow, outputs

if TYPE_CHECKING:
    from tscope_format.results import Result

    from tscope.analyses.metric import Watch
    from tscope.trace import Trace

_NETWORKS = ("rule", "every", "dtype", "layers", "per_layer_full", "probe_output", "model")
_LAZY = 0


def run(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric.

    Raises:
        UsageError: An option that only networks have, or an unknown probe set.
        MissingDataError: There is no probe set.
        AnalysisError: The ensemble's smoother is not exact.
    """
    given = {name: getattr(options, name) for name in _NETWORKS}
    refuse("telescoping", given, Options, "its steps are trees, and exactly first-order")
    probe = choose_probe(trace, options)
    points = evaluation(trace, probe)
    ensemble, leaf = points.ensemble, points.leaf
    n = ensemble.examples
    y = ensemble.target
    smoothed = np.stack([F[n:].copy() for F in follow(ensemble, leaf, y, constant=True)])
    lazy = np.stack([F[n:].copy() for F in follow(ensemble, leaf, y, constant=True, tree=_LAZY)])
    actual = np.stack(list(outputs(ensemble, leaf[:, n:])))
    watch.progress(len(actual), len(actual))
    predictions = Predictions(
        trace.steps,
        actual,
        np.diff(smoothed, axis=0, prepend=smoothed[:1]),
        lazy - lazy[:1],
    )
    how = {"rule_of_trees": ensemble.rule, "functional": "full"}
    result = assemble(trace, probe, options, predictions, "trees", how)
    note = "an ensemble of trees: its steps are trees, and lazy keeps the leaves of the first one throughout"
    return replace(result, notes=(*result.notes, note))
