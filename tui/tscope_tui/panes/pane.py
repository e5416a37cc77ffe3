"""What every pane can do, and what it is told when it is drawn."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tscope_tui.data.table import Table
from tscope_tui.panes.box import Look
from tscope_tui.plot import Plot, Series, draw
from tscope_tui.spans import Line


class PlotCache:
    """The last drawn plots: moving a cursor over four panes must not draw four charts again."""

    def __init__(self, most: int = 16) -> None:
        self._most = most
        self._plots: OrderedDict[tuple[object, ...], tuple[tuple[object, ...], Plot]] = OrderedDict()

    def plot(
        self,
        series: Sequence[Series],
        width: int,
        height: int,
        *,
        log_x: bool,
        log_y: bool,
        x_range: tuple[float, float] | None,
        x_labels: bool,
        ascii: bool,
    ) -> Plot:
        """Return the plot of these very arrays, drawn now or before."""
        # The arrays are kept beside the plot: an id stays theirs only as long as they live.
        arrays = tuple(array for one in series for array in (one.x, one.y, one.error))
        look = (width, height, log_x, log_y, x_range, x_labels, ascii)
        key = (*map(id, arrays), *(one.label + one.dash for one in series), *look)
        if key not in self._plots:
            plot = draw(
                series,
                width,
                height,
                log_x=log_x,
                log_y=log_y,
                x_range=x_range,
                x_labels=x_labels,
                ascii=ascii,
            )
            self._plots[key] = arrays, plot
            if len(self._plots) > self._most:
                self._plots.popitem(last=False)
        self._plots.move_to_end(key)
        return self._plots[key][1]


@dataclass(frozen=True)
class Draw:
    """How a pane is to be drawn.

    Attributes:
        look: The look of the screen.
        focused: The pane has the focus.
        cursor: The step of the scrubber.
        crosshair: The cursor is read out.
        window: The steps in sight, the same in every pane; those of its own curves when None.
        zoomed: They are not all steps, so a chart has an axis of its own.
        band: The marked range of steps.
        log_x: Logarithmic steps.
        log_y: Logarithmic values; None leaves the choice to the pane.
        cache: Where drawn plots are kept.
    """

    look: Look = field(default_factory=Look)
    focused: bool = False
    cursor: float | None = None
    crosshair: bool = False
    window: tuple[float, float] | None = None
    zoomed: bool = False
    band: tuple[float, float] | None = None
    log_x: bool = False
    log_y: bool | None = None
    cache: PlotCache = field(default_factory=PlotCache)


class Pane(Protocol):
    """One rectangle of the screen."""

    def lines(self, width: int, height: int, draw: Draw) -> list[Line]:
        """Return exactly `height` lines of `width` columns, frame included."""
        ...

    def table(self) -> Table:
        """Return the numbers that the pane shows."""
        ...
