"""States of the model that wait to be projected: bounded in memory, thinned evenly when they are too many."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

LIMIT = 64 << 20
FEWEST = 4


@dataclass(frozen=True, eq=False)
class State:
    """The model after one step: flat vectors by dtype."""

    step: int
    theta: Mapping[str, NDArray[Any]]
    buffer: Mapping[str, NDArray[Any]]

    @property
    def size(self) -> int:
        """Bytes of the parameters; buffers are shared between states until they change."""
        return sum(flat.nbytes for flat in self.theta.values())

    def copy(self) -> State:
        """Return a state that keeps no larger array alive."""
        return State(self.step, {dtype: flat.copy() for dtype, flat in self.theta.items()}, self.buffer)


class Backlog:
    """States in the order of their steps.

    When there is no room, every second one is dropped and from then on only every second arrival is taken, so
    that those which remain are evenly spaced; once it has run empty, twice as many are taken again.

    Args:
        limit: Bytes it may hold.
        fewest: States it may hold whatever their size.
    """

    def __init__(self, limit: int = LIMIT, fewest: int = FEWEST) -> None:
        self._limit = limit
        self._fewest = fewest
        self._held: OrderedDict[int, State] = OrderedDict()  # by arrival
        self._stride = 1
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def steps(self) -> list[int]:
        """The steps of what it holds, oldest first."""
        return [state.step for state in self._held.values()]

    def wants(self) -> bool:
        """Count one arrival, and return whether it should be added."""
        self._arrivals += 1
        return self._arrivals % self._stride == 0

    def add(self, state: State) -> None:
        """Append the state that arrived last."""
        self._held[self._arrivals] = state
        self._make_room()

    def merge(self, other: Backlog) -> None:
        """Add what another backlog with the same arrivals holds."""
        self._held = OrderedDict(sorted({**other._held, **self._held}.items()))
        self._make_room()

    def pop(self) -> State:
        """Take the oldest state."""
        _, state = self._held.popitem(last=False)
        if not self._held:
            self._stride = max(1, self._stride // 2)
        return state

    def thin(self, count: int) -> None:
        """Keep at most `count` (≥ 1) states, evenly spaced, always with the newest."""
        total = len(self._held)
        if total > count:
            arrivals = list(self._held)
            kept = [arrivals[(position + 1) * total // count - 1] for position in range(count)]
            self._held = OrderedDict((arrival, self._held[arrival]) for arrival in kept)

    def clear(self) -> None:
        """Drop all states."""
        self._held = OrderedDict()

    def _make_room(self) -> None:
        """Drop every second state for as long as there are too many."""
        size = max((state.size for state in islice(self._held.values(), 1)), default=0)  # all are alike
        while len(self._held) > max(self._fewest, self._limit // max(1, size)):
            self._stride *= 2
            kept = ((n, state) for n, state in self._held.items() if n % self._stride == 0)
            self._held = OrderedDict(kept)
