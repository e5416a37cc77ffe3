"""The optimizer's state at anchor rows: momentum, second moments, step counters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tscope_format.chain import group_name, piece_of
from tscope_format.codecs import SHUFFLED, Codec
from tscope_format.disk import Disk
from tscope_format.dtypes import JSON, NDArray
from tscope_format.errors import RecordError
from tscope_format.group import GroupWriter, checked_name
from tscope_format.metadata import ArrayMetadata
from tscope_format.tensors import Tensor, lengths

PREFIX = "optimizer"
SCALARS = "optimizer_scalar"


class OptimizerWriter:
    """Writes `optimizer/<name>` (anchor, param), and `optimizer_scalar/<name>` (anchor, tensor).

    Rows are those of `theta/anchor`, NaN where no state came. The state follows its anchor row, and is
    written when the next row comes; the states of several optimizers of one root are merged until then, since
    each is NaN where it has nothing.
    """

    def __init__(self, disk: Disk, root: str, parameters: Sequence[Tensor]) -> None:
        self.attributes: dict[str, JSON] = {}
        self._disk = disk
        self._root = root
        self._lengths = lengths(parameters)
        self._tensors = len(parameters)
        self._groups: dict[str, GroupWriter] = {}
        self._pending: dict[tuple[str, str], tuple[str, NDArray]] = {}
        self._rows = 0

    def add(
        self,
        states: Mapping[str, Mapping[str, NDArray]],
        scalars: Mapping[str, Sequence[JSON]],
        attributes: Mapping[str, JSON],
    ) -> None:
        """Hold a state until `settle`.

        Args:
            states: name → layout dtype → (param,) values in the layout of that dtype's parameters.
            scalars: name → one number for each parameter, None where there is none.
            attributes: everything else, kept in the group's attributes.

        Raises:
            RecordError: a state is not as long as the parameters, or a name cannot be used.
        """
        for name, parts in states.items():
            for layout, values in parts.items():
                self._check(name, values.shape, self._lengths.get(layout, 0))
                held = layout if values.dtype.kind in "ui" else values.dtype.name
                self._merge(group_name(PREFIX, layout), checked_name("optimizer state", name), held, values)
        for name, entries in scalars.items():
            self._check(name, (len(entries),), self._tensors)
            numbers = np.array([np.nan if entry is None else float(entry) for entry in entries])
            self._merge(SCALARS, checked_name("optimizer scalar", name), "float64", numbers)
        self.attributes.update(attributes)

    def settle(self, anchors: int) -> None:
        """Write what is held, as row `anchors − 1`; nothing comes after it for that row."""
        if anchors == self._rows or not (self._groups or self._pending):
            return
        for (path, name), (held, values) in self._pending.items():
            self._array(path, name, held, values.size)
        for path, group in self._groups.items():
            for name in group.names:
                array = group[name]
                for row in range(array.rows, anchors):
                    entry = self._pending.get((path, name)) if row == anchors - 1 else None
                    array.append(np.full(array.trail, array.fill) if entry is None else entry[1])
        self._pending.clear()
        self._rows = anchors

    def flush(self) -> None:
        """Write everything settled so far."""
        for group in self._groups.values():
            group.flush()

    def arrays(self) -> dict[str, ArrayMetadata]:
        """Return the metadata of the arrays, by path within the trace."""
        return {path: found for group in self._groups.values() for path, found in group.arrays().items()}

    def groups(self) -> dict[str, Mapping[str, JSON]]:
        """Return the attributes of the groups, by path within the trace."""
        return {group.path: self.attributes for group in self._groups.values()}

    @property
    def bytes_raw(self) -> int:
        """Size of everything settled, uncompressed."""
        return sum(group.bytes_raw for group in self._groups.values())

    def _check(self, name: str, shape: tuple[int, ...], expected: int) -> None:
        if shape != (expected,):
            raise RecordError(
                f"{self._root}: optimizer state {name!r} of shape {shape}, expected ({expected},)"
            )

    def _merge(self, group: str, name: str, held: str, values: NDArray) -> None:
        former = self._pending.get((group, name))
        if former is not None:
            values = np.where(_missing(former[1], held), values, former[1])
        self._pending[group, name] = held, np.array(values)

    def _array(self, path: str, name: str, held: str, size: int) -> None:
        if path not in self._groups:
            self._groups[path] = GroupWriter(self._disk, f"{self._root}/{path}")
        group = self._groups[path]
        if name in group:
            return
        if path == SCALARS:
            group.grow(name, ("anchor", "tensor"), (size,), held, Codec.time_last(2))
        else:
            group.grow(
                name, ("anchor", "param"), (size,), held, SHUFFLED, chunk_rows=1, piece=(piece_of(size),)
            )


def _missing(values: NDArray, held: str) -> NDArray:
    """Return where there is no value: NaN, also in the bits of a bfloat16."""
    missing: NDArray
    if held == "bfloat16":
        missing = (values & 0x7FFF) > 0x7F80
    elif values.dtype.kind == "f":
        missing = np.isnan(values)
    else:
        missing = values == 0
    return missing
