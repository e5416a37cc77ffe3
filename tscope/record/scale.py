"""The steps at which sketches are taken: evenly spaced on a logarithmic scale, since kernels move early."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Scale:
    """0, 1, 2, 3, 4, 6, 8, 11, 16, …: from one to the next by √2, in multiples of `every`.

    Powers of two are among them: there a trace without updates keeps the parameters. A step takes the place
    of all points since the one before, for some may have been dropped.

    Attributes:
        every: steps from one recorded row to the next.
    """

    every: int = 1
    _next: int = field(default=0, init=False)

    def due(self, step: int) -> bool:
        """Return whether a step is the first at or after a point of the scale; steps come in order."""
        row = step // self.every
        if row < self._next:
            return False
        while self._next <= row:
            self._next = following(self._next)
        return True


def following(point: int) -> int:
    """Return the point of the scale after `point`."""
    if point & (point - 1):
        return 1 << point.bit_length()
    return max(point + 1, round(point * 2**0.5))


def points(last: int, every: int = 1) -> int:
    """Return how many steps up to `last` are taken: the points of the scale, and `last` itself."""
    found, point, rows = 0, 0, last // every
    while point <= rows:
        found, reached, point = found + 1, point, following(point)
    return found + (reached * every != last)
