"""A network against an ensemble of trees, from the newest saved result of the metric `boosting`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tscope_format.errors import clean

from tscope_tui.plot import compact

if TYPE_CHECKING:
    from tscope_format import Result

    Floats = NDArray[np.float64]

METRIC = "boosting"
MODELS = ("net", "trees")
SERIES = ("norm_net", "norm_trees", "error_net", "error_trees", "relative_increase")


@dataclass(frozen=True, eq=False)
class Boosting:
    """The series of a result over the share of irregular examples.

    Attributes:
        share: Of irregular examples in the drawn sets (share,).
        series: By the array's name, each (share,): means over the draws.
        spread: Their standard deviations over the draws; not of those that have none.
        facts: What was compared, as label and text; cleaned.
        notes: What a reader has to know; cleaned.
        options: The options of the analysis.
    """

    share: Floats
    series: Mapping[str, Floats]
    spread: Mapping[str, Floats]
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)


def from_result(result: Result) -> Boosting:
    """Return what the view shows of a saved result.

    Raises:
        KeyError: It lacks one of the arrays of the metric.
    """

    def floats(name: str) -> Floats:
        return np.asarray(result.arrays[name].data, dtype=np.float64)

    options = result.provenance.get("options")
    series = {name: floats(name) for name in SERIES}
    # The spread of the relative increase is of the draws' own ratios, not of the mean that is shown.
    known = [name for name in SERIES[:-1] if f"{name}_sd" in result.arrays]
    return Boosting(
        floats("share"),
        series,
        {name: floats(f"{name}_sd") for name in known},
        _facts(result, series),
        tuple(clean(note) for note in result.notes),
        options if isinstance(options, Mapping) else {},
    )


def _facts(result: Result, series: Mapping[str, Floats]) -> tuple[tuple[str, str], ...]:
    """Return what was compared, in words."""
    scalars = result.scalars
    against = result.provenance.get("against")
    trees = against if isinstance(against, Mapping) else {}

    def ends(name: str) -> str:
        values = series[name]
        finite = values.size and math.isfinite(values[0]) and math.isfinite(values[-1])
        return f"{compact(float(values[0]), 3)} → {compact(float(values[-1]), 3)}" if finite else ""

    increase = series["relative_increase"]
    rise = (
        f"{increase[0] * 100:+.1f}% → {increase[-1] * 100:+.1f}%"
        if increase.size and np.isfinite(increase[[0, -1]]).all()
        else ""
    )
    lines = [
        ("trees", f"{scalars.get('trees')} of {trees.get('class', '?')}, {trees.get('path', '?')}"),
        ("norm", f"net {ends('norm_net')}, trees {ends('norm_trees')}"),
        ("error", f"net {ends('error_net')}, trees {ends('error_trees')}"),
        ("increase", rise),
        ("irregular", f"{scalars.get('examples_irregular')} by {scalars.get('irregularity')}"),
        (
            "examples",
            f"{scalars.get('examples_train')} trained, {scalars.get('examples_test')} test "
            f"({scalars.get('probe')})",
        ),
        ("draws", f"{scalars.get('draws')} of each share"),
    ]
    return tuple((clean(label), clean(text)) for label, text in lines if text)
