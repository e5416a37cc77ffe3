"""The step axis of a root: time, loss, learning rates and norms at every row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tscope_format.batch import Micro
from tscope_format.codecs import PLAIN, Codec
from tscope_format.disk import Disk
from tscope_format.dtypes import NDArray
from tscope_format.group import GroupWriter
from tscope_format.metadata import ArrayMetadata
from tscope_format.pyramid import PyramidWriter

NORMS = ("grad_norm", "update_norm", "theta_norm")
SUMMARIZED = ("step", "time", "loss", "lr", *NORMS)
"""The step arrays that have a pyramid: several groups as a range, several tensors as the norm over all."""


@dataclass(frozen=True)
class Row:
    """The state after one recorded update.

    Attributes:
        step: number of updates up to and including this one.
        time: seconds since the epoch.
        loss: the step's loss, NaN if there was none.
        lr: (group,) learning rates that the update used.
        theta: dtype → (param,) parameters after the update.
        buffer: dtype → (element,) buffers after the update; a dtype, or all, may be missing if unchanged.
        grad_norm: (tensor,) gradient norms as the optimizer saw them, NaN where there was no gradient.
        skipped: whether the update was skipped (gradient scaling found an overflow).
        foreign: whether θ changed outside the optimizer since the row before.
        micro: the forward and backward passes of the step.
    """

    step: int
    time: float
    loss: float
    lr: npt.NDArray[np.float64]
    theta: Mapping[str, NDArray]
    buffer: Mapping[str, NDArray] | None
    grad_norm: npt.NDArray[np.float32 | np.float64]
    skipped: bool
    foreign: bool
    micro: Sequence[Micro]


class StepsWriter(GroupWriter):
    """Writes the arrays of the root group itself, all along `step`.

    Args:
        disk: where to.
        root: the root's name.
        tensors: number of parameters.
        groups: number of parameter groups.
        exact: hold gradient norms as float64, for a model all of whose parameters are.
    """

    def __init__(self, disk: Disk, root: str, *, tensors: int, groups: int, exact: bool = False) -> None:
        super().__init__(disk, root)
        self.grow("step", ("step",), (), "int64", PLAIN)
        for name in ("time", "loss"):
            self.grow(name, ("step",), (), "float64", Codec.time_last(1))
        self.grow("lr", ("step", "group"), (groups,), "float64", Codec.time_last(2))
        for name in NORMS:
            dtype = "float64" if exact and name == "grad_norm" else "float32"
            self.grow(name, ("step", "tensor"), (tensors,), dtype, Codec.time_last(2))
        for name in ("skipped", "foreign"):
            self.grow(name, ("step",), (), "uint8", PLAIN)
        self._pyramids = {name: PyramidWriter(disk, root, name) for name in SUMMARIZED}

    def append(self, row: Row, update_norm: NDArray, theta_norm: NDArray) -> None:
        """Append a row with its norms (tensor,)."""
        self["lr"].grow(row.lr.shape)
        values: dict[str, NDArray | float] = {
            "step": row.step,
            "time": row.time,
            "loss": row.loss,
            "lr": row.lr,
            "grad_norm": row.grad_norm,
            "update_norm": update_norm,
            "theta_norm": theta_norm,
            "skipped": row.skipped,
            "foreign": row.foreign,
        }
        for name, value in values.items():
            self[name].append(value)
        for name, value in (("step", row.step), ("time", row.time), ("loss", row.loss)):
            self._pyramids[name].append(value, value)
        self._pyramids["lr"].append(*_range(row.lr))
        for name in NORMS:
            total = _total(np.asarray(values[name], np.float64))
            self._pyramids[name].append(total, total)

    def flush(self) -> None:
        """Write everything appended so far."""
        super().flush()
        for pyramid in self._pyramids.values():
            pyramid.flush()

    def arrays(self) -> dict[str, ArrayMetadata]:
        """Return the metadata of the arrays, by path within the trace."""
        found = super().arrays()
        for pyramid in self._pyramids.values():
            found |= {array.path: array.metadata for array in pyramid.arrays}
        return found


def _range(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    if not values.size:
        return np.nan, np.nan
    return float(np.fmin.reduce(values)), float(np.fmax.reduce(values))


def _total(norms: npt.NDArray[np.float64]) -> float:
    """Return the norm over all tensors that have one, NaN if none has."""
    known = norms[~np.isnan(norms)]
    return float(np.sqrt(np.square(known).sum())) if known.size else np.nan
