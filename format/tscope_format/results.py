"""What an analysis found, as pure data, and where it is kept: `analysis/<metric>/<id>/` within the trace.

Each result is a Zarr group of its own with its own consolidated record: saving one never touches the
recording, and a recorder never touches results. Arrays are written first, and the folder is renamed into
place last.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
import time as clock
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tscope_format.array_reader import ArrayReader
from tscope_format.dtypes import JSON, NDArray, dtype_of
from tscope_format.errors import MissingDataError, RecordError, TraceError, UsageError, clean
from tscope_format.metadata import ArrayMetadata
from tscope_format.tree import RECORD

if TYPE_CHECKING:
    import xarray

RESULTS = "analysis"
"""The folder of results, which belongs to the analyses; no root can have its name."""

SCHEMA = 1
_KEY = "tscope_result"

Scalar = float | int | str | bool | None


@dataclass(frozen=True, repr=False)
class Array:
    """A named array of a result.

    Attributes:
        dims: a name for each axis.
        data: the values.
    """

    dims: tuple[str, ...]
    data: NDArray

    def __repr__(self) -> str:
        sizes = ", ".join(
            f"{clean(dim)}: {size}" for dim, size in zip(self.dims, self.data.shape, strict=False)
        )
        return f"<Array {self.data.dtype.name} ({sizes})>"


@dataclass(frozen=True, repr=False)
class Result:
    """What an analysis found.

    Attributes:
        metric: name of the analysis.
        scalars: single values by name; None where one is undefined.
        arrays: arrays by name; the names are part of the interface.
        provenance: how it came about: trace, options, versions, what was recorded and what replayed.
        notes: what a reader has to know.
    """

    metric: str
    scalars: Mapping[str, Scalar]
    arrays: Mapping[str, Array]
    provenance: Mapping[str, JSON]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        lines = [f"<Result {clean(self.metric)}"]
        lines += [f"  {clean(name)} = {value!r}" for name, value in self.scalars.items()]
        lines += [f"  {clean(name)}: {array!r}" for name, array in self.arrays.items()]
        lines += [f"  note: {clean(note)}" for note in self.notes]
        return "\n".join(lines) + ">"

    def to_dict(self) -> dict[str, JSON]:
        """Return it as strict JSON: NaN becomes null, infinities the strings of Zarr."""
        arrays = {
            name: {
                "dims": list(array.dims),
                "shape": list(array.data.shape),
                "dtype": array.data.dtype.name,
                "data": _listed(array.data),
            }
            for name, array in self.arrays.items()
        }
        return {**self._head(), "arrays": arrays}

    @classmethod
    def from_dict(cls, document: Mapping[str, JSON]) -> Result:
        """Return the result that `to_dict` wrote; a NaN scalar comes back as None.

        Raises:
            TraceError: it is not a result, or of a newer schema.
        """
        try:
            arrays = {
                str(name): Array(tuple(entry["dims"]), _unlisted(entry))
                for name, entry in document["arrays"].items()
            }
            return cls._from_head(document, arrays)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TraceError(f"not a result of tscope ({error})") from error

    def to_xarray(self) -> xarray.Dataset:
        """Return the arrays as a dataset; an array along an axis of its own name becomes its coordinate.

        Raises:
            MissingDataError: xarray is not installed.
        """
        try:
            import xarray
        except ImportError as error:
            raise MissingDataError("to_xarray needs xarray: pip install 'tscope[xarray]'") from error
        variables = {name: (array.dims, array.data) for name, array in self.arrays.items()}
        attributes = {"metric": self.metric, **self.scalars, "notes": list(self.notes)}
        return xarray.Dataset(variables, attrs=attributes)

    def _head(self) -> dict[str, JSON]:
        scalars = {name: _strict(value) for name, value in self.scalars.items()}
        return {
            "schema": SCHEMA,
            "metric": self.metric,
            "scalars": scalars,
            "provenance": _strict(dict(self.provenance)),
            "notes": list(self.notes),
        }

    @classmethod
    def _from_head(cls, head: Mapping[str, JSON], arrays: Mapping[str, Array]) -> Result:
        if int(head["schema"]) > SCHEMA:
            raise TraceError(
                f"a result of schema {head['schema']}, and this tscope reads up to {SCHEMA}: upgrade tscope"
            )
        scalars = {str(name): _number(value) for name, value in head["scalars"].items()}
        notes = tuple(str(note) for note in head["notes"])
        return cls(str(head["metric"]), scalars, arrays, dict(head["provenance"]), notes)


@dataclass(frozen=True)
class ResultInfo:
    """A saved result without its arrays.

    Attributes:
        metric: name of the analysis.
        id: its folder's name.
        created: seconds since the epoch.
        root: the recorded root that was analysed.
        provenance: as in `Result`.
    """

    metric: str
    id: str
    created: float
    root: str
    provenance: Mapping[str, JSON]


def save_result(path: str | os.PathLike[str], result: Result, root: str) -> str:
    """Save a result in a trace.

    Args:
        path: the trace, or a folder to hold results of traces that cannot be written.
        result: what to save.
        root: the recorded root that was analysed.

    Returns:
        The result's id; later ones sort after earlier ones.

    Raises:
        UsageError: a name cannot be used, or an array's type cannot be held.
        TraceError: the folder cannot be written.
    """
    created = clock.time()
    # Milliseconds, so that the order of ids is that of saving.
    stamp = clock.strftime("%Y%m%dT%H%M%S", clock.gmtime(created)) + f"{int(created * 1000) % 1000:03d}"
    name = f"{stamp}-{secrets.token_hex(3)}"
    folder = Path(path) / RESULTS / _path_name("metric", result.metric)
    building = folder / f".{name}"
    try:
        building.mkdir(parents=True)
        _write(building, result, {"created": created, "root": root})
        building.rename(folder / name)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise TraceError(
            f"cannot save the result in {path}: {reason}; use --save-to to keep it elsewhere"
        ) from error
    except RecordError as error:
        raise UsageError(str(error)) from error
    finally:
        # Renamed, and so not there any more, unless something went wrong.
        shutil.rmtree(building, ignore_errors=True)
    return name


def list_results(path: str | os.PathLike[str]) -> list[ResultInfo]:
    """Return the saved results, oldest first.

    A folder that does not hold a readable result is left out; `verify` names it.
    """
    found = []
    for folder in result_folders(Path(path)):
        try:
            _, head = _read_record(folder)
            info = ResultInfo(
                str(head["metric"]),
                folder.name,
                float(head["created"]),
                str(head["root"]),
                dict(head["provenance"]),
            )
        except (TraceError, KeyError, TypeError, ValueError):
            continue
        found.append(info)
    return sorted(found, key=lambda info: (info.created, info.id))


def load_result(
    path: str | os.PathLike[str],
    metric: str,
    id: str | None = None,
    *,
    arrays: Collection[str] | None = None,
) -> Result:
    """Load a saved result.

    Args:
        path: the trace.
        metric: name of the analysis.
        id: which one; by default the newest.
        arrays: names of the arrays to read, of those that it has; None for all of them. The others are left
            out of the result: a curve should not cost the reading of a value for every example and step.

    Raises:
        MissingDataError: there is no such result.
        TraceError: it is damaged.
    """
    known = [info.id for info in list_results(path) if info.metric == metric]
    name = id if id is not None else (known[-1] if known else None)
    if name is None or name not in known:
        which = f"result {id!r}" if id is not None else "result"
        raise MissingDataError(
            f"{path} holds no {which} of {metric}: tscope analyze {path} --metric {metric}"
        )
    folder = Path(path) / RESULTS / metric / name
    readers, head = _read_record(folder)
    found = {
        reader.path: Array(reader.metadata.dims, reader.read())
        for reader in readers
        if arrays is None or reader.path in arrays
    }
    try:
        chosen = {name: found[name] for name in head["arrays"] if arrays is None or name in arrays}
        return Result._from_head(head, chosen)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TraceError(f"{folder}: not a result of tscope ({error})") from error


def last_values(
    path: str | os.PathLike[str], metric: str, root: str, names: Sequence[str]
) -> dict[str, float]:
    """Return the last values of series of the newest readable result of a root.

    Args:
        path: the trace.
        metric: name of the analysis.
        root: the recorded root.
        names: of the series; only these arrays are read.

    Returns:
        The value by name; NaN where the result has no such array, or no result can be read.
    """
    mine = [info for info in list_results(path) if info.metric == metric and info.root == root]
    for info in reversed(mine):
        try:
            readers = {
                reader.path: reader for reader in result_arrays(Path(path) / RESULTS / metric / info.id)
            }
            return {name: _last(readers.get(name)) for name in names}
        except (TraceError, OSError, ValueError):
            continue
    return dict.fromkeys(names, math.nan)


def result_folders(path: Path) -> list[Path]:
    """Return the folders that results are in, those being written left out."""
    return sorted(folder for folder in path.glob(f"{RESULTS}/*/*") if not folder.name.startswith("."))


def result_arrays(folder: Path) -> list[ArrayReader]:
    """Return readers of a saved result's arrays.

    Raises:
        TraceError: its record cannot be read.
    """
    return _read_record(folder)[0]


def _write(folder: Path, result: Result, facts: Mapping[str, JSON]) -> None:
    # Saving is rare, and reading results must not load the writer.
    from tscope_format.disk import Disk
    from tscope_format.group import GroupWriter
    from tscope_format.tree import Tree

    group = GroupWriter(Disk(folder), "")
    for name, array in result.arrays.items():
        data = np.asarray(array.data, order="C")
        if len(array.dims) != data.ndim:
            raise UsageError(f"array {name!r} of shape {data.shape} has dimensions {array.dims}")
        group.put(_path_name("array", name), data, array.dims, dtype_of(data.dtype.name))
    Tree(group.disk).commit([group], {_KEY: {**result._head(), "arrays": list(result.arrays), **facts}})


def _path_name(kind: str, name: str) -> str:
    from tscope_format.group import checked_name

    try:
        return checked_name(kind, name)
    except RecordError as error:
        raise UsageError(str(error)) from error


def _read_record(folder: Path) -> tuple[list[ArrayReader], Mapping[str, JSON]]:
    try:
        document = json.loads((folder / RECORD).read_bytes())
        head = document["attributes"][_KEY]
        members = document["consolidated_metadata"]["metadata"]
        readers = [
            ArrayReader(folder, str(name), ArrayMetadata.from_json(member))
            for name, member in members.items()
            if "/" not in name and name not in ("", ".", "..")
        ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise TraceError(f"{folder}: the result cannot be read ({error})") from error
    return readers, head


def _last(reader: ArrayReader | None) -> float:
    values = np.zeros(0) if reader is None else np.asarray(reader.read(), dtype=np.float64)
    return float(values[-1]) if values.size else math.nan


def _strict(value: JSON) -> JSON:
    """Replace what strict JSON lacks, and numpy's scalars by Python's."""
    if isinstance(value, Mapping):
        return {str(key): _strict(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(entry) for entry in value]
    if isinstance(value, np.generic):
        return _strict(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def _number(value: JSON) -> Scalar:
    return float(value) if value in ("Infinity", "-Infinity") else value


def _listed(data: NDArray) -> JSON:
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        return _strict(data.tolist())
    return data.tolist()


def _unlisted(entry: Mapping[str, JSON]) -> NDArray:
    # None is NaN to numpy's float conversion, "Infinity" is infinity; an empty list hides its inner shape.
    return np.array(entry["data"], dtype=np.dtype(entry["dtype"])).reshape(entry["shape"])
