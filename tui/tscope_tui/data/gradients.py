"""How far gradients of the predictions move, from the saved results of the metric `gradients`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tscope_format.errors import clean

from tscope_tui.data.averaging import SETS, Set, number
from tscope_tui.data.saved import floats, names_of

if TYPE_CHECKING:
    from tscope_format import Result, ResultInfo

    Floats = NDArray[np.float64]

METRIC = "gradients"
QUANTITIES = ("change", "cosine")


@dataclass(frozen=True, eq=False)
class Gradients:
    """Changes of gradients from the steps t' to later ones.

    Attributes:
        id: The result's.
        path: The trace that it is saved in.
        since: The steps t' (since,).
        step: The steps that were examined (step,).
        whole: `change_train`, `cosine_test`, …: of all layers together, each (since, step); NaN before t'.
        layers: Names of the layers; cleaned.
        by_layer: The same of each layer (since, step, layer).
        stabilised: The gradient-stabilisation step of each layer (layer,) by the set; NaN without one.
        stabilised_whole: The same of all layers together.
        stable: The share that counts as stable.
        stopped: Where the run or its gradients stopped being finite; None where they did not.
        notes: What a reader has to know; cleaned.
        options: The options of the analysis.
    """

    id: str
    path: Path
    since: Floats
    step: Floats
    whole: Mapping[str, Floats]
    layers: tuple[str, ...]
    by_layer: Mapping[str, Floats]
    stabilised: Mapping[Set, Floats]
    stabilised_whole: Mapping[Set, float]
    stable: float
    stopped: int | None = None
    notes: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def sets(self) -> tuple[Set, ...]:
        """The examples that they are measured on."""
        return tuple(name for name in SETS if f"change_{name}" in self.whole)

    def place(self, step: float | None) -> int:
        """Return the t' at or before a step, the first where none is, or none is asked for."""
        if step is None:
            return 0
        return max(0, int(self.since.searchsorted(step, side="right")) - 1)

    def to_end(self, quantity: str, name: Set) -> Floats:
        """Return a quantity of all layers from each t' to the last step (since,); NaN at that step itself."""
        values = self.whole[f"{quantity}_{name}"][:, -1]
        return np.where(self.since < self.step[-1], values, np.nan)


def from_result(path: Path, info: ResultInfo, result: Result) -> Gradients:
    """Return the changes of a saved result.

    Raises:
        KeyError: It lacks one of the arrays of the metric.
        ValueError: It has no changes.
    """
    since, step = floats(result, "since"), floats(result, "step")
    sets: list[Set] = [name for name in SETS if f"change_{name}" in result.arrays]
    names = [f"{quantity}_{name}" for quantity in QUANTITIES for name in sets]
    if not since.size or not names:
        raise ValueError("it has no changes")
    split = {name: floats(result, name.replace("_", "_layer_")) for name in names}
    stopped = result.scalars.get("stopped")
    options = result.provenance.get("options")
    return Gradients(
        info.id,
        path,
        since,
        step,
        {name: floats(result, name) for name in names},
        names_of(result, "layers", split[names[0]].shape[2]),
        split,
        {name: floats(result, f"stabilised_layer_{name}") for name in sets},
        {name: number(result.scalars.get(f"stabilised_{name}")) for name in sets},
        number(result.scalars.get("stable")),
        int(stopped) if isinstance(stopped, int | float) else None,
        tuple(clean(note) for note in result.notes),
        options if isinstance(options, Mapping) else {},
    )
