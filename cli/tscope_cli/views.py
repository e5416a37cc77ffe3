"""Which arrays of a metric's result make its table, chart and figure, and the words that read them.

Array names are the interface between analyses and programs (design §7), so a view is data: titles for names.
A metric without a view of its own is shown by `generic`: every series along its steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tscope_format import Result, clean

from tscope_cli.numerals import percent, significant


@dataclass(frozen=True)
class Curve:
    """One series along the steps.

    Attributes:
        array: Its name.
        title: What it is called on the screen.
        share: It is shown in percent.
        optional: It is left out where it is zero throughout.
    """

    array: str
    title: str
    share: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes: what it shows, its curves, and whether y is logarithmic."""

    title: str
    curves: tuple[Curve, ...]
    log: bool = False


@dataclass(frozen=True)
class View:
    """How a metric is shown."""

    coordinate: str
    columns: tuple[Curve, ...]
    panels: tuple[Panel, ...]
    reading: Callable[[Result], tuple[str, ...]]


def view_of(result: Result) -> View:
    """Return the view of a result's metric, without the arrays that this result does not have."""
    view = _VIEWS.get(result.metric) or generic(result)
    panels = (Panel(p.title, _present(result, p.curves), p.log) for p in view.panels)
    return View(
        view.coordinate,
        _present(result, view.columns),
        tuple(panel for panel in panels if panel.curves),
        view.reading,
    )


def needed(metric: str) -> tuple[str, ...] | None:
    """Return the arrays that the table of a metric's results needs; None, all of them, without a view."""
    view = _VIEWS.get(metric)
    return None if view is None else (view.coordinate, *(curve.array for curve in view.columns))


def generic(result: Result) -> View:
    """Return a view of any result: all its one-dimensional arrays along the dimension `step`."""
    names = [
        name
        for name, array in result.arrays.items()
        if array.dims == ("step",) and name != "step" and array.data.dtype.kind in "fiub"
    ]
    curves = tuple(Curve(name, name.replace("_", " ")) for name in names)
    return View("step", curves, tuple(Panel(curve.title, (curve,)) for curve in curves), lambda _: ())


def series(result: Result, name: str) -> NDArray[np.float64]:
    """Return a one-dimensional array of the result as float64."""
    return np.asarray(result.arrays[name].data, dtype=np.float64)


def drawn(result: Result, panel: Panel, curve: Curve) -> NDArray[np.float64]:
    """Return a curve's values as its panel can draw them: on a log axis, without those that are not positive.

    The approximation errors are exactly 0 at the start.
    """
    values = series(result, curve.array)
    return np.where(values > 0, values, np.nan) if panel.log else values


def thin(length: int, rows: int) -> NDArray[np.int64]:
    """Return at most `rows` evenly spaced row numbers of `length`, the first and the last among them."""
    return np.unique(np.linspace(0, max(length - 1, 0), min(rows, length)).round().astype(np.int64))


def layers(result: Result, count: int) -> list[str]:
    """Return the names of the layers of a result, by number where it does not have `count` names."""
    names = result.provenance.get("layers")
    if isinstance(names, list | tuple) and len(names) == count:
        return [clean(name) for name in names]
    return [f"layer {index}" for index in range(count)]


def _present(result: Result, curves: tuple[Curve, ...]) -> tuple[Curve, ...]:
    found = (curve for curve in curves if curve.array in result.arrays)
    return tuple(curve for curve in found if not curve.optional or result.arrays[curve.array].data.any())


def _read_telescoping(result: Result) -> tuple[str, ...]:
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


def _number(result: Result, name: str) -> float:
    value = result.scalars.get(name)
    return float(value) if isinstance(value, int | float) else math.nan


def _last(result: Result, name: str) -> float:
    if name not in result.arrays:
        return math.nan
    values = series(result, name)
    return float(values[-1]) if values.size else math.nan


def _read_effective(result: Result) -> tuple[str, ...]:
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


def _with_error(result: Result, name: str) -> str:
    """Return a scalar with its standard error, if it has one."""
    error = _number(result, f"{name}_se")
    value = significant(_number(result, name), 4)
    return f"{value} ± {significant(error, 2)}" if error > 0 else value


def _read_kernel(result: Result) -> tuple[str, ...]:
    """Return what the kernel's series mean, in words."""
    moved = _number(result, "movement_train")
    if not math.isfinite(moved):
        return ("The kernel at the start is zero, so it has no movement.",)
    what = "preconditioned kernel" if result.scalars.get("preconditioned") else "tangent kernel"
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


def _both(name: str, title: str = "") -> tuple[Curve, ...]:
    """Return a series of the training and of the held-out examples."""
    before = f"{title} " if title else ""
    return Curve(f"{name}_train", f"{before}training"), Curve(f"{name}_test", f"{before}held-out")


