"""A network against an ensemble of trees, from the two traces to the result.

`docs/metrics/boosting.md` says how to read it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np
from tscope_format.errors import UsageError, clean
from tscope_format.results import Array, Result

from tscope.analyses.boosting.irregularity import RTOL, column, mahalanobis, pca
from tscope.analyses.boosting.pair import Pair, read_pair
from tscope.analyses.boosting.subsets import Subsets, draw, mean_errors, normalized_maxima
from tscope.analyses.boosting.weights import Norms, network_norms, network_outputs, open_network, tree_norms
from tscope.analyses.standing import standing
from tscope.boosting import outputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.analyses.boosting.options import Options
    from tscope.analyses.kernel.setup import Setup
    from tscope.analyses.metric import Watch
    from tscope.trace import Trace

    Values = NDArray[np.float64]


def analyse(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric.

    Raises:
        UsageError: The options do not fit the traces, or the two are not of the same examples.
        MissingDataError: A trace lacks what the comparison needs.
        AnalysisError: A model has no exact kernel weights, or no test example is irregular.
    """
    pair = read_pair(trace, options)
    scores = _scores(pair, options)
    subsets = draw(scores, options.irregular, options.fractions, options.draws, options.seed)
    setup = open_network(trace, options, pair.probe.examples, len(pair.train))
    if setup.outputs != pair.outputs:
        raise UsageError(
            f"the network has {setup.outputs} outputs, the trees {pair.outputs}: they do not predict the same"
        )
    watch.say(
        f"kernels at {len(setup.rows)} rows, of {setup.train.count} training and {pair.probe.examples} test "
        f"examples, against {pair.ensemble.trees} trees; {subsets.size} test examples are irregular"
    )
    drawn = pair.train[setup.train.numbers].astype(pair.test.dtype)
    norms = {
        "net": network_norms(trace, setup, options, watch),
        "trees": tree_norms(pair.ensemble, drawn, pair.test),
    }
    predictions = {"net": network_outputs(trace, setup), "trees": _predictions(pair)}
    errors = {name: np.square(f - pair.labels).mean(1) for name, f in predictions.items()}
    series = _series(norms, errors, subsets)
    return _result(trace, options, pair, setup, scores, subsets, norms, errors, series)


def _scores(pair: Pair, options: Options) -> Values:
    """Return how irregular each test example is (test,)."""
    known = {"pca": pca, "mahalanobis": mahalanobis}
    if options.irregularity not in known:
        return column(options.irregularity, pair.probe.examples)
    train, test = (inputs.astype(np.float64) for inputs in (pair.train, pair.test))
    return known[options.irregularity](train, test)


def _predictions(pair: Pair) -> Values:
    """Return the ensemble's own predictions (test, output) after its last tree."""
    return deque(outputs(pair.ensemble, pair.ensemble.nodes.leaves(pair.test)), maxlen=1)[0]


def _series(norms: dict[str, Norms], errors: dict[str, Values], subsets: Subsets) -> dict[str, Values]:
    """Return each series of every set (share, draw)."""
    found = {
        f"norm_{name}": normalized_maxima(part.test, part.train, subsets) for name, part in norms.items()
    }
    found |= {f"error_{name}": mean_errors(part, subsets) for name, part in errors.items()}
    net, trees = found["error_net"], found["error_trees"]
    found["gap"] = net - trees
    found["relative_increase"] = _relative(found["gap"], trees)
    return found


def _relative(part: Values, whole: Values) -> Values:
    """Return part / whole, NaN where that is 0."""
    return np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)


