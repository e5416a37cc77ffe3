"""The newest readable saved result of a metric; read again only when there is another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from tscope_format.errors import TscopeError, clean

if TYPE_CHECKING:
    from tscope_format import Result, ResultInfo

T = TypeVar("T")


class Saved(Generic[T]):
    """Reads the results of one metric in one trace.

    Args:
        path: The trace.
        metric: The metric.
        made: Makes of a result what a view shows; a KeyError says that an array is missing.
    """

    def __init__(self, path: Path, metric: str, made: Callable[[Result], T]) -> None:
        self._path, self._metric, self._made = path, metric, made
        self._known: tuple[object, T | None, list[str]] = (None, None, [])

    def read(self, root: str, problems: list[str]) -> T | None:
        """Return it, None when there is none; what cannot be read is added to `problems`."""
        try:
            found = saved_results(self._path, self._metric, root)
        except (TscopeError, OSError) as error:
            problems.append(clean(error))
            return None
        known = root, tuple(info.id for info in found)
        if self._known[0] != known:
            self._known = known, *self._newest(found)
        problems += self._known[2]
        return self._known[1]

    def _newest(self, found: Sequence[ResultInfo]) -> tuple[T | None, list[str]]:
        """Return the newest that can be read, and why newer ones cannot."""
        from tscope_format import load_result

        problems: list[str] = []
        for info in reversed(found):
            try:
                return self._made(load_result(self._path, self._metric, info.id)), problems
            except (TscopeError, OSError, KeyError, ValueError, IndexError) as error:
                problems.append(f"saved result {clean(info.id)}: {clean(error)}")
        return None, problems


class SavedAll(Generic[T]):
    """Reads all results of one metric in one trace, each once.

    Args:
        path: The trace.
        metric: The metric.
        made: Makes of a result what a view shows; a KeyError says that an array is missing.
        most: Only the newest so many are read.
    """

    def __init__(
        self, path: Path, metric: str, made: Callable[[ResultInfo, Result], T], most: int = 32
    ) -> None:
        self._path, self._metric, self._made, self._most = path, metric, made, most
        self._known: dict[str, T | str] = {}
        self._found: tuple[T, ...] = ()

    def read(self, root: str, problems: list[str]) -> tuple[T, ...]:
        """Return them, the newest first; what cannot be read is added to `problems`.

        As long as none is added or removed, the same tuple is returned.
        """
        try:
            infos = saved_results(self._path, self._metric, root)
        except (TscopeError, OSError) as error:
            problems.append(clean(error))
            return ()
        newest = list(reversed(infos))[: self._most]
        known = {
            info.id: self._known[info.id] if info.id in self._known else self._one(info) for info in newest
        }
        if known != self._known:
            self._known = known
            self._found = tuple(one for one in known.values() if not isinstance(one, str))
        problems += [one for one in known.values() if isinstance(one, str)]
        return self._found

    def _one(self, info: ResultInfo) -> T | str:
        """Return one result, or why it cannot be read."""
        from tscope_format import load_result

        try:
            return self._made(info, load_result(self._path, self._metric, info.id))
        except (TscopeError, OSError, KeyError, TypeError, ValueError, IndexError) as error:
            return f"saved result {clean(info.id)}: {clean(error)}"


def saved_results(path: Path, metric: str, root: str) -> Sequence[ResultInfo]:
    """Return the saved results of a metric on a root, oldest first."""
    from tscope_format import list_results

    return [info for info in list_results(path) if info.metric == metric and info.root == root]


def floats(result: Result, name: str) -> NDArray[np.float64]:
    """Return an array of a result as float64.

    Raises:
        KeyError: The result does not have it.
    """
    return np.asarray(result.arrays[name].data, dtype=np.float64)


def names_of(result: Result, what: str, count: int) -> tuple[str, ...]:
    """Return so many names from a result's provenance, cleaned; numbers where it has not as many."""
    names = result.provenance.get(what)
    if not isinstance(names, list | tuple) or len(names) != count:
        names = [str(index) for index in range(count)]
    return tuple(clean(name) for name in names)
