"""What each layer did along a run, from the newest saved result of the metric `layers`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from tscope_format.errors import clean

from tscope_tui.data.saved import floats, names_of
from tscope_tui.plot import compact

if TYPE_CHECKING:
    from tscope_format import Result, RootReader

    Floats = NDArray[np.float64]

METRIC = "layers"
# What the rows of a quantity are: modules with parameters, matrices of them, consecutive linear layers.
Kind = Literal["layer", "matrix", "pair"]
OF_TREES = ("it holds an ensemble of trees, which has no layers",)
SINGULAR = "singular_values"


@dataclass(frozen=True)
class _Shown:
    """How a quantity is shown: its label, what it is of, on which axis, and whether it is of intervals."""

    label: str
    kind: Kind
    log: bool = False
    interval: bool = False


# By the array's name, in the order of the keys. Those of an interval are zero at row 0 by definition.
_QUANTITIES = {
    "theta_norm": _Shown("‖θ‖", "layer", log=True),
    "movement": _Shown("moved", "layer"),
    "update_norm": _Shown("‖Δθ‖", "layer", log=True, interval=True),
    "gradient_norm": _Shown("‖g‖", "layer", log=True, interval=True),
    "contribution": _Shown("‖JΔθ‖", "layer", log=True, interval=True),
    "contribution_signed": _Shown("part of Δf", "layer", interval=True),
    "loss_contribution": _Shown("probe loss", "layer", interval=True),
    "batch_loss_contribution": _Shown("batch loss", "layer", interval=True),
    "effective_rank": _Shown("eff. rank", "matrix"),
    "stable_rank": _Shown("stable rank", "matrix"),
    SINGULAR: _Shown("σ₁", "matrix", log=True),
    "balance": _Shown("‖Q‖", "pair", log=True),
    "balance_drift": _Shown("‖Q−Q₀‖", "pair", log=True, interval=True),
    "balance_off": _Shown("off identity", "pair", log=True, interval=True),
    "balance_flow": _Shown("flow", "pair", log=True),
}
# Those whose layers add up, with the series of what is left of the whole.
_SUMS = {
    "contribution_signed": "",
    "loss_contribution": "loss_residual",
    "batch_loss_contribution": "",
}


@dataclass(frozen=True, eq=False)
class Quantity:
    """One number of each layer, matrix or pair at each row.

    Attributes:
        name: The name of its array.
        label: What it is called, in a few characters.
        kind: What its rows are.
        log: Whether it is shown on a logarithmic axis unless the reader chose otherwise.
        start: The first step at which it says something.
        values: (step, row).
    """

    name: str
    label: str
    kind: Kind
    log: bool
    start: float
    values: Floats


@dataclass(frozen=True, eq=False)
class Layers:
    """The series of a result.

    Attributes:
        step: The steps of the rows (step,).
        quantities: Those that the result has, in their order.
        rows: The names of layers, matrices and pairs; cleaned.
        whole: A quantity of the whole model (step,), by its name; not of all.
        rest: What the layers' parts leave of the whole (step,), by the quantity's name.
        singular: The largest singular values (step, matrix, value); None where there are none.
        facts: How it was computed, as label and text; cleaned.
        notes: What a reader has to know; cleaned.
        options: The options of the analysis.
    """

    step: Floats
    quantities: tuple[Quantity, ...]
    rows: Mapping[Kind, tuple[str, ...]]
    whole: Mapping[str, Floats] = field(default_factory=dict)
    rest: Mapping[str, Floats] = field(default_factory=dict)
    singular: Floats | None = None
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)

    def row(self, step: float) -> int:
        """Return the last row at or before a step, the first when none is."""
        return max(0, int(self.step.searchsorted(step, side="right")) - 1)

    def named(self, name: str) -> Quantity | None:
        """Return a quantity by the name of its array; None where the result does not have it."""
        return next((one for one in self.quantities if one.name == name), None)

    def of(self, kind: Kind) -> list[Quantity]:
        """Return the quantities of one kind, in their order."""
        return [one for one in self.quantities if one.kind == kind]

    def matrix_of(self, layer: int) -> int | None:
        """Return the first matrix that a layer holds; None where it has none."""
        name = self.rows["layer"][layer]
        own = (i for i, one in enumerate(self.rows["matrix"]) if name in (one.rpartition(".")[0], one))
        return next(own, None)


def from_result(result: Result) -> Layers:
    """Return what the view shows of a saved result.

    Raises:
        KeyError: It lacks one of the arrays that every result has.
    """
    step = floats(result, "step")
    result.arrays["theta_norm"]  # without it this is no result of the metric
    found: list[Quantity] = []
    for name, shown in _QUANTITIES.items():
        if name in result.arrays:
            values = floats(result, name)
            values = values[:, :, 0] if name == SINGULAR else values
            start = float(step[1]) if shown.interval and step.size > 1 else float(step[0])
            found.append(Quantity(name, shown.label, shown.kind, shown.log, start, values))
    whole = {
        one.name: floats(result, f"{one.name}_all") for one in found if f"{one.name}_all" in result.arrays
    }
    whole |= {one.name: one.values.sum(1) for one in found if one.name in _SUMS}
    rest = {name: floats(result, left) for name, left in _SUMS.items() if left in result.arrays}
    if "contribution_signed" in whole:
        rest["contribution_signed"] = 1 - whole["contribution_signed"]
    widths = {one.kind: one.values.shape[1] for one in found}
    options = result.provenance.get("options")
    return Layers(
        step,
        tuple(found),
        {
            "layer": names_of(result, "layers", widths.get("layer", 0)),
            "matrix": names_of(result, "matrices", widths.get("matrix", 0)),
            "pair": names_of(result, "pairs", widths.get("pair", 0)),
        },
        whole,
        rest,
        floats(result, SINGULAR) if SINGULAR in result.arrays else None,
        _facts(result, step),
        tuple(clean(note) for note in result.notes),
        options if isinstance(options, Mapping) else {},
    )


def _facts(result: Result, step: Floats) -> tuple[tuple[str, str], ...]:
    """Return how a result was computed, in words."""
    scalars, provenance = result.scalars, result.provenance
    every, check = scalars.get("every"), scalars.get("balance_check")
    together = f", {every} steps each" if isinstance(every, int) and every > 1 else ""
    checked = (
        f"off the identity by {compact(check, 2)} of its size at most"
        if isinstance(check, int | float) and math.isfinite(check)
        else ""
    )
    lines = [
        ("rows", f"{step.size:,}{together}"),
        ("probe set", str(scalars.get("probe") or "")),
        ("loss", str(provenance.get("loss") or "")),
        ("optimizer", str(scalars.get("optimizer") or "")),
        ("balance", checked),
    ]
    return tuple((clean(label), clean(text)) for label, text in lines if text)


def short(names: Sequence[str]) -> list[str]:
    """Return names without the modules that all of them are in, for charts."""
    parts = [name.split(".") for name in names]
    common = 0
    while len(parts) > 1 and all(len(one) > common + 1 and one[common] == parts[0][common] for one in parts):
        common += 1
    return [".".join(one[common:]) for one in parts]


def lacks_of(root: RootReader) -> tuple[str, ...]:
    """Return what a root lacks for the analysis, each with what would record it."""
    if root.attributes.get("kind") == "trees":
        return OF_TREES
    if root.attributes.get("updates") == "none":
        return ("it lacks the parameters at every row: record without --updates none",)
    return ()
