"""Charts as text: numpy in, rows of characters out, no terminal library.

`chart` gives plain lines (also for the command line); `draw` and `Plot.frame` give the same rows with a role
per run of characters, which the terminal interface colours. Every function here is pure.
"""

from tscope_tui.plot.axis import Axis, axis_over, compact
from tscope_tui.plot.bars import bar, sparkline
from tscope_tui.plot.chart import Frame, Plot, Role, Run, chart, draw, legend
from tscope_tui.plot.series import DASHES, Dash, Series
from tscope_tui.plot.svg import svg

__all__ = [
    "DASHES",
    "Axis",
    "Dash",
    "Frame",
    "Plot",
    "Role",
    "Run",
    "Series",
    "axis_over",
    "bar",
    "chart",
    "compact",
    "draw",
    "legend",
    "sparkline",
    "svg",
]
