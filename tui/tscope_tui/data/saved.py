"""The newest readable saved result of a metric; read again only when there is another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

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


def saved_results(path: Path, metric: str, root: str) -> Sequence[ResultInfo]:
    """Return the saved results of a metric on a root, oldest first."""
    from tscope_format import list_results

    return [info for info in list_results(path) if info.metric == metric and info.root == root]
