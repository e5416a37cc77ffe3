"""Norms and spectra of each layer's parameters along a run, from θ alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tscope_format.results import Array

from tscope.analyses.layerwise.spectra import effective_rank, matrices, padded, singular_values, stable_rank

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.trace import Trace

    Tensors = Mapping[str, Tensor]
    Values = NDArray[np.floating[Any]]


class Norms:
    """Takes in θ row by row.

    Args:
        trace: The run.
        layers: The parameters of each layer.
        values: How many singular values are kept of each matrix; 0 for no spectra.
    """

    def __init__(self, trace: Trace, layers: Mapping[str, Sequence[str]], values: int) -> None:
        known = {name for names in layers.values() for name in names}
        self.matrices = matrices([entry for entry in trace.parameters if entry.name in known])
        self._trace = trace
        self._layers = layers
        self._values = values if self.matrices else 0
        self._rows: dict[str, list[Values]] = {}
        self._first: Tensors = {}
        self._last: Tensors = {}

    def finite(self, theta: Tensors) -> bool:
        """Whether the parameters and their squares are numbers."""
        return bool(np.isfinite(self._squares(theta)).all())

    def add(self, theta: Tensors) -> None:
        """Take in θ, float64, of the next row. A pass over the parameters, and an SVD of each matrix."""
        here = {name: theta[name] for names in self._layers.values() for name in names}
        self._first = self._first or here
        before = self._last or here
        start = self._squares(self._first)
        self._append("theta_norm", here)
        self._append("update_norm", {name: value - before[name] for name, value in here.items()})
        moved = self._squares({name: value - self._first[name] for name, value in here.items()})
        for name, part, whole in (("movement", moved, start), ("movement_all", moved.sum(), start.sum())):
            self._keep(name, _root(part, whole))
        self._last = here
        if self._values:
            sigmas = [singular_values(here[entry.name]) for entry in self.matrices]
            self._keep("singular_values", padded(sigmas, self._values))
            self._keep("effective_rank", np.array([effective_rank(sigma) for sigma in sigmas]))
            self._keep("stable_rank", np.array([stable_rank(sigma) for sigma in sigmas]))

    def arrays(self, rows: Sequence[int]) -> dict[str, Array]:
        """Return the series of the rows that were taken in."""
        found = {name: np.stack(values) for name, values in self._rows.items()}
        by_layer = [name for name in found if found[name].ndim == 2 and name in _BY_LAYER]
        arrays = {name: Array(("step", "layer"), found[name]) for name in by_layer}
        arrays |= {name: Array(("step",), found[name]) for name in found if name.endswith("_all")}
        if self._values:
            arrays["singular_values"] = Array(("step", "matrix", "value"), found["singular_values"])
            for name in ("effective_rank", "stable_rank"):
                arrays[name] = Array(("step", "matrix"), found[name])
        return arrays | self._gradients(rows)

    def _gradients(self, rows: Sequence[int]) -> dict[str, Array]:
        """Return the norms of the gradients as the optimizer got them, recorded for each tensor."""
        if "grad_norm" not in self._trace.reader.arrays():
            return {}
        recorded = self._trace.reader.read("grad_norm", 0, rows[-1] + 1)[list(rows)].astype(np.float64)
        place = {entry.name: index for index, entry in enumerate(self._trace.parameters)}
        squares = np.square(recorded)
        columns = []
        for names in self._layers.values():
            own = squares[:, [place[name] for name in names]]
            columns.append(np.where(np.isnan(own).all(1), np.nan, np.nansum(own, 1)))
        by_layer = np.stack(columns, 1)
        whole = np.where(np.isnan(by_layer).all(1), np.nan, np.nansum(by_layer, 1))
        return {
            "gradient_norm": Array(("step", "layer"), np.sqrt(by_layer)),
            "gradient_norm_all": Array(("step",), np.sqrt(whole)),
        }

    def _append(self, name: str, tensors: Tensors) -> None:
        squares = self._squares(tensors)
        self._keep(name, np.sqrt(squares))
        self._keep(f"{name}_all", np.sqrt(squares.sum()))

    def _keep(self, name: str, value: Values) -> None:
        self._rows.setdefault(name, []).append(np.asarray(value))

    def _squares(self, tensors: Tensors) -> Values:
        """Return ‖·‖² of each layer (layer,)."""
        return np.array(
            [
                sum(float(torch.linalg.vector_norm(tensors[name])) ** 2 for name in names)
                for names in self._layers.values()
            ]
        )


_BY_LAYER = ("theta_norm", "update_norm", "movement")


def _root(part: Values, whole: Values) -> Values:
    """Return √(part/whole), NaN where the whole is zero."""
    part, whole = np.asarray(part), np.asarray(whole)
    ratio = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    found: Values = np.sqrt(ratio)
    return found