def _result(
    trace: Trace,
    options: Options,
    pair: Pair,
    setup: Setup,
    scores: Values,
    subsets: Subsets,
    norms: dict[str, Norms],
    errors: dict[str, Values],
    series: dict[str, Values],
) -> Result:
    """Name what was found."""
    arrays = {"share": Array(("share",), np.array(options.fractions))}
    for name, values in series.items():
        arrays[name] = Array(("share",), values.mean(1))
        arrays[f"{name}_sd"] = Array(("share",), values.std(1))
    # Of the mean errors: the mean of the draws' ratios would lean to draws where the trees happen to be good.
    increase = _relative(arrays["gap"].data, arrays["error_trees"].data)
    arrays["relative_increase"] = Array(("share",), increase)
    arrays["test"] = Array(("test",), np.arange(len(scores), dtype=np.int64))
    arrays["score"] = Array(("test",), scores)
    arrays["irregular"] = Array(("test",), subsets.irregular.astype(np.uint8))
    arrays["train"] = Array(("train",), setup.train.numbers)
    for name, part in norms.items():
        arrays[f"squared_error_{name}"] = Array(("test",), errors[name])
        arrays[f"weight_norm_test_{name}"] = Array(("test",), part.test.mean(0))
        arrays[f"weight_norm_train_{name}"] = Array(("train",), part.train.mean(0))
        arrays[f"step_{name}"] = Array((f"step_{name}",), part.step)
        arrays[f"weight_norm_max_train_{name}"] = Array((f"step_{name}",), part.train.max(1))
        arrays[f"weight_norm_max_test_{name}"] = Array((f"step_{name}",), part.test.max(1))
    scalars: dict[str, float | int | str | bool | None] = {
        "probe": clean(pair.probe.name),
        "irregularity": clean(options.irregularity),
        "examples_train": setup.train.count,
        "examples_test": len(scores),
        "examples_irregular": subsets.size,
        "draws": options.draws,
        "steps": int(trace.steps[-1]),
        "trees": pair.ensemble.trees,
        "preconditioned": options.preconditioned,
        "error_net_all": float(errors["net"].mean()),
        "error_trees_all": float(errors["trees"].mean()),
    }
    for name in ("norm_net", "norm_trees", "error_net", "error_trees", "relative_increase"):
        values = arrays[name].data
        scalars |= {f"{name}_first": float(values[0]), f"{name}_last": float(values[-1])}
    provenance = {
        "against": {
            "trace": pair.trees.fingerprint,
            "path": pair.trees.path.name,
            "root": pair.trees.name,
            "class": clean(pair.trees.reader.attributes.get("class", "?")),
            "rule_of_trees": pair.ensemble.rule,
        },
        "mahalanobis_rtol": RTOL if options.irregularity == "mahalanobis" else None,
        "dtype": str(setup.dtype).removeprefix("torch."),
        "shared_examples": pair.shared,
    }
    return Result("boosting", scalars, arrays, provenance, _notes(trace, pair, options, subsets))


def _notes(trace: Trace, pair: Pair, options: Options, subsets: Subsets) -> tuple[str, ...]:
    found = []
    if pair.shared < len(pair.train):
        found.append(
            f"of the network's {len(pair.train)} training examples the trees were fitted on {pair.shared}"
        )
    if pair.probe.in_sample:
        found.append(f"probe set {clean(pair.probe.name)} is in-sample: its examples were trained on")
    if pair.ensemble.rule == "forest":
        found.append("the trees are a forest: k_t is tree t's own weights, not those of a step")
    if options.irregularity == "pca":
        found.append(
            "irregularity is along the first principal component of the inputs as the network got them: "
            "features on a large scale rule it unless inputs were standardised"
        )
    if len(trees := [n for n in pair.trees.roots if pair.trees.root(n).kind == "trees"]) > 1:
        others = ", ".join(clean(name) for name in trees if name != pair.trees.name)
        found.append(
            f"the trees are {clean(pair.trees.name)}; their trace also holds {others} (`--against-root`)"
        )
    counts = subsets.irregular[subsets.places[:, 0]].sum(1).tolist()
    if len(set(counts)) < len(counts):
        found.append(
            f"sets of {subsets.size} examples do not have every share: of them {', '.join(map(str, counts))} "
            "are irregular; take more test examples, a larger `--irregular`, or fewer `--shares`"
        )
    return (*found, *standing(trace))
