"""One recorded root module: its rows, batches, examples, probes and program, as they come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt

from tscope_format.batch import BatchWriter, check_micros
from tscope_format.chain import ANCHOR_ROWS, ChainWriter, group_name
from tscope_format.disk import Disk
from tscope_format.dtypes import JSON, NDArray, dtype_of, to_real, words
from tscope_format.errors import RecordError
from tscope_format.examples import ExamplesWriter
from tscope_format.group import GroupWriter, checked_name
from tscope_format.metadata import ArrayMetadata
from tscope_format.norms import tensor_norms
from tscope_format.optimizer import OptimizerWriter
from tscope_format.probe import ProbeWriter
from tscope_format.rows import Row, StepsWriter
from tscope_format.states import StateWriter
from tscope_format.tensors import Tensor, lengths
from tscope_format.tree import Part

Guard = Callable[[], AbstractContextManager[bool]]
"""Turns a disk's refusal into one `RecordError`, and says whether the disk is still to be written to."""


class RootWriter:
    """Writes one root group; made by `TraceWriter.add_root`.

    Attributes:
        name: the group's name.
        attributes: JSON attributes of the group, written at the next commit.
    """

    def __init__(
        self,
        disk: Disk,
        name: str,
        guard: Guard,
        *,
        parameters: Sequence[Tensor],
        buffers: Sequence[Tensor],
        groups: int,
        attributes: Mapping[str, JSON],
        updates: bool = True,
    ) -> None:
        self.name = name
        self._disk = disk
        self._guard = guard
        self._updates = updates
        self._parameters = tuple(parameters)
        self._buffers = tuple(buffers)
        self._last_step = 0
        self._tables: dict[str, JSON] = {
            "parameters": [tensor.to_json() for tensor in parameters],
            "buffers": [tensor.to_json() for tensor in buffers],
        }
        exact = all(entry.dtype == "float64" for entry in self._parameters)
        self._steps = StepsWriter(disk, name, tensors=len(self._parameters), groups=groups, exact=exact)
        self.attributes = self._steps.attributes
        self.attributes.update({"kind": "net", "anchor_rows": ANCHOR_ROWS, **attributes})
        if not updates:
            self.attributes["updates"] = "none"
        self._theta: dict[str, ChainWriter | StateWriter] = {}
        self._buffer: dict[str, ChainWriter] = {}
        self._batch = BatchWriter(disk, name)
        self._examples = ExamplesWriter(disk, name)
        self._optimizer = OptimizerWriter(disk, name, self._parameters)
        self._probes: dict[str, ProbeWriter] = {}
        self._program: GroupWriter | None = None

    @property
    def rows(self) -> int:
        """Number of rows appended, row 0 included."""
        return self._steps["step"].rows

    def start(self, theta: Mapping[str, NDArray], buffer: Mapping[str, NDArray], time: float) -> None:
        """Write row 0, the state before training; for `TraceWriter.add_root`."""
        self._check_vectors("parameters", self._parameters, theta, complete=True)
        self._check_vectors("buffers", self._buffers, buffer, complete=True)
        self._theta = dict(self._chains("theta", "param", theta) if self._updates else self._states(theta))
        self._buffer = self._chains("buffer", "element", buffer)
        no_gradient = np.full(len(self._parameters), np.nan, np.float32)
        lr = np.full(self._steps["lr"].trail, np.nan)
        self._append(Row(0, time, np.nan, lr, theta, buffer, no_gradient, False, False, ()))

    def append(self, row: Row) -> None:
        """Append the state after an update.

        Raises:
            RecordError: the row does not fit the tables, or the disk refuses.
        """
        if row.step <= self._last_step:
            raise RecordError(f"{self.name}: step {row.step} comes after step {self._last_step}")
        self._check_vectors("parameters", self._parameters, row.theta, complete=True)
        self._check_vectors("buffers", self._buffers, row.buffer or {}, complete=False)
        if row.grad_norm.shape != (len(self._parameters),):
            count = len(self._parameters)
            raise RecordError(f"{self.name}: grad_norm of shape {row.grad_norm.shape} for {count} parameters")
        check_micros(self.name, row.micro)
        with self._guard() as working:
            if working:
                self._append(row)

    def append_anchor_state(
        self, step: int, states: Mapping[str, Mapping[str, NDArray]], attributes: Mapping[str, JSON]
    ) -> None:
        """Add an optimizer's state at the anchor row that was appended last.

        Args:
            step: the step count of that row.
            states: name → dtype → (param,) values in the parameters' layout, NaN where there are none.
            attributes: `scalars` (name → a number or None for each parameter) becomes arrays; the rest is
                kept in the group's attributes.

        Raises:
            RecordError: the last row is not an anchor row of that step, or the state does not fit the tables.
        """
        if step != self._last_step or (self.rows - 1) % ANCHOR_ROWS:
            raise RecordError(
                f"{self.name}: optimizer state of step {step} has no anchor row: anchors come every "
                f"{ANCHOR_ROWS} rows, and the last row, {self.rows - 1}, is step {self._last_step}"
            )
        rest = dict(attributes)
        scalars = rest.pop("scalars", {})
        self._optimizer.add(states, scalars, rest)

    def add_examples(
        self,
        inputs: Sequence[NDArray],
        hashes: npt.NDArray[np.uint8],
        first_step: int,
        dtypes: Sequence[str] | None = None,
    ) -> None:
        """Append examples; the first one ever is number 0.

        Args:
            inputs: each of the module's inputs, (example, …).
            hashes: (example, 16) blake2b over the example's bytes of input 0, input 1, ….
            first_step: the step at which they came.
            dtypes: torch's names of the inputs' element types, where numpy has none.

        Raises:
            RecordError: they are not like earlier examples, or the disk refuses.
        """
        with self._guard() as working:
            if working:
                self._examples.append(inputs, hashes, first_step, dtypes)

    def add_probe(
        self,
        name: str,
        *,
        inputs: Sequence[NDArray],
        target: NDArray | None,
        attributes: Mapping[str, JSON],
        dtypes: Sequence[str] | None = None,
    ) -> ProbeWriter:
        """Add a probe set.

        Args:
            name: its name, one part of a path.
            inputs: each of the module's inputs, (example, …).
            target: (example, …) labels, if known.
            attributes: JSON attributes of its group.
            dtypes: torch's names of the inputs' element types, where numpy has none.

        Raises:
            RecordError: the name is taken or cannot be used, or the disk refuses.
        """
        if checked_name("probe", name) in self._probes:
            raise RecordError(f"{self.name}: there is a probe set {name!r} already")
        probe = ProbeWriter(self._disk, self.name, name, self._guard)
        with self._guard() as working:
            if working:
                probe.start(inputs, target, attributes, dtypes)
                self._probes[name] = probe
        return probe

    def set_program(self, graph: bytes, constants: Mapping[str, NDArray]) -> None:
        """Write the model as data: its graph (bytes of JSON) and the constants that it needs.

        Raises:
            RecordError: there is one already, a name cannot be used, or the disk refuses.
        """
        if self._program is not None:
            raise RecordError(f"{self.name}: there is a program already")
        program = GroupWriter(self._disk, f"{self.name}/program")
        with self._guard() as working:
            if not working:
                return
            program.put("graph", np.frombuffer(graph, np.uint8), ("byte",))
            for name, data in constants.items():
                key = f"constant/{checked_name('constant', name)}"
                program.put(key, data, tuple(f"{name}_{axis}" for axis in range(data.ndim)))
            self._program = program

    def flush(self) -> None:
        """Write everything appended so far."""
        for part in self._parts():
            part.flush()

    def arrays(self) -> dict[str, ArrayMetadata]:
        """Return the metadata of all arrays, by path within the trace."""
        return {path: found for part in self._parts() for path, found in part.arrays().items()}

    def groups(self) -> dict[str, Mapping[str, JSON]]:
        """Return the attributes of all groups that have some, by path within the trace."""
        found = {path: own for part in self._parts() for path, own in part.groups().items()}
        return found | {self.name: {**self.attributes, **self._tables}}

    def settle(self) -> None:
        """Write what waits for the next row, or for the last; for `TraceWriter.close`."""
        self._optimizer.settle(-(-self.rows // ANCHOR_ROWS))
        for vector in self._theta.values():
            vector.settle()

    @property
    def bytes_raw(self) -> int:
        """Size of everything recorded, uncompressed."""
        return sum(part.bytes_raw for part in self._parts())

    def _parts(self) -> list[Part]:
        program = [] if self._program is None else [self._program]
        return [
            self._steps,
            *self._theta.values(),
            *self._buffer.values(),
            self._batch,
            self._examples,
            self._optimizer,
            *self._probes.values(),
            *program,
        ]

    def _chains(self, prefix: str, axis: str, vectors: Mapping[str, NDArray]) -> dict[str, ChainWriter]:
        chains = {}
        for key, vector in vectors.items():
            dtype = dtype_of(key)
            path = f"{self.name}/{group_name(prefix, key)}"
            fixed = prefix == "buffer"
            chains[key] = ChainWriter(self._disk, path, dtype, axis, words(vector, dtype), fixed=fixed)
        return chains

    def _states(self, vectors: Mapping[str, NDArray]) -> dict[str, StateWriter]:
        states = {}
        for key, vector in vectors.items():
            dtype = dtype_of(key)
            path = f"{self.name}/{group_name('theta', key)}"
            states[key] = StateWriter(self._disk, path, dtype, "param", words(vector, dtype))
        return states

    def _append(self, row: Row) -> None:
        self._optimizer.settle(-(-self.rows // ANCHOR_ROWS))
        # A diverged run overflows and subtracts infinities; norms of inf and NaN say so.
        with np.errstate(all="ignore"):
            update_norm, theta_norm = self._norms(row)
            self._steps.append(row, update_norm, theta_norm)
        for key, chain in self._theta.items():
            chain.append(row.step, words(row.theta[key], dtype_of(key)))
        for key, chain in self._buffer.items():
            vector = (row.buffer or {}).get(key)
            chain.append(row.step, None if vector is None else words(vector, dtype_of(key)))
        self._batch.append(row.micro)
        self._last_step = row.step

    def _norms(self, row: Row) -> tuple[NDArray, NDArray]:
        """Return the norms of the update and of the parameters, (tensor,) each."""
        update_norm, theta_norm = np.zeros(len(self._parameters)), np.zeros(len(self._parameters))
        for key, chain in self._theta.items():
            dtype = dtype_of(key)
            places = [index for index, tensor in enumerate(self._parameters) if tensor.dtype == key]
            tensors = [self._parameters[index] for index in places]
            now = to_real(words(row.theta[key], dtype), dtype)
            theta_norm[places] = tensor_norms(now, tensors, dtype)
            update_norm[places] = tensor_norms(now - to_real(chain.last, dtype), tensors, dtype)
        return update_norm, theta_norm

    def _check_vectors(
        self, kind: str, tensors: Sequence[Tensor], vectors: Mapping[str, NDArray], *, complete: bool
    ) -> None:
        expected = lengths(tensors)
        unknown = set(vectors) - set(expected)
        missing = set(expected) - set(vectors) if complete else set()
        if unknown or missing:
            raise RecordError(
                f"{self.name}: {kind} of types {sorted(vectors)}, expected {sorted(expected)}: "
                "the module's tensors changed while it was recorded"
            )
        for key, vector in vectors.items():
            dtype = dtype_of(key)
            if vector.shape != (expected[key],) or vector.dtype != dtype.numpy:
                raise RecordError(
                    f"{self.name}: {kind} of type {key} came as {vector.dtype} of shape {vector.shape}, "
                    f"expected {dtype.numpy} of shape {(expected[key],)}"
                )
