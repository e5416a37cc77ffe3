"""The largest eigenvalues of the kernel at the cursor's step, over those at the start."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from tscope_tui.data.kernel import Kernel
from tscope_tui.data.table import Table
from tscope_tui.panes.box import box
from tscope_tui.panes.chart import spans_of
from tscope_tui.panes.pane import Draw
from tscope_tui.plot import Series
from tscope_tui.plot.chart import legend_parts
from tscope_tui.spans import Line, Span, wrap


@dataclass(frozen=True, eq=False)
class SpectrumPane:
    """Eigenvalues by rank, both on logarithmic axes.

    Attributes:
        series: The eigenvalues (eigenvalue,) at the cursor's row and at the first, over their ranks.
        step: The row's step.
        empty: What to say, and what would provide the data, when there are none.
    """

    series: tuple[Series, ...]
    step: int
    empty: tuple[str, ...] = ()

    def lines(self, width: int, height: int, draw: Draw) -> list[Line]:
        """Return the chart in its frame."""
        if not self.series:
            title = [Span("spectrum", "title")]
            told: list[Line] = [
                (Span(" " + line, "dim"),) for text in self.empty for line in wrap(text, max(4, width - 4))
            ]
            return box(title, told, width, height, draw.look, focused=draw.focused)
        title = [Span(f"λ @{self.step:,} (log-log)", "title")]
        plot = draw.cache.plot(
            self.series,
            max(1, width - 2),
            max(1, height - 2),
            log_x=True,
            log_y=True,
            x_range=None,
            x_labels=height > 6,
            ascii=draw.look.ascii,
        )
        for text, hue in legend_parts(self.series, ascii=draw.look.ascii):
            title += [Span(" "), Span(text, f"series{hue % 8}")]
        return box(
            title,
            spans_of(plot.frame()),
            width,
            height,
            draw.look,
            focused=draw.focused,
            foot="; ".join(plot.notes),
        )

    def table(self) -> Table:
        """Return one row an eigenvalue."""
        if not self.series:
            return Table("spectrum", {})
        x, _ = self.series[0].points
        columns = {one.label: one.points[1].tolist() for one in self.series}
        return Table("spectrum", {"rank": [int(rank) for rank in x], **columns})

    def at(self) -> str:
        """Return the table, tab separated."""
        table = self.table()
        return "\n".join("\t".join(map(str, row)) for row in (tuple(table.columns), *table.rows)) + "\n"


def spectrum_pane(kernel: Kernel, step: float) -> SpectrumPane:
    """Return the pane at the last row at or before a step."""
    return _pane(kernel, kernel.row(step))


@functools.lru_cache(maxsize=8)
def _pane(kernel: Kernel, row: int) -> SpectrumPane:
    """Cached, so that a chart is not drawn anew as long as its row is the same."""
    ranks = np.arange(1, kernel.eigenvalues.shape[1] + 1)
    now = Series("now", ranks, kernel.eigenvalues[row])
    start = Series("start", ranks, kernel.eigenvalues[0], "dot")
    return SpectrumPane((now, start) if row else (now,), int(kernel.step[row]))
