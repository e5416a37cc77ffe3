"""The batches of a root: which examples each step saw, what came out, and the gradient that came back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tscope_format.codecs import PLAIN, Codec
from tscope_format.disk import Disk
from tscope_format.dtypes import JSON, NDArray
from tscope_format.errors import RecordError
from tscope_format.group import GroupWriter

UNKNOWN = -1
"""The identity of a slot whose example is not known, or that holds none."""


@dataclass(frozen=True)
class Micro:
    """One forward and backward pass within a step.

    Attributes:
        size: number of examples.
        scale: factor that the loss was multiplied with (gradient scaling).
        examples: (slot,) rows of `examples/`, −1 where unknown; None if no identity is claimed.
        output: (slot, output) float32 or float64, or None if not recorded. The first decides for the trace.
        output_grad: (slot, output), likewise.
    """

    size: int
    scale: float
    examples: npt.NDArray[np.int64] | None
    output: npt.NDArray[np.float32 | np.float64] | None
    output_grad: npt.NDArray[np.float32 | np.float64] | None


def check_micros(root: str, micro: Sequence[Micro]) -> None:
    """Refuse micro-batches whose parts are not one row for each example.

    Raises:
        RecordError: naming the part and its shape.
    """
    for part in micro:
        for name, axes in (("examples", 1), ("output", 2), ("output_grad", 2)):
            values: NDArray | None = getattr(part, name)
            if values is not None and (values.ndim != axes or len(values) != part.size):
                raise RecordError(
                    f"{root}: {name} of shape {values.shape} for a micro-batch of {part.size} examples"
                )


class BatchWriter(GroupWriter):
    """Writes `batch/`: one row a step, whose slots are those of the step's micro-batches in order."""

    def __init__(self, disk: Disk, root: str) -> None:
        super().__init__(disk, f"{root}/batch")
        self._rows = 0

    def append(self, micro: Sequence[Micro]) -> None:
        """Append a row; arrays start with the first row that has something for them."""
        if micro and "size" not in self:
            self._start(len(micro), sum(part.size for part in micro))
        if "size" in self:
            self._append_sizes(micro)
            self._append_slots("example", [part.examples for part in micro], micro)
            for name in ("output", "output_grad"):
                self._append_slots(name, [getattr(part, name) for part in micro], micro)
        self._rows += 1

    def groups(self) -> dict[str, Mapping[str, JSON]]:
        """Return this group once it has arrays."""
        return {self.path: self.attributes} if "size" in self else {}

    def _start(self, micro: int, slots: int) -> None:
        rows = self._rows
        self.grow("size", ("step", "micro"), (micro,), "int64", PLAIN, backfill=rows)
        self.grow("scale", ("step", "micro"), (micro,), "float64", Codec.time_last(2), backfill=rows)
        self.grow(
            "example",
            ("step", "slot"),
            (max(1, slots),),
            "int64",
            PLAIN,
            backfill=rows,
            attributes={"padding": UNKNOWN},
        )

    def _append_sizes(self, micro: Sequence[Micro]) -> None:
        for name, values in (
            ("size", [float(part.size) for part in micro]),
            ("scale", [part.scale for part in micro]),
        ):
            self[name].grow((len(micro),))
            self[name].append(np.array(values))

    def _append_slots(self, name: str, parts: Sequence[NDArray | None], micro: Sequence[Micro]) -> None:
        present = [part for part in parts if part is not None]
        slots = max(self["example"].trail[0], sum(part.size for part in micro))
        width = () if name == "example" else (max((part.shape[1] for part in present), default=0),)
        if name not in self:
            if not present:
                return
            dims = ("step", "slot", "output")
            dtype = "float64" if present[0].dtype == np.float64 else "float32"
            self.grow(name, dims, (slots, *width), dtype, Codec.time_last(3), backfill=self._rows)
        array = self[name]
        array.grow((slots, *width))
        if len(parts) == len(present) == 1:
            array.append(present[0])
            return
        row = np.full(array.trail, array.fill, array.dtype)
        start = 0
        for part, values in zip(micro, parts, strict=True):
            if values is not None:
                row[(slice(start, start + len(values)), *(slice(length) for length in values.shape[1:]))] = (
                    values
                )
            start += part.size
        array.append(row)
