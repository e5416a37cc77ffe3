"""A flat vector at a few rows of the run: what is kept of the parameters where the updates are not.

They are row 0, every row whose number is a power of two, and the last: enough to check what was computed
while the run went on, and to go on from its end.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tscope_format.array_reader import ArrayReader
from tscope_format.arrays import ArrayWriter
from tscope_format.chain import piece_of
from tscope_format.codecs import PLAIN, SHUFFLED
from tscope_format.disk import Disk
from tscope_format.dtypes import JSON, Dtype, NDArray, dtype_of
from tscope_format.errors import MissingDataError, TraceError
from tscope_format.metadata import ArrayMetadata

STATES = ("state", "state_row", "state_step")
_NAMED = 8  # steps in a message


def is_kept(row: int) -> bool:
    """Return whether the vector of a row is kept, whatever follows."""
    return row & (row - 1) == 0


class StateWriter:
    """Writes `state`, `state_row` and `state_step` of one vector.

    Attributes:
        path: path of the group within the trace.
        rows: rows appended, kept or not.
        last: (param,) stored words of the last row.
    """

    def __init__(self, disk: Disk, path: str, dtype: Dtype, axis: str, initial: NDArray) -> None:
        """Describe the arrays; `initial` (param,) are the stored words of row 0, which is then appended."""
        self.path = path
        self.rows = 0
        self.last = initial.copy()
        self._step = 0
        self._dtype = dtype
        size = initial.size
        self._states = ArrayWriter(
            disk,
            f"{path}/state",
            ("state", axis),
            (size,),
            dtype,
            SHUFFLED,
            chunk_rows=1,
            piece=(piece_of(size),),
        )
        self._places = {
            name: ArrayWriter(disk, f"{path}/{name}", ("state",), (), dtype_of("int64"), PLAIN)
            for name in STATES[1:]
        }

    def arrays(self) -> dict[str, ArrayMetadata]:
        """Return the metadata of the arrays, by path within the trace."""
        return {array.path: array.metadata for array in (self._states, *self._places.values())}

    def groups(self) -> dict[str, Mapping[str, JSON]]:
        """Return the attributes of the group, by path within the trace."""
        return {self.path: {"dtype": self._dtype.name}}

    @property
    def bytes_raw(self) -> int:
        """Size of the vectors kept, uncompressed."""
        return self._states.bytes_raw

    def append(self, step: int, vector: NDArray | None) -> None:
        """Append a row; (param,) stored words, or None if the vector did not change."""
        if vector is not None:
            self.last[...] = vector
        self._step = step
        self.rows += 1
        if is_kept(self.rows - 1):
            self._keep()

    def settle(self) -> None:
        """Keep the last row too: no other will come."""
        if self.rows and not is_kept(self.rows - 1):
            self._keep()

    def flush(self) -> None:
        """Write everything appended so far."""
        for array in (self._states, *self._places.values()):
            array.flush()

    def _keep(self) -> None:
        self._states.extend(self.last[None])
        self._places["state_row"].append(self.rows - 1)
        self._places["state_step"].append(self._step)


class StateReader:
    """Reads one vector at the rows that were kept.

    Attributes:
        dtype: the element type.
        size: stored words of the vector.
        path: path of its group within the trace.
        kept: the rows, increasing.
        changes: True: its rows are not all alike, as far as anyone knows.
        steps: their steps.
        block_rows: rows of a chunk.
    """

    changes = True
    block_rows = 1

    def __init__(self, arrays: Mapping[str, ArrayReader], dtype: Dtype) -> None:
        self.dtype = dtype
        self._state = arrays["state"]
        self.size = self._state.metadata.shape[1]
        self.path = self._state.path.rpartition("/")[0]
        self.kept: list[int] = arrays["state_row"].read().tolist()
        self.steps: list[int] = arrays["state_step"].read().tolist()

    def problem(self, rows: int) -> str | None:
        """Return what is wrong with the rows that are kept, of so many; for `verify`."""
        count = self._state.metadata.shape[0]
        if not count == len(self.kept) == len(self.steps):
            return f"has {count} states at {len(self.kept)} rows and {len(self.steps)} steps"
        rising = all(low < high for low, high in zip(self.kept, self.kept[1:], strict=False))
        if self.kept[:1] != [0] or not rising or self.kept[-1] >= rows:
            return f"keeps rows {self.kept} of {rows}, expected row 0 and increasing ones"
        powers = (1 << bit for bit in range(rows.bit_length()))
        missing = [row for row in powers if row < rows and row not in self.kept]
        return f"lacks the states of rows {missing}" if missing else None

    def at(self, row: int) -> NDArray:
        """Return the vector (param,) at a row, as stored words.

        Raises:
            MissingDataError: it was not kept.
            TraceError: it is damaged.
        """
        if row not in self.kept:
            raise MissingDataError(
                f"{self._state.trace}: the parameters at row {row} were not kept, since the run was recorded "
                f"with `--updates none`; they are known at steps {_listed(self.steps)}. Record without it to "
                "have every row"
            )
        place = self.kept.index(row)
        vector: NDArray = self._state.read(place, place + 1).reshape(-1)
        if len(vector) != self.size:
            raise TraceError(f"{self._state.trace}: {self._state.path} has no state {place}")
        return vector

    def rows(self, start: int, stop: int, before: NDArray) -> NDArray:
        """Return rows (row, param) as stored words, whatever was `before` them.

        Raises:
            MissingDataError: one was not kept.
        """
        return np.stack([self.at(row) for row in range(start, stop)])


def _listed(steps: list[int]) -> str:
    """Return steps as text, the middle left out where they are many."""
    if len(steps) < 2:
        return ", ".join(map(str, steps))
    many = len(steps) > _NAMED
    first = steps[: _NAMED - 1] if many else steps[:-1]
    return ", ".join(map(str, first)) + (", …" if many else "") + f" and {steps[-1]}"
