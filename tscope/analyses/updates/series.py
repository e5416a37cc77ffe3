"""The series of the metric, reduced from the intervals as they come: the whole of them would be large."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tscope_format.results import Array

from tscope.analyses.updates.terms import LEARNED, TERMS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.analyses.updates.walk import Interval

    Values = NDArray[np.float64]


class Series:
    """Collects intervals.

    Args:
        layers: The names of the layers; one name for a model that is not taken apart.
        full: Keep every term of every interval.

    Attributes:
        steps: The last step of each interval.
        check: The largest |J·Δθ − sum of the terms|.
        learned: What gradients made of the predictions: the sum over the run (example, output).
        moved: The sum of its absolute values, which is what that is small or large against.
    """

    def __init__(self, layers: tuple[str, ...], *, full: bool) -> None:
        self.steps: list[int] = []
        self.check = 0.0
        self._layers = layers
        self._full = full
        self._rows: dict[str, list[Values]] = {}
        self._totals: dict[str, Values] = {}
        self._squares = np.zeros(3)
        self._along = np.zeros(len(TERMS))

    def add(self, interval: Interval) -> None:
        """Take in the next interval."""
        by_layer, first_by_layer, change = (
            value.double().numpy() for value in (interval.terms, interval.first_order, interval.change)
        )
        terms, first = by_layer.sum(1), first_by_layer.sum(0)
        square = float(np.square(first).sum())
        along = np.tensordot(by_layer, first, ([2, 3], [0, 1]))
        share = along / square if square > 0 else np.zeros_like(along)
        rest = change - first
        self.steps.append(interval.last.step)
        self.check = max(self.check, float(np.abs(terms.sum(0) - first).max()))
        self._append("effect", np.sqrt(np.square(terms).sum((1, 2))))
        self._append("share", share.sum(1))
        self._append("layer_effect", np.sqrt(np.square(by_layer).sum((2, 3))))
        self._append("layer_share", share)
        for name, part in (("first_order", first), ("change", change), ("residual", rest)):
            self._append(name, np.asarray(np.linalg.norm(part)))
        if self._full:
            self._append("terms", interval.terms.sum(1).numpy())
        learned = terms[: len(LEARNED)].sum(0)
        totals = {"term": terms, "first_order": first, "change": change, "moved": np.abs(learned)}
        for name, part in totals.items():
            self._totals[name] = self._totals[name] + part if name in self._totals else part
        self._squares += (square, float(np.square(change).sum()), float(np.square(rest).sum()))
        self._along += along.sum(1)

    @property
    def learned(self) -> Values:
        """Σ J·U₃ (example, output)."""
        total: Values = self._totals["term"][: len(LEARNED)].sum(0)
        return total

    @property
    def moved(self) -> Values:
        """Σ |J·U₃| (example, output)."""
        return self._totals["moved"]

    def scalars(self) -> dict[str, float]:
        """Return what the series come to over the run."""
        first, change, rest = self._squares
        shares = self._along / first if first > 0 else np.zeros_like(self._along)
        return {
            **{f"share_{term}": float(share) for term, share in zip(TERMS, shares, strict=True)},
            "relative_residual": float(np.sqrt(rest / change)) if change > 0 else 0.0,
            "decomposition_check": self.check,
        }

    def arrays(self) -> dict[str, Array]:
        """Return the result's arrays."""
        rows = {name: np.stack(values) for name, values in self._rows.items()}
        found = {"step": Array(("step",), np.array(self.steps, dtype=np.int64))}
        for kind in ("share", "effect"):
            for index, term in enumerate(TERMS):
                found[f"{kind}_{term}"] = Array(("step",), rows[kind][:, index])
        for name in ("first_order", "change", "residual"):
            found[name] = Array(("step",), rows[name])
        found["residual_relative"] = Array(("step",), _ratio(rows["residual"], rows["change"]))
        if len(self._layers) > 1:
            for name in ("layer_share", "layer_effect"):
                found[name] = Array(("step", "term", "layer"), rows[name])
        if self._full:
            found["terms"] = Array(("step", "term", "example", "output"), rows["terms"])
        found["total_term"] = Array(("term", "example", "output"), self._totals["term"])
        for name in ("first_order", "change"):
            found[f"total_{name}"] = Array(("example", "output"), self._totals[name])
        return found

    def _append(self, name: str, value: NDArray[Any]) -> None:
        self._rows.setdefault(name, []).append(value)


def _ratio(part: Values, whole: Values) -> Values:
    """Return part / whole, and 0 where nothing changed."""
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
