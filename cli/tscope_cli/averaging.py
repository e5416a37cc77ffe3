"""The views of weight averaging: along α, by the number of models, or along a run; and their words."""

from __future__ import annotations

import math

import numpy as np
from tscope_format import Result, clean

from tscope_cli.numerals import percent, significant
from tscope_cli.readings import layers
from tscope_cli.view import Curve, Panel, View

_FAMILIES = {"run": "run", "tail": "tail", "swa": "SWA", "ema": "EMA", "lawa": "LAWA"}
_SETS = {"test": "held-out", "train": "training"}
_NAMED = 3


def view(result: Result) -> View:
    """Return the view of the form that a result has."""
    return _ALONG if result.scalars.get("form") == "along a run" else _between(result)


def read_between(result: Result) -> tuple[str, ...]:
    """Return what an average of models means, in words."""
    lines = []
    for name, title in _SETS.items():
        average, ensemble, barrier = (
            _number(result, f"{kind}_{name}") for kind in ("loss_average", "loss_ensemble", "barrier_loss")
        )
        if math.isnan(average):
            continue
        where = _number(result, f"barrier_loss_{name}_alpha")
        at = f" at α = {where:.3f}" if barrier > 0 and not math.isnan(where) else ""
        lines.append(
            f"On {title} examples the average in equal parts has the loss {significant(average)}, the "
            f"ensemble {significant(ensemble)}; the barrier is {significant(barrier, 3)}{at}."
        )
    explained = _number(result, "explained_test", "explained_train")
    if not math.isnan(explained):
        term = _number(result, "identity_error_test", "identity_error_train")
        lines.append(
            f"Curvature at the fork, to second order, predicts {percent(explained)} of average − ensemble "
            f"(of its square, in equal parts); with all orders the identity holds to {significant(term, 2)}."
        )
    held = next((name for name in _SETS if f"layer_rise_{name}" in result.arrays), None)
    if held is not None:
        values = np.asarray(result.arrays[f"layer_rise_{held}"].data, dtype=np.float64).mean(0)
        names = layers(result, values.size)
        order = np.argsort(-values, kind="stable")[:_NAMED]
        told = ", ".join(f"{names[i]} ({values[i]:+.3g})" for i in order)
        lines.append(
            f"With a single layer averaged half-way the loss on {_SETS[held]} examples changes most for "
            f"{told}."
        )
    return tuple(lines)


def read_along(result: Result) -> tuple[str, ...]:
    """Return which average along a run is best, in words."""
    name = "test" if "loss_run_test" in result.scalars else "train"
    run = _number(result, f"loss_run_{name}")
    told = [
        f"{title} {significant(_number(result, f'loss_{family}_{name}'))}"
        for family, title in _FAMILIES.items()
        if family != "run" and f"loss_{family}_{name}" in result.scalars
    ]
    return (
        f"Chosen on {clean(result.scalars.get('chosen_on'))}: {clean(result.scalars.get('best'))}. The loss "
        f"on {_SETS[name]} examples is {significant(run)} at the last step, of averages {', '.join(told)}.",
    )


def _between(result: Result) -> View:
    """Return the view of averages between models, along α or by their number."""
    two = "alpha" in result.arrays
    shown = "test" if "loss_average_test" in result.arrays else "train"
    return View(
        coordinate="alpha" if two else "models",
        columns=(
            Curve("loss_average_train", "train avg"),
            Curve("loss_ensemble_train", "ensemble"),
            Curve("loss_average_test", "held-out avg"),
            Curve("loss_ensemble_test", "ensemble"),
            Curve(f"loss_line_{shown}", "line"),
            Curve(f"accuracy_average_{shown}", "acc. avg", share=True),
            Curve(f"accuracy_ensemble_{shown}", "acc. ens.", share=True),
            Curve(f"difference_{shown}", "avg − ens."),
            Curve(f"explained_{shown}", "explained", share=True),
        ),
        panels=(
            *(
                Panel(
                    f"loss on {title} examples",
                    (
                        Curve(f"loss_average_{name}", "average"),
                        Curve(f"loss_ensemble_{name}", "ensemble"),
                        Curve(f"loss_line_{name}", "line between the models"),
                    ),
                )
                for name, title in _SETS.items()
            ),
            *(
                Panel(
                    f"accuracy on {title} examples",
                    (
                        Curve(f"accuracy_average_{name}", "average"),
                        Curve(f"accuracy_ensemble_{name}", "ensemble"),
                    ),
                )
                for name, title in _SETS.items()
            ),
            *(
                Panel(
                    f"outputs on {title} examples, root mean square",
                    (
                        Curve(f"difference_{name}", "average − ensemble"),
                        Curve(f"predicted_{name}", "second order"),
                        Curve(f"curvature_members_{name}", "curvature terms of the models"),
                    ),
                )
                for name, title in _SETS.items()
            ),
        ),
        reading=read_between,
        abscissa="α" if two else "models",
        axis="α, the first model's weight" if two else "models in the average",
        rows=16,
    )


def _number(result: Result, *names: str) -> float:
    """Return the first of these scalars that there is, or NaN."""
    for name in names:
        value = result.scalars.get(name)
        if isinstance(value, int | float):
            return float(value)
    return math.nan


_ALONG = View(
    coordinate="step",
    columns=(
        *(Curve(f"loss_{family}_test", title) for family, title in _FAMILIES.items()),
        *(Curve(f"loss_{family}_train", f"{title} train") for family, title in _FAMILIES.items()),
    ),
    panels=(
        *(
            Panel(
                f"loss on {title} examples",
                tuple(Curve(f"loss_{family}_{name}", label) for family, label in _FAMILIES.items()),
                log=True,
            )
            for name, title in _SETS.items()
        ),
        *(
            Panel(
                f"accuracy on {title} examples",
                tuple(Curve(f"accuracy_{family}_{name}", label) for family, label in _FAMILIES.items()),
            )
            for name, title in _SETS.items()
        ),
    ),
    reading=read_along,
    rows=16,
)
