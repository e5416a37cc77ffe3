"""Neural collapse of a classifier, from the newest saved result of the metric `neural-collapse`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tscope_format.errors import clean

from tscope_tui.data.saved import floats

if TYPE_CHECKING:
    from tscope_format import Result

    Floats = NDArray[np.float64]

METRIC = "neural-collapse"
PARTS = ("train", "test")
# By the array's name without its set: what it is called.
LABELS = {
    "nc1": "NC1",
    "nc2_norm": "norm",
    "nc2_cosine_sd": "cos sd",
    "nc2_angle": "angle",
    "nc3": "NC3",
    "nc4": "NC4",
    "accuracy": "accuracy",
    "accuracy_nearest": "nearest mean",
    "within": "within",
    "between": "between",
}


@dataclass(frozen=True, eq=False)
class Collapse:
    """The series of a result.

    Attributes:
        step: The steps of the rows (step,).
        series: By the array's name, each (step,).
        facts: What was measured, as label and text; cleaned.
        notes: What a reader has to know; cleaned.
        options: The options of the analysis.
    """

    step: Floats
    series: Mapping[str, Floats]
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)

    def row(self, step: float) -> int:
        """Return the last row at or before a step, the first when none is."""
        return max(0, int(self.step.searchsorted(step, side="right")) - 1)


def from_result(result: Result) -> Collapse:
    """Return what the view shows of a saved result.

    Raises:
        KeyError: It lacks one of the arrays that every result has.
    """
    result.arrays["nc1_train"]  # without it this is no result of the metric
    known = [f"{name}_{part}" for name in LABELS for part in PARTS]
    options = result.provenance.get("options")
    scalars = result.scalars
    held = f", {scalars.get('examples_test')} held out" if scalars.get("examples_test") else ""
    probe = f" ({scalars.get('probe')})" if held and scalars.get("probe") else ""
    lines = (
        ("layer", f"{scalars.get('layer')}, {scalars.get('features')} features"),
        ("classes", str(scalars.get("classes"))),
        ("examples", f"{scalars.get('examples_train')} trained{held}{probe}"),
    )
    return Collapse(
        floats(result, "step"),
        {name: floats(result, name) for name in known if name in result.arrays},
        tuple((label, clean(text)) for label, text in lines),
        tuple(clean(note) for note in result.notes),
        options if isinstance(options, Mapping) else {},
    )
