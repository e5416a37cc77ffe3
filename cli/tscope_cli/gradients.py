"""How the metric `gradients` is shown: what changed from each t' to the end of the run."""

from __future__ import annotations

import math

from tscope_format import Result

from tscope_cli.numerals import percent, significant
from tscope_cli.view import Curve, Panel, View

_SETS = (("train", "training"), ("test", "held-out"))


def reading(result: Result) -> tuple[str, ...]:
    """Return what the changes mean, in words."""
    if "since" not in result.arrays or not result.arrays["since"].data.size:
        return ()
    start, end = int(result.arrays["since"].data[0]), result.scalars.get("steps")
    lines = []
    for name, title in _SETS:
        change, cosine = (_scalar(result, f"{kind}_{name}") for kind in ("change", "cosine"))
        if not math.isfinite(change):
            continue
        step = result.scalars.get(f"stabilised_{name}")
        share = percent(_scalar(result, "stable"))
        lines.append(
            f"From step {start} to {end} the gradients of {title} examples changed by "
            f"{significant(change, 3)} times their squared size, to a cosine of {significant(cosine, 3)}; "
            + (
                f"from none of the steps compared did they stay within {share}."
                if step is None
                else f"from step {step} on they stay within {share}."
            )
        )
    return tuple(lines)


def _scalar(result: Result, name: str) -> float:
    value = result.scalars.get(name)
    return float(value) if isinstance(value, int | float) else math.nan


def _both(name: str) -> tuple[Curve, ...]:
    return tuple(Curve(f"{name}_{of}", title) for of, title in _SETS)


VIEW = View(
    coordinate="since",
    columns=(
        Curve("change_end_train", "change to the end"),
        Curve("change_end_test", "held-out"),
        Curve("change_max_train", "largest change"),
        Curve("change_max_test", "held-out"),
        Curve("cosine_end_train", "cosine to the end"),
        Curve("cosine_end_test", "held-out"),
    ),
    panels=(
        Panel("change of gradients from t' to the last step", _both("change_end"), log=True),
        Panel("cosine of gradients at t' and at the last step", _both("cosine_end")),
        Panel("change by layer, training examples", each="change_end_layer_train", log=True),
        Panel("change by layer, held-out examples", each="change_end_layer_test", log=True),
        Panel("cosine by layer, training examples", each="cosine_end_layer_train"),
        Panel("cosine by layer, held-out examples", each="cosine_end_layer_test"),
    ),
    reading=reading,
    abscissa="t'",
    axis="step t' that the last step is compared with",
)
