"""A result as CSV files: one file for the scalars, one for each set of dimensions, in long form."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tscope_format import Array, Result, UsageError


def write(result: Result, folder: Path) -> list[Path]:
    """Write the result's tables into `folder` (made if absent) and return their paths.

    A table of arrays with dimensions (step, output) has the columns step, output and one for each array; the
    column of a dimension holds its coordinate if the result has an array of that name, else its index.

    Raises:
        UsageError: The folder cannot be made or written.
    """
    groups: dict[tuple[str, ...], dict[str, Array]] = {}
    for name, array in result.arrays.items():
        groups.setdefault(array.dims, {})[name] = array
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{result.metric}_scalars.csv"
        _save(path, ["name", "value"], ([name, value] for name, value in result.scalars.items()))
        written.append(path)
        for dims, arrays in groups.items():
            values = {name: array for name, array in arrays.items() if dims != (name,)}
            if not values:
                continue
            path = folder / f"{'_'.join([result.metric, *dims])}.csv"
            _save(path, [*dims, *values], _rows(result, dims, values))
            written.append(path)
    except OSError as error:
        raise UsageError(f"cannot write CSV files into {folder}: {error.strerror or error}") from error
    return written


def _rows(result: Result, dims: tuple[str, ...], arrays: dict[str, Array]) -> Iterator[tuple[object, ...]]:
    """Yield the rows of one table, along its first dimension piece by piece so that memory stays small."""
    shape = next(iter(arrays.values())).data.shape
    axes = [_coordinate(result, dim, size) for dim, size in zip(dims, shape, strict=True)]
    if not shape:
        yield tuple(array.data.item() for array in arrays.values())
        return
    inner = [grid.ravel().tolist() for grid in np.meshgrid(*axes[1:], indexing="ij")]
    for first, label in enumerate(axes[0].tolist()):
        columns = [np.ravel(array.data[first]).tolist() for array in arrays.values()]
        yield from zip([label] * len(columns[0]), *inner, *columns, strict=True)


def _coordinate(result: Result, dim: str, size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    found = result.arrays.get(dim)
    return found.data if found is not None and found.dims == (dim,) else np.arange(size)


def _save(path: Path, header: list[str], rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
