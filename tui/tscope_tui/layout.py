"""Where each pane goes, by the size of the terminal. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise


class Tier(IntEnum):
    """How much room there is."""

    SMALL = 0
    COLUMNS = 1
    SIDEBAR = 2
    COMPOSITE = 3


@dataclass(frozen=True)
class Rect:
    """A rectangle of the screen, in cells."""

    x: int
    y: int
    width: int
    height: int

    def holds(self, x: int, y: int) -> bool:
        """Return whether a cell lies within."""
        return self.x <= x < self.x + self.width and self.y <= y < self.y + self.height


def tier(width: int, height: int) -> Tier:
    """Return the tier of a terminal."""
    if width < 72 or height < 20:
        return Tier.SMALL
    if width >= 160 and height >= 40:
        return Tier.COMPOSITE
    return Tier.SIDEBAR if width >= 120 else Tier.COLUMNS


def top(size: Tier) -> int:
    """Return the rows above the panes: the header, and the tabs where there is room."""
    return 1 if size is Tier.SMALL else 2


def bottom(size: Tier) -> int:
    """Return the rows below the panes: scrubber, status, and with room the events and the keys."""
    return 2 if size is Tier.SMALL else 4


SIDE = 34
_VIEWS: dict[str, tuple[tuple[str, ...], ...]] = {
    "overview": (("loss", "accuracy"), ("update", "events")),
    "telescoping": (("prediction", "error"), ("layers", "terms")),
    "boosting": (("norms", "increase"), ("errors", "against")),
    "examples": (("examples",), ("outputs", "influence")),
    "example": (("outputs", "picture"), ("contribution", "neighbours"), ("influence", "visits")),
    "composite": (("loss", "accuracy", "update"), ("prediction", "error"), ("layers", "events")),
    "effective": (("parameters",), ("gap", "spread")),
    # With a side bar there is room for how it was computed.
    "effective+": (("parameters", "gap"), ("spread", "method")),
    "kernel": (("kernel", "spectrum"), ("course", "pair")),
    "kernel+": (("kernel", "spectrum"), ("course", "pair", "kernel method")),
    "averaging": (("blend", "blend train"), ("single layers", "curvature")),
    # With a side bar there is room for the forks.
    "averaging+": (("blend", "blend train"), ("sweep", "since"), ("single layers", "curvature")),
    "forks": (("sweep", "since"), ("drift", "stable")),
    "along": (("run course", "run course train"), ("candidates",)),
    "layers": (("layer map", "layer course"), ("layer values", "within")),
    "layers+": (("layer map", "layer course"), ("layer values",), ("within", "layer method")),
    "regime": (("moved", "turned"), ("modes", "learning")),
    "regime+": (("moved", "turned"), ("modes",), ("learning", "regime method")),
    "collapse": (("nc1", "nc2"), ("nc3", "nc4")),
    "collapse+": (("nc1", "nc2"), ("nc3", "nc4"), ("collapse", "collapse method")),
    "browser": (("traces",), ("loss", "recorded")),
}
# Shares of the height and width where they are not even.
_HEIGHTS = {
    "telescoping": (0.56, 0.44),
    "effective": (0.5, 0.5),
    "kernel": (0.58, 0.42),
    "examples": (0.6, 0.4),
    "example": (0.4, 0.3, 0.3),
    "layers+": (0.4, 0.3, 0.3),
    "browser": (0.54, 0.46),
}
_WIDTHS = {
    ("layers", "events"): 0.64,
    ("influence", "visits"): 0.58,
    ("outputs", "picture"): 0.62,
    ("contribution", "neighbours"): 0.58,
    ("layer map", "layer course"): 0.54,
    ("layer values", "within"): 0.6,
    ("modes", "learning"): 0.42,
}


def names(view: str, size: Tier) -> tuple[str, ...]:
    """Return the panes of a view, in the order of `tab`."""
    view = _grid(view, size)
    inner = tuple(name for row in _VIEWS[view] for name in row)
    return ("traces", "recorded", *inner) if view != "browser" and size >= Tier.SIDEBAR else inner


def _grid(view: str, size: Tier) -> str:
    """Return the grid that a view has with so much room."""
    if view == "overview" and size is Tier.COMPOSITE:
        return "composite"
    return f"{view}+" if f"{view}+" in _VIEWS and size >= Tier.SIDEBAR else view


def arrange(view: str, width: int, height: int, only: str | None = None) -> dict[str, Rect]:
    """Return the rectangle of each pane of a view.

    Args:
        view: overview, telescoping, effective, kernel, boosting, averaging, forks, along, layers,
            regime, collapse, examples, example or browser.
        width: Columns of the terminal.
        height: Rows of the terminal.
        only: The pane that has the whole room: a maximised one, or the focused one in a small terminal.
    """
    size = tier(width, height)
    first, rows = top(size), max(1, height - top(size) - bottom(size))
    if view == "browser":
        # The browser has neither tabs nor scrubber.
        first, rows = 1, max(1, height - (2 if size is Tier.SMALL else 3))
    if only is not None:
        return {only: Rect(0, first, width, rows)}
    view = _grid(view, size)
    left, placed = 0, {}
    if size >= Tier.SIDEBAR and view != "browser":
        left = SIDE
        upper = rows // 2
        placed["traces"] = Rect(0, first, SIDE, upper)
        placed["recorded"] = Rect(0, first + upper, SIDE, rows - upper)
    grid = _VIEWS[view]
    y = first
    for line, tall in zip(grid, _split(rows, _HEIGHTS.get(view, (1.0,) * len(grid))), strict=True):
        shares = (
            (_WIDTHS[line], 1 - _WIDTHS[line]) if len(line) == 2 and line in _WIDTHS else (1.0,) * len(line)
        )
        x = left
        for name, wide in zip(line, _split(width - left, shares), strict=True):
            placed[name] = Rect(x, y, wide, tall)
            x += wide
        y += tall
    return placed


def _split(total: int, shares: Sequence[float]) -> list[int]:
    edges = [0]
    for index in range(len(shares)):
        edges.append(round(total * sum(shares[: index + 1]) / sum(shares)))
    return [stop - start for start, stop in pairwise(edges)]
