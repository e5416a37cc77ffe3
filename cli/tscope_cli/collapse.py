"""How the metric `neural-collapse` is shown."""

from __future__ import annotations

import math

from tscope_format import Result, clean

from tscope_cli.numerals import percent, significant
from tscope_cli.view import Curve, Panel, View

_SETS = (("train", "training"), ("test", "held-out"))


def reading(result: Result) -> tuple[str, ...]:
    """Return what the four numbers mean, in words."""
    lines = []
    layer = clean(result.scalars.get("layer"))
    for name, title in _SETS:
        nc1, angle, nc3, nc4 = (
            _scalar(result, f"{kind}_{name}") for kind in ("nc1", "nc2_angle", "nc3", "nc4")
        )
        if not math.isfinite(nc1):
            continue
        lines.append(
            f"At step {result.scalars.get('steps')}, features that {layer} reads of {title} examples: NC1, "
            f"their spread within classes against that between, is {significant(nc1, 3)}; cosines of class "
            f"means are {significant(angle, 3)} away from a simplex's (NC2), the means {significant(nc3, 3)} "
            "from the classifier, of at most 2 (NC3); the nearest mean disagrees with the network on "
            f"{percent(nc4)} (NC4)."
        )
    return tuple(lines)


def _scalar(result: Result, name: str) -> float:
    value = result.scalars.get(name)
    return float(value) if isinstance(value, int | float) else math.nan


def _both(name: str, title: str = "") -> tuple[Curve, ...]:
    before = f"{title}, " if title else ""
    return tuple(Curve(f"{name}_{of}", f"{before}{what}") for of, what in _SETS)


VIEW = View(
    coordinate="step",
    columns=(
        Curve("nc1_train", "NC1"),
        Curve("nc1_test", "held-out"),
        Curve("nc2_norm_train", "NC2 norms"),
        Curve("nc2_angle_train", "NC2 angles"),
        Curve("nc2_angle_test", "held-out"),
        Curve("nc3_train", "NC3"),
        Curve("nc3_test", "held-out"),
        Curve("nc4_train", "NC4", share=True),
        Curve("nc4_test", "held-out", share=True),
        Curve("accuracy_train", "accuracy", share=True),
        Curve("accuracy_test", "held-out", share=True),
    ),
    panels=(
        Panel("NC1: spread within classes, relative to that between", _both("nc1"), log=True),
        Panel("NC2: norms of class means, sd/mean", _both("nc2_norm")),
        Panel(
            "NC2: cosines of class means",
            (*_both("nc2_angle", "off −1/(C−1)"), *_both("nc2_cosine_sd", "sd")),
        ),
        Panel("NC3: class means against the classifier", _both("nc3")),
        Panel("NC4: nearest mean disagrees with the network", _both("nc4")),
        Panel("accuracy", (*_both("accuracy", "network"), *_both("accuracy_nearest", "nearest mean"))),
    ),
    reading=reading,
)
