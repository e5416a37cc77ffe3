"""Lazy or rich, and the modes of linear networks, from the newest saved result of the metric `regime`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tscope_format.errors import clean

from tscope_tui.data.kernel import lacks_of_exact
from tscope_tui.data.layers import OF_TREES
from tscope_tui.data.saved import floats
from tscope_tui.plot import compact

if TYPE_CHECKING:
    from tscope_format import Result, RootReader

    Floats = NDArray[np.float64]

METRIC = "regime"
_MODES = ("strength", "strength_closed", "strength_unbalanced", "index")
_LEARNING = ("target", "frequency", "half_step", "half_step_closed")


@dataclass(frozen=True, eq=False)
class Regime:
    """The series of a result.

    Attributes:
        step: The steps of the rows (step,).
        series: Movements, by the array's name, each (step,).
        modes: strength, strength_closed, strength_unbalanced and index of a linear network, each (step,
            mode); only those that the result has.
        learning: target, frequency, half_step and half_step_closed, each (mode,); likewise.
        facts: What was found, as label and text; cleaned.
        notes: What a reader has to know; cleaned.
        options: The options of the analysis.
    """

    step: Floats
    series: Mapping[str, Floats]
    modes: Mapping[str, Floats] = field(default_factory=dict)
    learning: Mapping[str, Floats] = field(default_factory=dict)
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many modes there are; none of a network that is not linear."""
        return self.modes["strength"].shape[1] if "strength" in self.modes else 0

    def row(self, step: float) -> int:
        """Return the last row at or before a step, the first when none is."""
        return max(0, int(self.step.searchsorted(step, side="right")) - 1)


def from_result(result: Result) -> Regime:
    """Return what the view shows of a saved result.

    Raises:
        KeyError: It lacks one of the arrays that every result has.
    """
    result.arrays["movement"]  # without it this is no result of the metric
    options = result.provenance.get("options")
    return Regime(
        floats(result, "step"),
        {
            name: floats(result, name)
            for name, array in result.arrays.items()
            if array.dims == ("step",) and name not in ("step", "time")
        },
        {name: floats(result, name) for name in _MODES if name in result.arrays},
        {name: floats(result, name) for name in _LEARNING if name in result.arrays},
        _facts(result),
        tuple(clean(note) for note in result.notes),
        options if isinstance(options, Mapping) else {},
    )


def _facts(result: Result) -> tuple[tuple[str, str], ...]:
    """Return what was found of the whole run, in words."""
    scalars = result.scalars

    def number(name: str, before: str, after: str = "") -> str:
        value = scalars.get(name)
        if not isinstance(value, int | float) or not math.isfinite(value):
            return ""
        return f"{before} {compact(value, 3)}{after}"

    chain = result.provenance.get("chain")
    lines = [
        ("linear net", " · ".join(map(str, chain)) if isinstance(chain, list | tuple) else ""),
        ("Λ/s", number("index", "of mode 0 at the start")),
        ("inputs", number("whiteness", "off whitened by") + number("mixing", ", mix modes by")),
        ("closed form", number("closed_off", "off by at most", " of s")),
        ("features", str(result.provenance.get("features") or "")),
    ]
    return tuple((clean(label), clean(text)) for label, text in lines if text)


def lacks_of(root: RootReader) -> tuple[str, ...]:
    """Return what a root lacks for this analysis, and for that of neural collapse, which needs the same."""
    kept = ", or take rows that it keeps (--at 0,last)"
    return OF_TREES if root.attributes.get("kind") == "trees" else lacks_of_exact(root, kept)
