"""The words that read a result: what its figures mean, metric by metric."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from tscope_format import Result, clean

from tscope_cli.numerals import percent, significant

# The terms of an update, and what they are called on the screen.
TERMS = {
    "gradient": "gradient",
    "clipping": "clipping",
    "preconditioning": "precond.",
    "memory": "memory",
    "coupled_decay": "decay (coupled)",
    "decoupled_decay": "decay",
    "adapter_residual": "adapter res.",
}
_NAMED = 3


def series(result: Result, name: str) -> NDArray[np.float64]:
    """Return a one-dimensional array of the result as float64."""
    return np.asarray(result.arrays[name].data, dtype=np.float64)


def layers(result: Result, count: int) -> list[str]:
    """Return the names of the layers of a result, by number where it does not have `count` names."""
    names = result.provenance.get("layers")
    if isinstance(names, list | tuple) and len(names) == count:
        return [clean(name) for name in names]
    return [f"layer {index}" for index in range(count)]


def _number(result: Result, name: str) -> float:
    value = result.scalars.get(name)
    return float(value) if isinstance(value, int | float) else math.nan


def _last(result: Result, name: str) -> float:
    if name not in result.arrays:
        return math.nan
    values = series(result, name)
    return float(values[-1]) if values.size else math.nan


def _with_error(result: Result, name: str) -> str:
    """Return a scalar with its standard error, if it has one."""
    error = _number(result, f"{name}_se")
    value = significant(_number(result, name), 4)
    return f"{value} ± {significant(error, 2)}" if error > 0 else value


def read_telescoping(result: Result) -> tuple[str, ...]:
    """Return what the errors mean, in words."""
    telescoped = _number(result, "final_error_telescoped")
    lazy = _number(result, "final_error_lazy")
    if not (math.isfinite(telescoped) and math.isfinite(lazy)):
        return ("The approximation errors are not finite: the run, or the telescoped sum, diverged.",)
    lines = [
        f"At the last step the telescoped model is {significant(telescoped, 3)} away from the network "
        f"on average, the lazy one (linearised at the start) {significant(lazy, 3)}"
        f"{_compare(telescoped, lazy)}."
    ]
    agreement = [_last(result, f"agreement_{kind}") for kind in ("telescoped", "lazy")]
    if all(map(math.isfinite, agreement)):
        lines.append(
            f"The telescoped model predicts the network's class on {percent(agreement[0])} of the probe's "
            f"examples, the lazy one on {percent(agreement[1])}."
        )
    return tuple(lines)


def _compare(telescoped: float, lazy: float) -> str:
    if telescoped <= 0 or lazy <= 0:
        return ""
    ratio = lazy / telescoped
    if ratio >= 1.05:
        return f", {significant(ratio, 2)} times as far"
    return "" if ratio > 0.95 else ": here telescoping is the worse of the two"


def read_effective(result: Result) -> tuple[str, ...]:
    """Return what the effective parameters mean, in words."""
    train, test = _number(result, "p_train"), _number(result, "p_test")
    if not math.isfinite(train):
        return ("The effective parameters are not finite.",)
    examples = result.scalars.get("examples_train")
    lines = [
        f"At the last step predictions of the {examples} training examples use "
        f"{_with_error(result, 'p_train')} effective parameters"
        + (f", those of held-out examples {_with_error(result, 'p_test')}." if math.isfinite(test) else ".")
    ]
    if _number(result, "gap_se") > 0:
        lines.append(
            f"The gap is {_with_error(result, 'gap')}: the same probes measured both, so its standard "
            "error is not the sum of theirs."
        )
    error, scale = _number(result, "discrepancy_telescoped"), _number(result, "prediction_scale")
    if math.isfinite(error) and scale > 0:
        lines.append(
            f"They are those of the telescoping model, {percent(error / scale)} of the predictions' size "
            "away from the network."
        )
    return tuple(lines)


def read_kernel(result: Result) -> tuple[str, ...]:
    """Return what the kernel's series mean, in words."""
    moved = _number(result, "movement_train")
    if not math.isfinite(moved):
        return ("The kernel at the start is zero, so it has no movement.",)
    what = "preconditioned kernel" if result.scalars.get("preconditioned") else "tangent kernel"
    what = "trees' kernel" if result.scalars.get("form") == "leaves" else what
    where = f"At step {result.scalars.get('steps')}"
    apart = significant(_number(result, "distance_train"), 3)
    lines = [
        f"{where} the {what} of the training examples has moved by {significant(moved, 3)} times its size at "
        f"the start, to a kernel distance (1 − cosine) of {apart}."
    ]
    aligned = (
        series(result, "alignment_train") if "alignment_train" in result.arrays else np.full(1, math.nan)
    )
    first, last = aligned[0], aligned[-1]
    if math.isfinite(first) and math.isfinite(last):
        lines.append(
            f"Its alignment with the labels went from {significant(float(first), 3)} to "
            f"{significant(float(last), 3)}."
        )
    test, train = (_number(result, f"weight_norm_max_{name}") for name in ("test", "train"))
    if train > 0 and math.isfinite(test):
        lines.append(
            f"The largest weights of a held-out example over the training examples are "
            f"{significant(test / train, 3)} times those of a training example."
        )
    return tuple(lines)


