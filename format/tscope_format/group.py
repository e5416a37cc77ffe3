"""A group under construction: its arrays by name, its attributes, and the path that leads to it."""

from __future__ import annotations

from collections.abc import Mapping

from tscope_format.arrays import ArrayWriter, write_array
from tscope_format.codecs import Codec
from tscope_format.disk import Disk
from tscope_format.dtypes import JSON, Dtype, NDArray, dtype_of
from tscope_format.errors import RecordError
from tscope_format.metadata import ArrayMetadata

_LONGEST_NAME = 200


class GroupWriter:
    """One group of arrays.

    Attributes:
        path: its path within the folder; empty for the folder itself, whose attributes the commit sets.
        attributes: JSON attributes, written at the next commit.
    """

    def __init__(self, disk: Disk, path: str, attributes: Mapping[str, JSON] | None = None) -> None:
        self.disk = disk
        self.path = path
        self.attributes: dict[str, JSON] = dict(attributes or {})
        self._growing: dict[str, ArrayWriter] = {}
        self._static: dict[str, ArrayMetadata] = {}
        self._static_raw = 0

    def __contains__(self, name: str) -> bool:
        return name in self._growing or name in self._static

    def __getitem__(self, name: str) -> ArrayWriter:
        return self._growing[name]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays that grow."""
        return tuple(self._growing)

    def grow(
        self,
        name: str,
        dims: tuple[str, ...],
        trail: tuple[int, ...],
        dtype: str,
        codec: Codec,
        *,
        chunk_rows: int | None = None,
        piece: tuple[int, ...] | None = None,
        backfill: int = 0,
        attributes: Mapping[str, JSON] | None = None,
    ) -> ArrayWriter:
        """Add an array that grows by rows; the arguments are those of `ArrayWriter`."""
        array = ArrayWriter(
            self.disk,
            self._inside(name),
            dims,
            trail,
            dtype_of(dtype),
            codec,
            chunk_rows=chunk_rows,
            piece=piece,
            backfill=backfill,
            attributes=attributes,
        )
        self._growing[name] = array
        return array

    def put(self, name: str, data: NDArray, dims: tuple[str, ...], dtype: Dtype | None = None) -> None:
        """Write an array that will not grow."""
        path = self._inside(name)
        self._static[name] = write_array(self.disk, path, data, dims, dtype or dtype_of(data.dtype.name))
        self._static_raw += data.nbytes

    def _inside(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name

    def flush(self) -> None:
        """Write everything appended so far."""
        for array in self._growing.values():
            array.flush()

    def arrays(self) -> dict[str, ArrayMetadata]:
        """Return the metadata of the arrays, by path within the trace."""
        found = {array.path: array.metadata for array in self._growing.values()}
        return found | {self._inside(name): metadata for name, metadata in self._static.items()}

    def groups(self) -> dict[str, Mapping[str, JSON]]:
        """Return the attributes of this group, by path within the trace."""
        return {self.path: self.attributes} if self.path else {}

    @property
    def bytes_raw(self) -> int:
        """Size of everything appended, uncompressed."""
        return self._static_raw + sum(array.bytes_raw for array in self._growing.values())


def checked_name(kind: str, name: str) -> str:
    """Return `name` if it can be one part of a path in a trace.

    Raises:
        RecordError: it cannot.
    """
    bad = not name or name.strip(".") == "" or "/" in name or "\0" in name or name.startswith("__")
    if bad or name == "zarr.json" or len(name.encode(errors="replace")) > _LONGEST_NAME:
        raise RecordError(
            f"{kind} name {name!r} cannot be used in a trace: it must be 1 to {_LONGEST_NAME} bytes, "
            "without a slash, not only dots, not starting with two underscores, and not 'zarr.json'"
        )
    return name


def input_dims(index: int, data: NDArray, examples: int) -> tuple[str, ...]:
    """Return the dimension names of a module's input: (example, …), unless it has not one row for each."""
    first = "example" if data.ndim and len(data) == examples else f"input{index}_0"
    return (first, *(f"input{index}_{axis}" for axis in range(1, data.ndim)))[: data.ndim]
