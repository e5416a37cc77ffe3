"""A network's trace and a trace of trees, checked to be of the same examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tscope_format.errors import AnalysisError, MissingDataError, UsageError, clean

from tscope.analyses.effective.setup import held_out
from tscope.boosting import Ensemble
from tscope.optimizers.batches import ExampleInputs
from tscope.trace import open as open_trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.analyses.boosting.options import Options
    from tscope.probes import ProbeSet
    from tscope.trace import Trace

    Inputs = NDArray[Any]

_SCALED = "were inputs scaled for one of the two only?"
_RECORD = "record both with the same `--probe FILE.npz`, or give it now: `--probe FILE.npz`"


@dataclass(frozen=True, eq=False)
class Pair:
    """Two models of the same problem.

    Attributes:
        trees: The trace of the trees.
        ensemble: The trees.
        probe: The test examples.
        train: The network's training inputs (example, feature), as it got them.
        test: The test inputs (test, feature), as the trees got them.
        labels: (test, output) float64.
        shared: How many of the network's training examples the trees were fitted on too.
    """

    trees: Trace
    ensemble: Ensemble
    probe: ProbeSet
    train: Inputs
    test: Inputs
    labels: NDArray[np.float64]
    shared: int

    @property
    def outputs(self) -> int:
        """C."""
        return int(self.labels.shape[1])


def read_pair(trace: Trace, options: Options) -> Pair:
    """Open the trees and find the examples that both models have.

    Raises:
        UsageError: The two traces are not of the same examples.
        MissingDataError: One of them lacks trees, test examples or labels.
        AnalysisError: The trees' smoother is not exact, or the network's inputs are no table.
        TraceError: The trace of the trees cannot be read.
    """
    trees = _trees(options)
    ensemble = Ensemble.read(trees)
    probe = held_out(trace, options.probe)
    if probe is None:
        raise MissingDataError(
            f"{clean(trace.path)} holds no held-out examples to compare on; give some with labels: "
            "`--probe FILE.npz` (x, y)"
        )
    inputs = ExampleInputs(trace)
    train = _table("training examples", [part.numpy() for part in inputs.take(torch.arange(inputs.count))])
    test = _table(f"probe set {clean(probe.name)}", probe.inputs)
    fitted = np.asarray(trees.reader.read("examples/input/0"))
    if train.shape[1] != fitted.shape[1]:
        raise UsageError(
            f"the network was trained on {train.shape[1]} features, the trees on {fitted.shape[1]}; both "
            "must get the same"
        )
    shared = _shared(train, fitted)
    if not shared:
        raise UsageError(
            f"none of the network's {len(train)} training examples is among the {len(fitted)} of the trees: "
            "they were fitted on other data, or inputs were scaled for one of the two only"
        )
    recorded = trace.probes.get(probe.name) is probe
    other = _other(trees, probe) if recorded else None
    if other is not None:
        _same(probe, test, other, other.inputs[0])
        test = other.inputs[0]
    target = probe.target if probe.target is not None or other is None else other.target
    if target is None:
        raise MissingDataError(
            f"the examples of probe set {clean(probe.name)} have no labels in either trace, so there are no "
            "errors to compare; give them with `--probe FILE.npz` (x, y)"
        )
    outputs = ensemble.target.shape[1]
    labels = target.reshape(len(target), -1).astype(np.float64)
    if labels.shape[1] != outputs:
        raise UsageError(
            f"the labels of probe set {clean(probe.name)} have {labels.shape[1]} values each, the trees "
            f"{outputs} outputs: errors are squared differences of the two"
        )
    if not np.isfinite(labels).all():
        raise UsageError(f"labels of probe set {clean(probe.name)} are NaN or infinite")
    return Pair(trees, ensemble, probe, train, test.astype(fitted.dtype), labels, shared)


def _trees(options: Options) -> Trace:
    """Return the ensemble that was named, or the first of its trace."""
    trace = open_trace(str(options.against))
    if options.against_root is not None:
        chosen = trace.root(options.against_root)
        found = [chosen] if chosen.kind == "trees" else []
    else:
        found = [root for root in map(trace.root, trace.roots) if root.kind == "trees"]
    if not found:
        where = clean(options.against if options.against_root is None else options.against_root)
        raise MissingDataError(
            f"--against: {where} holds no ensemble of trees; record one with `tscope record -- python "
            "train_gbt.py`"
        )
    return found[0]


def _table(what: str, inputs: Any) -> Inputs:
    """Return the one input of some examples as a table (example, feature)."""
    if len(inputs) != 1 or inputs[0].dtype.kind not in "fiu":
        raise AnalysisError(
            f"the network takes {len(inputs)} input(s) of {', '.join(str(x.dtype) for x in inputs)}; a "
            f"comparison with trees needs one table of numbers ({what})"
        )
    table: Inputs = inputs[0].reshape(len(inputs[0]), -1)
    return table


def _shared(train: Inputs, fitted: Inputs) -> int:
    """Count the rows of one table that are in the other, as float32: libraries differ in their precision."""
    known = {row.tobytes() for row in np.ascontiguousarray(fitted, dtype=np.float32)}
    return sum(row.tobytes() in known for row in np.ascontiguousarray(train, dtype=np.float32))


def _other(trees: Trace, probe: ProbeSet) -> ProbeSet | None:
    """Return the trees' probe set: that of the same name, else the first that is not in-sample."""
    if probe.name in trees.probes:
        return trees.probes[probe.name]
    return next((found for found in trees.probes.values() if not found.in_sample), None)


def _same(probe: ProbeSet, mine: Inputs, other: ProbeSet, theirs: Inputs) -> None:
    """Refuse probe sets that are not the same examples in the same order, and name the difference."""
    what = f"the probe sets differ: {clean(probe.name)} of the network and {clean(other.name)} of the trees"
    if len(mine) != len(theirs):
        raise UsageError(f"{what} have {len(mine)} and {len(theirs)} examples; {_RECORD}")
    apart = np.float32(mine) != np.float32(theirs)
    if apart.any():
        example, feature = np.argwhere(apart)[0]
        if _shared(mine, theirs) == len(mine):
            raise UsageError(f"{what} hold the same examples in another order; {_RECORD}")
        raise UsageError(
            f"{what} differ in {int(apart.any(1).sum())} of {len(mine)} examples; feature {feature} of "
            f"example {example} is {mine[example, feature]:.6g} and {theirs[example, feature]:.6g} "
            f"({_SCALED}); {_RECORD}"
        )
    if probe.target is None or other.target is None:
        return
    pair = [np.float32(target).reshape(len(target), -1) for target in (probe.target, other.target)]
    if pair[0].shape != pair[1].shape:
        raise UsageError(f"{what} have {pair[0].shape[1]} and {pair[1].shape[1]} labels each; {_RECORD}")
    apart = pair[0] != pair[1]
    if apart.any():
        example, output = np.argwhere(apart)[0]
        raise UsageError(
            f"{what} have other labels at {int(apart.any(1).sum())} of {len(mine)} examples; that of example "
            f"{example} is {pair[0][example, output]:.6g} and {pair[1][example, output]:.6g}; {_RECORD}"
        )