def read_updates(result: Result) -> tuple[str, ...]:
    """Return what the optimizer's terms and the influences mean, in words."""
    shares = {term: _number(result, f"share_{term}") for term in TERMS}
    large = [(term, share) for term, share in shares.items() if abs(share) >= 0.001]
    if not large:
        return ("To first order the predictions did not change.",)
    told = ", ".join(f"{term.replace('_', ' ')} {percent(share)}" for term, share in large)
    steps = f"steps {result.scalars.get('from_step')} to {result.scalars.get('steps')}"
    lines = [f"Of the first-order change of the predictions over {steps}: {told}."]
    if "layer_share" in result.arrays:
        lines.append(_by_layer(result))
    if "influence" in result.arrays and result.arrays["influence"].data.size:
        values = np.asarray(result.arrays["influence"].data[0], dtype=np.float64)  # (output, train)
        train, traced = (result.arrays[name].data for name in ("train", "traced"))
        output = int(np.abs(values).sum(1).argmax())
        order = np.argsort(-np.abs(values[output]), kind="stable")[:_NAMED]
        named = ", ".join(f"{int(train[i])} ({values[output, i]:+.3g})" for i in order)
        lines.append(
            f"Output {output} of probe example {int(traced[0])} was moved most by the training examples "
            f"{named}."
        )
    return tuple(lines)


def _by_layer(result: Result) -> str:
    """Return the shares of the largest layers, those of all terms together."""
    weight = np.square(series(result, "first_order"))
    by_term = np.asarray(result.arrays["layer_share"].data, dtype=np.float64)  # (step, term, layer)
    shares = weight @ by_term.sum(1) / weight.sum()
    order = np.argsort(-np.abs(shares), kind="stable")[:_NAMED]
    names = layers(result, shares.size)
    rest = f", {percent(float(shares.sum() - shares[order].sum()))} by others" if shares.size > _NAMED else ""
    return f"By layer: {', '.join(f'{names[i]} {percent(float(shares[i]))}' for i in order)}{rest}."


def read_boosting(result: Result) -> tuple[str, ...]:
    """Return what the comparison with trees means, in words."""
    norms = {
        name: [_number(result, f"norm_{name}_{end}") for end in ("first", "last")]
        for name in ("net", "trees")
    }
    increase = [_number(result, f"relative_increase_{end}") for end in ("first", "last")]
    if not all(map(math.isfinite, [*norms["net"], *norms["trees"], *increase])):
        return ("The two cannot be compared: an error or a norm is not finite.",)
    share = series(result, "share")
    ends = [percent(float(value)) for value in (share[0], share[-1])]
    weights = {
        name: f"{significant(first, 3)} to {significant(last, 3)}" for name, (first, last) in norms.items()
    }
    words = [f"{percent(abs(value))} {'above' if value >= 0 else 'below'}" for value in increase]
    return (
        f"From {ends[0]} to {ends[1]} irregular test examples the network's largest kernel weights go from "
        f"{weights['net']} times those of training examples, the trees' from {weights['trees']}.",
        f"The network's squared error is {words[0]} that of the trees in sets with {ends[0]} irregular "
        f"examples, and {words[1]} it with {ends[1]}.",
    )


def _ends(result: Result, name: str) -> tuple[float, float]:
    """Return a series' values at the smallest and the largest share."""
    return _number(result, f"{name}_first"), _number(result, f"{name}_last")
