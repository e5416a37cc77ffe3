"""Which arrays of a metric's result make its table, chart and figure, and the words that read them.

Array names are the interface between analyses and programs (design §7), so a view is data: titles for names.
A metric without a view of its own is shown by `generic`: every series along its steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from tscope_format import Result

from tscope_cli import averaging, collapse, events, gradients, regime, sketched
from tscope_cli.layered import entries, read_layers
from tscope_cli.readings import (
    TERMS,
    read_boosting,
    read_effective,
    read_kernel,
    read_telescoping,
    read_updates,
    series,
)
from tscope_cli.view import Curve, Panel, View

_ENTRIES = 6  # of an array with a second dimension, in one pair of axes


def view_of(result: Result) -> View:
    """Return the view of a result's metric, without the arrays that this result does not have."""
    form = _FORMS[result.metric](result) if result.metric in _FORMS else None
    view = form or _VIEWS.get(result.metric) or generic(result)
    panels = (
        Panel(p.title, (*_present(result, p.curves), *_entries(result, p.each)), p.log) for p in view.panels
    )
    return replace(
        view,
        columns=_present(result, view.columns),
        panels=tuple(panel for panel in panels if panel.curves),
    )


def needed(metric: str) -> tuple[str, ...] | None:
    """Return the arrays that the table of a metric's results needs; None, all of them, without a view."""
    view = _VIEWS.get(metric)
    if view is None:
        return None
    other = sketched.VIEW.columns if metric == "kernel" else ()
    return (view.coordinate, *dict.fromkeys(curve.array for curve in (*view.columns, *other)))


def generic(result: Result) -> View:
    """Return a view of any result: all its one-dimensional arrays along the dimension `step`."""
    names = [
        name
        for name, array in result.arrays.items()
        if array.dims == ("step",) and name != "step" and array.data.dtype.kind in "fiub"
    ]
    curves = tuple(Curve(name, name.replace("_", " ")) for name in names)
    return View("step", curves, tuple(Panel(curve.title, (curve,)) for curve in curves), lambda _: ())


def drawn(result: Result, panel: Panel, curve: Curve) -> NDArray[np.float64]:
    """Return a curve's values as its panel can draw them: on a log axis, without those that are not positive.

    The approximation errors are exactly 0 at the start.
    """
    values = series(result, curve.array)
    values = values if curve.column is None else values[:, curve.column]
    return np.where(values > 0, values, np.nan) if panel.log else values


def thin(length: int, rows: int) -> NDArray[np.int64]:
    """Return at most `rows` evenly spaced row numbers of `length`, the first and the last among them."""
    return np.unique(np.linspace(0, max(length - 1, 0), min(rows, length)).round().astype(np.int64))


def _present(result: Result, curves: tuple[Curve, ...]) -> tuple[Curve, ...]:
    found = (curve for curve in curves if curve.array in result.arrays)
    return tuple(curve for curve in found if not curve.optional or result.arrays[curve.array].data.any())


def _entries(result: Result, array: str) -> tuple[Curve, ...]:
    """Return a curve for each of the largest entries of an array (step, entry), in their order."""
    if array not in result.arrays:
        return ()
    found = result.arrays[array]
    names = entries(result, found.dims[1], found.data.shape[1])
    size = np.abs(np.nan_to_num(np.asarray(found.data, dtype=np.float64))).max(0, initial=0.0)
    kept = np.sort(np.argsort(-size, kind="stable")[:_ENTRIES])
    return tuple(Curve(array, names[place], column=int(place)) for place in kept)


def _both(name: str, title: str = "") -> tuple[Curve, ...]:
    """Return a series of the training and of the held-out examples."""
    before = f"{title} " if title else ""
    return Curve(f"{name}_train", f"{before}training"), Curve(f"{name}_test", f"{before}held-out")


_VIEWS = {
    "events": events.VIEW,
    "gradients": gradients.VIEW,
    "neural-collapse": collapse.VIEW,
    "layers": View(
        coordinate="step",
        columns=(
            Curve("theta_norm_all", "‖θ‖"),
            Curve("update_norm_all", "‖Δθ‖"),
            Curve("gradient_norm_all", "‖g‖"),
            Curve("movement_all", "movement"),
            Curve("residual_relative", "residual", share=True),
            Curve("loss_change", "loss change"),
            Curve("loss_residual", "not first order"),
        ),
        panels=(
            Panel("movement from the start, ‖θ − θ₀‖/‖θ₀‖", each="movement"),
            Panel("‖θ‖", each="theta_norm", log=True),
            Panel("‖Δθ‖", each="update_norm", log=True),
            Panel("gradient ‖g‖", each="gradient_norm", log=True),
            Panel("effective rank", each="effective_rank"),
            Panel("stable rank", each="stable_rank"),
            Panel("first-order change of the probe's loss", each="loss_contribution"),
            Panel("first-order change of the batches' losses", each="batch_loss_contribution"),
            Panel("balancedness ‖Q‖ of consecutive layers", each="balance"),
            Panel("drift of balancedness ‖Q − Q₀‖", each="balance_drift", log=True),
        ),
        reading=read_layers,
    ),
    "boosting": View(
        coordinate="share",
        columns=(
            Curve("norm_net", "weights, net"),
            Curve("norm_trees", "weights, trees"),
            Curve("error_net", "error, net"),
            Curve("error_trees", "error, trees"),
            Curve("relative_increase", "net over trees", share=True),
            Curve("relative_increase_sd", "± draws", share=True),
        ),
        panels=(
            Panel(
                "largest kernel weights, relative to those of training examples",
                (Curve("norm_net", "network"), Curve("norm_trees", "trees")),
            ),
            Panel(
                "relative increase of the network's error over the trees'",
                (Curve("relative_increase", "network over trees"),),
            ),
            Panel("squared error", (Curve("error_net", "network"), Curve("error_trees", "trees"))),
        ),
        reading=read_boosting,
        abscissa="irregular",
        axis="share of irregular test examples",
    ),
    "updates": View(
        coordinate="step",
        columns=(
            *(Curve(f"share_{term}", title, share=True, optional=True) for term, title in TERMS.items()),
            Curve("first_order", "‖J Δθ‖"),
            Curve("residual_relative", "residual", share=True),
        ),
        panels=(
            Panel(
                "share of the first-order change",
                tuple(Curve(f"share_{term}", title, optional=True) for term, title in TERMS.items()),
            ),
            Panel(
                "what each term does to the probe",
                tuple(Curve(f"effect_{term}", title, optional=True) for term, title in TERMS.items()),
                log=True,
            ),
            Panel("‖Δf − J Δθ‖ / ‖Δf‖", (Curve("residual_relative", "residual"),)),
        ),
        reading=read_updates,
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
        reading=read_kernel,
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
        reading=read_effective,
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
        reading=read_telescoping,
    ),
}

# Metrics whose results come in several forms choose among views.
_FORMS: dict[str, Callable[[Result], View | None]] = {
    "kernel": sketched.view,
    "regime": regime.view,
    "weight-averaging": averaging.view,
}