# The terms of an update, and what they are called on the screen.
_TERMS = {
    "gradient": "gradient",
    "clipping": "clipping",
    "preconditioning": "precond.",
    "memory": "memory",
    "coupled_decay": "decay (coupled)",
    "decoupled_decay": "decay",
    "adapter_residual": "adapter res.",
}
_NAMED = 3


def _read_updates(result: Result) -> tuple[str, ...]:
    """Return what the optimizer's terms and the influences mean, in words."""
    shares = {term: _number(result, f"share_{term}") for term in _TERMS}
    large = [(term, share) for term, share in shares.items() if abs(share) >= 0.001]
    if not large:
        return ("To first order the predictions did not change.",)
    told = ", ".join(f"{term.replace('_', ' ')} {percent(share)}" for term, share in large)
    steps = f"steps {result.scalars.get('from_step')} to {result.scalars.get('steps')}"
    lines = [f"Of the first-order change of the predictions over {steps}: {told}."]
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


_VIEWS = {
    "updates": View(
        coordinate="step",
        columns=(
            *(Curve(f"share_{term}", title, share=True, optional=True) for term, title in _TERMS.items()),
            Curve("first_order", "‖J Δθ‖"),
            Curve("residual_relative", "residual", share=True),
        ),
        panels=(
            Panel(
                "share of the first-order change",
                tuple(Curve(f"share_{term}", title, optional=True) for term, title in _TERMS.items()),
            ),
            Panel(
                "what each term does to the probe",
                tuple(Curve(f"effect_{term}", title, optional=True) for term, title in _TERMS.items()),
                log=True,
            ),
            Panel("‖Δf − J Δθ‖ / ‖Δf‖", (Curve("residual_relative", "residual"),)),
        ),
        reading=_read_updates,
    ),
    "kernel": View(
        coordinate="step",
        columns=(
            Curve("trace_train", "trace"),
            Curve("effective_rank_train", "eff. rank"),
            Curve("alignment_train", "align"),
            Curve("alignment_test", "align held-out"),
            Curve("movement_train", "movement"),
            Curve("velocity_train", "velocity"),
            Curve("weight_norm_max_train", "max weights"),
            Curve("weight_norm_max_test", "max w. held-out"),
        ),
        panels=(
            Panel("movement of the kernel, relative to its start", _both("movement")),
            Panel(
                "alignment with the labels", (*_both("alignment"), *_both("alignment_centered", "centred"))
            ),
            Panel("trace", _both("trace"), log=True),
            Panel("effective rank", _both("effective_rank")),
            Panel("velocity: kernel distance a step", _both("velocity"), log=True),
            Panel(
                "weights over the training examples",
                (*_both("weight_norm_max", "largest"), *_both("weight_norm_mean", "mean")),
                log=True,
            ),
        ),
        reading=_read_kernel,
    ),
    "effective-params": View(
        coordinate="step",
        columns=(
            Curve("p_train", "p train"),
            Curve("p_train_se", "± train"),
            Curve("p_test", "p held-out"),
            Curve("p_test_se", "± held-out"),
            Curve("gap", "gap"),
            Curve("gap_se", "± gap"),
            Curve("discrepancy_telescoped", "off the network"),
        ),
        panels=(
            Panel(
                "effective parameters",
                (Curve("p_train", "training"), Curve("p_test", "held-out")),
            ),
            Panel(
                "effective parameters of probabilities",
                (
                    Curve("p_train_probability", "training"),
                    Curve("p_test_probability", "held-out"),
                ),
            ),
            Panel(
                "distance of the network from the telescoping model",
                (
                    Curve("discrepancy_telescoped", "telescoped"),
                    Curve("discrepancy_anchored", "anchored"),
                ),
                log=True,
            ),
        ),
        reading=_read_effective,
    ),
    "telescoping": View(
        coordinate="step",
        columns=(
            Curve("error_telescoped", "|error| telescoped"),
            Curve("error_lazy", "|error| lazy"),
            Curve("residual_relative", "residual", share=True),
            Curve("agreement_telescoped", "agree tel.", share=True),
            Curve("agreement_lazy", "agree lazy", share=True),
            Curve("accuracy_actual", "acc. actual", share=True),
            Curve("accuracy_telescoped", "acc. tel.", share=True),
            Curve("accuracy_lazy", "acc. lazy", share=True),
        ),
        panels=(
            Panel(
                "mean |error| over the probe",
                (Curve("error_telescoped", "telescoped"), Curve("error_lazy", "lazy")),
                log=True,
            ),
            Panel(
                "accuracy",
                (
                    Curve("accuracy_actual", "actual", share=True),
                    Curve("accuracy_telescoped", "telescoped", share=True),
                    Curve("accuracy_lazy", "lazy", share=True),
                ),
            ),
            Panel(
                "agreement with the network's class",
                (
                    Curve("agreement_telescoped", "telescoped", share=True),
                    Curve("agreement_lazy", "lazy", share=True),
                ),
            ),
        ),
        reading=_read_telescoping,
    ),
}
