"""A probe set: held-out inputs, and what the network makes of them as it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt

from tscope_format.codecs import PLAIN, SHUFFLED, Codec
from tscope_format.disk import Disk
from tscope_format.dtypes import JSON, NDArray, dtype_of
from tscope_format.errors import RecordError
from tscope_format.group import GroupWriter, input_dims

SERIES = ("output", "jvp", "lazy")


class ProbeWriter(GroupWriter):
    """Writes `probe/<name>/`, whose rows have their own coordinate `probe_step`."""

    def __init__(
        self, disk: Disk, root: str, name: str, guard: Callable[[], AbstractContextManager[bool]]
    ) -> None:
        super().__init__(disk, f"{root}/probe/{name}")
        self._guard = guard
        self._last: int | None = None
        self._last_sketch: int | None = None

    def start(
        self,
        inputs: Sequence[NDArray],
        target: NDArray | None,
        attributes: Mapping[str, JSON],
        dtypes: Sequence[str] | None,
    ) -> None:
        """Write what does not change: the inputs (example, …), and the targets if there are any."""
        self.attributes.update(attributes)
        for index, data in enumerate(inputs):
            dtype = dtype_of(dtypes[index] if dtypes else data.dtype.name)
            self.put(f"input/{index}", data, input_dims(index, data, len(inputs[0])), dtype)
        if target is not None:
            dims = ("example", *(f"target_{axis}" for axis in range(1, target.ndim)))
            self.put("target", target, dims)

    def append(
        self,
        step: int,
        output: npt.NDArray[np.float32],
        jvp: npt.NDArray[np.float32],
        lazy: npt.NDArray[np.float32],
    ) -> None:
        """Append a row of projections.

        Args:
            step: the step count, larger than the row's before.
            output: (example, output) the network's outputs.
            jvp: (example, output) J·Δθ since the row before.
            lazy: (example, output) J_0·(θ − θ_0).

        Raises:
            RecordError: the step does not increase, the shapes differ, or the disk refuses.
        """
        if self._last is not None and step <= self._last:
            raise RecordError(f"{self.path}: step {step} comes after step {self._last}; it must increase")
        expected = self["output"].trail if "output" in self else output.shape
        if output.ndim != 2 or not output.shape == jvp.shape == lazy.shape == expected:
            raise RecordError(
                f"{self.path}: output {output.shape}, jvp {jvp.shape}, lazy {lazy.shape}; "
                f"expected (example, output) = {expected} for each"
            )
        with self._guard() as working:
            if not working:
                return
            if "output" not in self:
                self.grow("probe_step", ("probe_step",), (), "int64", PLAIN)
                for name in SERIES:
                    dims = ("probe_step", "example", "output")
                    self.grow(name, dims, output.shape, "float32", Codec.time_last(3))
            self["probe_step"].append(step)
            for name, values in zip(SERIES, (output, jvp, lazy), strict=True):
                self[name].append(values)
        self._last = step

    def append_sketch(self, step: int, sketch: npt.NDArray[np.float32]) -> None:
        """Append a row of sketches, which have a coordinate `sketch_step` of their own.

        Args:
            step: the step count, larger than the row's before.
            sketch: (example, output, column).

        Raises:
            RecordError: the step does not increase, the shape differs, or the disk refuses.
        """
        if self._last_sketch is not None and step <= self._last_sketch:
            raise RecordError(
                f"{self.path}: the sketch of step {step} comes after that of step {self._last_sketch}; the "
                "steps must increase"
            )
        expected = self["sketch"].trail if "sketch" in self else sketch.shape
        if sketch.ndim != 3 or sketch.shape != expected:
            raise RecordError(
                f"{self.path}: a sketch of shape {sketch.shape}, expected (example, output, column) = "
                f"{expected}"
            )
        with self._guard() as working:
            if not working:
                return
            if "sketch" not in self:
                self.grow("sketch_step", ("sketch_step",), (), "int64", PLAIN)
                dims = ("sketch_step", "example", "output", "column")
                self.grow("sketch", dims, sketch.shape, "float32", SHUFFLED, chunk_rows=1)
            self["sketch_step"].append(step)
            self["sketch"].append(sketch)
        self._last_sketch = step
