"""States of the model that wait to be projected: bounded in memory, thinned evenly when they are too many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
        self._states: list[State] = []
        self._stride = 1
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._states)

    @property
    def states(self) -> tuple[State, ...]:
        """What it holds, oldest first."""
        return tuple(self._states)

    def wants(self) -> bool:
        """Count one arrival, and return whether it should be added."""
        self._arrivals += 1
        return self._arrivals % self._stride == 0

    def add(self, state: State) -> None:
        """Append a state that was wanted."""
        self._states.append(state)
        if len(self._states) > self._fewest and len(self._states) * state.size > self._limit:
            # Counted from the end: the newest arrival is the one whose successor comes `stride` later.
            self._states = self._states[::-1][::2][::-1]
            self._stride *= 2

    def merge(self, states: tuple[State, ...]) -> None:
        """Add states that lie before or among those here."""
        known = {state.step: state for state in (*states, *self._states)}
        self._states = [known[step] for step in sorted(known)]

    def pop(self) -> State:
        """Take the oldest state."""
        state = self._states.pop(0)
        if not self._states:
            self._stride = max(1, self._stride // 2)
        return state

    def thin(self, count: int) -> None:
        """Keep at most `count` (≥ 1) states, evenly spaced, always with the newest."""
        total = len(self._states)
        if total > count:
            self._states = [self._states[(position + 1) * total // count - 1] for position in range(count)]

    def clear(self) -> None:
        """Drop all states."""
        self._states = []
