"""The forks of a run: where each parts from it, and what saved results say of both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tscope_format.errors import TscopeError, clean

from tscope_tui.data import averaging, gradients
from tscope_tui.data.averaging import SETS, Along, Average, Set
from tscope_tui.data.gradients import Gradients
from tscope_tui.data.saved import SavedAll

if TYPE_CHECKING:
    from tscope_format import TraceReader

    Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Fork:
    """One fork.

    Attributes:
        path: Its trace.
        step: Where it was asked to part.
        seed: What it was reseeded with.
        same_until: t', the last step at which its parameters are those of its base.
        average: The newest saved average of its last state and its base's; None without one.
        change: By the set of examples: how far gradients moved from t' to the end, the mean of both runs;
            empty where it is not known of both.
        cosine: Likewise.
    """

    path: Path
    step: int
    seed: int
    same_until: int
    average: Average | None = None
    change: Mapping[Set, float] = field(default_factory=dict)
    cosine: Mapping[Set, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Sweep:
    """A run and its forks.

    Attributes:
        base: The run that they part from.
        forks: In the order of their steps and seeds.
        shown: The fork that the shown trace is; None where it is the base.
        problems: Which forks cannot be read, and why; cleaned.
    """

    base: Path
    forks: tuple[Fork, ...]
    shown: int | None = None
    problems: tuple[str, ...] = ()

    def against(self, values: Iterable[float]) -> tuple[Floats, Floats, Floats]:
        """Return a value of each fork against t'.

        Args:
            values: One for each fork; NaN where it is not known.

        Returns:
            The steps t', the middle of the range over seeds, and half of that range; NaN where none is known.
        """
        by_step: dict[int, list[float]] = {one.same_until: [] for one in self.forks}
        for one, value in zip(self.forks, values, strict=True):
            if value == value:
                by_step[one.same_until].append(value)
        steps = sorted(by_step)
        low, high = (
            np.array([end(by_step[step], default=math.nan) for step in steps], dtype=np.float64)
            for end in (min, max)
        )
        with np.errstate(invalid="ignore"):  # ∞ − ∞
            return np.array(steps, dtype=np.float64), (low + high) / 2, (high - low) / 2


class _Run:
    """One trace of the family, with its saved results."""

    def __init__(self, path: Path) -> None:
        from tscope_format import open_trace

        self.path = path
        self.reader = open_trace(path)
        self._averages = SavedAll(path, averaging.METRIC, partial(averaging.from_result, path))
        self._gradients = SavedAll(path, gradients.METRIC, partial(gradients.from_result, path))

    def average(self, root: str, other: str) -> Average | None:
        """Return the newest average of its last state and another run's, that fingerprint names."""
        both = {self.reader.fingerprint, other}
        found: Sequence[Average | Along] = self._averages.read(root, [])
        return next(
            (
                one
                for one in found
                if isinstance(one, Average) and set(one.traces) == both and one.options.get("at") is None
            ),
            None,
        )

    def moved(self, root: str, since: int) -> dict[str, float] | None:
        """Return how far gradients moved from a step to the end, by quantity and set; None if not known."""
        last = int(self.reader.root(root).read("step", -1)[0])
        for one in self._gradients.read(root, []):
            places = np.flatnonzero(one.since == since)
            if places.size and one.stopped is not None:
                return None  # it has no gradients at its end
            if places.size and one.step[-1] == last:
                return _ends(one, int(places[0]))
        return None


def _ends(found: Gradients, place: int) -> dict[str, float]:
    return {name: float(values[place, -1]) for name, values in found.whole.items()}


class Family:
    """Reads the run that a trace parts from, or is, with all of its forks; each trace is opened once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._runs: dict[Path, _Run] = {}

    def read(self, reader: TraceReader, root: str) -> Sweep | None:
        """Return the family; None where there are no forks. What cannot be read is among its problems."""
        own = reader.facts.get("fork")
        base, facts = self._path, reader.facts
        if isinstance(own, Mapping):
            # Beside it, whatever the trace says.
            base = self._path.parent / Path(str(own.get("base"))).name
            try:
                facts = self._opened(base).reader.facts
            except (TscopeError, OSError) as error:
                return Sweep(base, (), None, (f"the run that it parts from: {clean(error)}",))
        listed = facts.get("forks")
        if not isinstance(listed, Sequence) or not listed:
            return None
        forks, told = [], []
        try:
            entries = sorted(listed, key=lambda one: (int(one["step"]), int(one["seed"])))
        except (KeyError, TypeError, ValueError) as error:
            return Sweep(base, (), None, (f"{clean(base.name)} does not list its forks: {clean(error)}",))
        for entry in entries:
            try:
                forks.append(self._fork(base, entry, root))
            except (TscopeError, OSError, KeyError, TypeError, ValueError) as error:
                told.append(clean(error))
        names = [fork.path.name for fork in forks]
        shown = names.index(self._path.name) if base != self._path and self._path.name in names else None
        return Sweep(base, tuple(forks), shown, tuple(told))

    def _opened(self, path: Path) -> _Run:
        if path not in self._runs:
            self._runs[path] = _Run(path)
        return self._runs[path]

    def _fork(self, base: Path, entry: Mapping[str, Any], root: str) -> Fork:
        """Return one fork.

        Raises:
            TscopeError: Its trace is gone, or damaged.
            ValueError: There is another trace in its place.
        """
        whole = self._opened(base)
        path = base.parent / Path(str(entry["trace"])).name
        run = self._opened(path)
        facts = run.reader.facts.get("fork") or {}
        if facts.get("base_id") != whole.reader.facts.get("id") or not facts.get("verified"):
            raise ValueError(f"{path.name} is another trace than the fork that was recorded there")
        same = int(facts["same_until"])
        ends = [one.moved(root, same) for one in (whole, run)]
        return Fork(
            path,
            int(entry["step"]),
            int(entry["seed"]),
            same,
            run.average(root, whole.reader.fingerprint),
            _mean(ends, "change"),
            _mean(ends, "cosine"),
        )


def _mean(ends: Sequence[Mapping[str, float] | None], quantity: str) -> dict[Set, float]:
    """Return the mean of both runs by set; empty where one is not known."""
    known = [one for one in ends if one is not None]
    if len(known) < len(ends):
        return {}
    names: list[Set] = [name for name in SETS if all(f"{quantity}_{name}" in one for one in known)]
    return {name: math.fsum(one[f"{quantity}_{name}"] for one in known) / len(known) for name in names}
