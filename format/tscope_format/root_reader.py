"""One recorded root module, as it was committed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tscope_format.array_reader import ArrayReader
from tscope_format.chain import ANCHOR_ROWS, group_name
from tscope_format.chain_reader import ChainReader
from tscope_format.dtypes import JSON, NDArray, dtype_of
from tscope_format.errors import RecordError, TraceError
from tscope_format.metadata import ArrayMetadata
from tscope_format.states import STATES, StateReader
from tscope_format.tensors import Tensor, lengths

_DEFAULT_BLOCK = 64


@dataclass(frozen=True)
class ArrayInfo:
    """An array without its data.

    Attributes:
        dims: the names of its axes.
        shape: its committed shape.
        dtype: torch's name of its element type.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str


class RootReader:
    """A root at one commit: an unchanging snapshot, also while the recording goes on.

    Attributes:
        name: the root's name.
        attributes: JSON attributes of its group.
        rows: committed rows, row 0 (before training) included.
        parameters: the parameter table.
        buffers: the buffer table.
        probes: names of the probe sets.
    """

    def __init__(
        self,
        trace: Path,
        name: str,
        rows: int,
        arrays: Mapping[str, ArrayMetadata],
        groups: Mapping[str, Mapping[str, JSON]],
    ) -> None:
        self.name = name
        self.rows = rows
        self._trace = trace
        self._arrays = {path: ArrayReader(trace, f"{name}/{path}", found) for path, found in arrays.items()}
        self._groups = groups
        self.attributes: Mapping[str, JSON] = groups.get("", {})
        try:
            self.parameters = tuple(Tensor.from_json(entry) for entry in self.attributes["parameters"])
            self.buffers = tuple(Tensor.from_json(entry) for entry in self.attributes["buffers"])
            self._anchor_rows = int(self.attributes.get("anchor_rows", ANCHOR_ROWS))
        except (KeyError, TypeError, ValueError) as error:
            raise TraceError(f"{trace}: root {name!r} has no valid parameter table ({error})") from error
        self._check_rows()

    @property
    def probes(self) -> tuple[str, ...]:
        """Names of the probe sets."""
        paths = [path.split("/") for path in self._arrays if path.startswith("probe/")]
        return tuple(dict.fromkeys(parts[1] for parts in paths if len(parts) > 2))

    def arrays(self) -> dict[str, ArrayInfo]:
        """Return all arrays of this root by their path within it."""
        return {path: _info(array.metadata) for path, array in self._arrays.items()}

    @property
    def buffers_move(self) -> bool:
        """Whether a buffer of other than whole numbers ever changes: running statistics do so."""
        kinds = [key for key in lengths(self.buffers) if "float" in key or "complex" in key]
        return any(f"{group_name('buffer', key)}/update" in self._arrays for key in kinds)

    def readers(self) -> list[ArrayReader]:
        """Return the readers of all arrays, for `verify`."""
        return list(self._arrays.values())

    def chains(self) -> list[ChainReader | StateReader]:
        """Return the vectors that the parameters and buffers are held in, for `verify`.

        Raises:
            TraceError: the commit record lacks one.
        """
        return [*self._theta.values(), *self._buffer.values()]

    @property
    def theta_rows(self) -> tuple[int, ...] | None:
        """The rows at which the parameters are known; None: at every one.

        Raises:
            TraceError: the commit record lacks a vector, or a chunk is missing or damaged.
        """
        kept = [set(found.kept) for found in self._theta.values() if isinstance(found, StateReader)]
        return tuple(sorted(set.intersection(*kept))) if kept else None

    def group_attributes(self, path: str) -> Mapping[str, JSON]:
        """Return the JSON attributes of a group within this root, such as `probe/heldout`."""
        return self._groups.get(path, {})

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray:
        """Return rows `start` to `stop` of an array along its first axis.

        Args:
            name: the array's path within this root, such as `"loss"` or `"probe/heldout/output"`.
            start: first row; negative counts from the end, as in a slice.
            stop: row after the last; None for the end.

        Raises:
            TraceError: there is no such array, or a chunk is missing or damaged.
        """
        return self._array(name).read(start, stop)

    def take(self, name: str, rows: Sequence[int] | NDArray) -> NDArray:
        """Return the given rows of an array, in their order.

        Raises:
            TraceError: there is no such array or row, or a chunk is missing or damaged.
        """
        return self._array(name).take(rows)

    def theta(self, row: int) -> dict[str, NDArray]:
        """Return the parameters at a row, bit for bit: dtype → (param,).

        Raises:
            TraceError: there is no such row, or a chunk is missing or damaged.
            MissingDataError: the parameters of this row were not kept; `theta_rows` are.
        """
        return self._state(self._theta, row)

    def buffer(self, row: int) -> dict[str, NDArray]:
        """Return the buffers at a row, bit for bit: dtype → (element,).

        Raises:
            TraceError: there is no such row, or a chunk is missing or damaged.
        """
        return self._state(self._buffer, row)

    def theta_blocks(
        self, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, dict[str, NDArray]]]:
        """Yield the parameters of all rows in order: first row of the block, dtype → (row, param).

        `buffer_blocks` yields the same blocks, so that the two can be zipped.

        Raises:
            TraceError: a chunk is missing or damaged.
            MissingDataError: the parameters of one of the rows were not kept.
        """
        return self._blocks(self._theta, start, stop)

    def buffer_blocks(
        self, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, dict[str, NDArray]]]:
        """Yield the buffers of all rows in order: first row of the block, dtype → (row, element).

        The rows of a buffer that never changed share memory: do not write into them.

        Raises:
            TraceError: a chunk is missing or damaged.
        """
        return self._blocks(self._buffer, start, stop)

    def program(self) -> tuple[dict[str, JSON], dict[str, NDArray]] | None:
        """Return the model as data, graph and constants, or None if it was not exported.

        Raises:
            TraceError: it is damaged.
        """
        if "program/graph" not in self._arrays:
            return None
        try:
            graph = json.loads(self.read("program/graph").tobytes())
        except ValueError as error:
            raise TraceError(f"{self._trace}: {self.name}/program/graph is not JSON ({error})") from error
        prefix = "program/constant/"
        constants = {path[len(prefix) :]: self.read(path) for path in self._arrays if path.startswith(prefix)}
        return graph, constants

    @cached_property
    def _theta(self) -> Mapping[str, ChainReader | StateReader]:
        if self.attributes.get("updates") == "none":
            return self._states()
        return self._chains("theta", self.parameters)

    @cached_property
    def _buffer(self) -> dict[str, ChainReader]:
        return self._chains("buffer", self.buffers)

    def _states(self) -> dict[str, StateReader]:
        states = {}
        for key in lengths(self.parameters):
            group = group_name("theta", key)
            arrays = {name: self._arrays.get(f"{group}/{name}") for name in STATES}
            known = {name: array for name, array in arrays.items() if array is not None}
            if len(known) < len(STATES):
                lacking = next(name for name in STATES if name not in known)
                raise TraceError(f"{self._trace}: {self.name}/{group}/{lacking} is not in the commit record")
            states[key] = StateReader(known, dtype_of(key))
        return states

    def _chains(self, prefix: str, tensors: Sequence[Tensor]) -> dict[str, ChainReader]:
        chains = {}
        for key in lengths(tensors):
            group = group_name(prefix, key)
            parts = ("update", "anchor")
            arrays = {
                name: self._arrays[f"{group}/{name}"] for name in parts if f"{group}/{name}" in self._arrays
            }
            if "anchor" not in arrays:
                raise TraceError(f"{self._trace}: {self.name}/{group}/anchor is not in the commit record")
            try:
                chains[key] = ChainReader(arrays, dtype_of(key), self._anchor_rows)
            except RecordError as error:
                raise TraceError(f"{self._trace}: {self.name}: {error}") from error
        return chains

    def _state(self, chains: Mapping[str, ChainReader | StateReader], row: int) -> dict[str, NDArray]:
        if not 0 <= row < self.rows:
            raise TraceError(f"{self._trace}: {self.name} has rows 0 to {self.rows - 1}, not {row}")
        return {key: chain.at(row).view(chain.dtype.numpy) for key, chain in chains.items()}

    def _blocks(
        self, chains: Mapping[str, ChainReader | StateReader], start: int, stop: int | None
    ) -> Iterator[tuple[int, dict[str, NDArray]]]:
        first, last, _ = slice(start, stop).indices(self.rows)
        if first >= last:
            return
        grid = max((chain.block_rows for chain in self._largest()), default=0) or _DEFAULT_BLOCK
        state = {key: chain.at(first) for key, chain in chains.items()}
        at = first
        while at < last:
            end = min(last, (at // grid + 1) * grid)
            block = {}
            for key, chain in chains.items():
                rows = _block(chain, at, end, state[key], is_first=at == first)
                state[key] = rows[-1]
                block[key] = rows.view(chain.dtype.numpy)
            yield at, block
            at = end

    def _largest(self) -> list[ChainReader | StateReader]:
        """Return the chain whose chunks decide the blocks: that of the most bytes."""
        chains = sorted(self._theta.values(), key=lambda chain: chain.size * chain.dtype.word.itemsize)
        return chains[-1:]

    def _array(self, name: str) -> ArrayReader:
        try:
            return self._arrays[name]
        except KeyError:
            raise TraceError(
                f"{self._trace}: {self.name} has no array {name!r}; it has {', '.join(sorted(self._arrays))}"
            ) from None

    def _check_rows(self) -> None:
        """Refuse a commit record that contradicts itself."""
        for path, array in self._arrays.items():
            if array.metadata.dims[:1] == ("step",) and array.metadata.shape[0] != self.rows:
                raise TraceError(
                    f"{self._trace}: the commit record says {self.rows} rows of {self.name}, "
                    f"but {array.metadata.shape[0]} of {path}"
                )


def _block(
    chain: ChainReader | StateReader, start: int, stop: int, before: NDArray, *, is_first: bool
) -> NDArray:
    """Return rows, given the vector at `start` if these are the first rows, else the one before it."""
    if not chain.changes:
        strides = (0, *before.strides)
        return np.lib.stride_tricks.as_strided(before, (stop - start, *before.shape), strides)
    if not is_first:
        return chain.rows(start, stop, before)
    out = np.empty((stop - start, chain.size), chain.dtype.word)
    out[0] = before
    if stop > start + 1:
        out[1:] = chain.rows(start + 1, stop, before)
    return out


def _info(metadata: ArrayMetadata) -> ArrayInfo:
    held = metadata.attributes.get("dtype", metadata.dtype.name)
    return ArrayInfo(metadata.dims, metadata.shape, str(held))
