"""The examples that training saw, each once: inputs, hash, and the step at which it first came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tscope_format.codecs import PLAIN, SHUFFLED
from tscope_format.disk import Disk
from tscope_format.dtypes import JSON, NDArray, dtype_of
from tscope_format.errors import RecordError
from tscope_format.group import GroupWriter, input_dims

HASH_BYTES = 16


class ExamplesWriter(GroupWriter):
    """Writes `examples/`.

    Inputs of differing lengths (padded batches) share one array that is as long as the longest; `shape/<k>`
    says what each example had.
    """

    def __init__(self, disk: Disk, root: str) -> None:
        super().__init__(disk, f"{root}/examples")
        self._dtypes: tuple[str, ...] = ()

    def append(
        self,
        inputs: Sequence[NDArray],
        hashes: npt.NDArray[np.uint8],
        first_step: int,
        dtypes: Sequence[str] | None,
    ) -> None:
        """Append examples.

        Args:
            inputs: each of the module's inputs, (example, …).
            hashes: (example, 16).
            first_step: the step at which they came.
            dtypes: torch's names of the inputs' element types; numpy's by default.

        Raises:
            RecordError: the inputs are not those of earlier examples in number, type or dimensions.
        """
        names = tuple(dtypes or (data.dtype.name for data in inputs))
        self._check(inputs, hashes, names)
        if not self._dtypes:
            self._start(inputs, names)
        self["hash"].extend(hashes)
        self["first_step"].extend(np.full(len(hashes), first_step, np.int64))
        for index, data in enumerate(inputs):
            array = self[f"input/{index}"]
            array.grow(data.shape[1:])
            array.extend(data)
            shapes = np.broadcast_to(np.array(data.shape[1:], np.int64), (len(data), data.ndim - 1))
            self[f"shape/{index}"].extend(shapes)

    def groups(self) -> dict[str, Mapping[str, JSON]]:
        """Return this group once it has arrays."""
        return {self.path: self.attributes} if self._dtypes else {}

    def _check(self, inputs: Sequence[NDArray], hashes: NDArray, names: tuple[str, ...]) -> None:
        rows = {len(data) for data in inputs}
        if hashes.shape[1:] != (HASH_BYTES,) or rows != {len(hashes)}:
            raise RecordError(f"examples with {sorted(rows)} input rows and hashes of shape {hashes.shape}")
        if not self._dtypes:
            return
        dims = tuple(data.ndim for data in inputs)
        known = tuple(self[f"input/{index}"].trail for index in range(len(self._dtypes)))
        if names != self._dtypes or dims != tuple(len(trail) + 1 for trail in known):
            raise RecordError(
                f"the inputs changed from {_describe(self._dtypes, [len(trail) + 1 for trail in known])} "
                f"to {_describe(names, dims)}: examples of a root must be alike"
            )

    def _start(self, inputs: Sequence[NDArray], names: tuple[str, ...]) -> None:
        self.grow("hash", ("example", "byte"), (HASH_BYTES,), "uint8", PLAIN)
        self.grow("first_step", ("example",), (), "int64", PLAIN)
        for index, (data, name) in enumerate(zip(inputs, names, strict=True)):
            codec = SHUFFLED if dtype_of(name).kind == "float" else PLAIN
            self.grow(f"input/{index}", input_dims(index, data, len(data)), data.shape[1:], name, codec)
            self.grow(f"shape/{index}", ("example", f"input{index}_axis"), (data.ndim - 1,), "int64", PLAIN)
        self._dtypes = names


def _describe(dtypes: Sequence[str], dims: Sequence[int]) -> str:
    return ", ".join(f"{dtype} of {count} dimensions" for dtype, count in zip(dtypes, dims, strict=True))
