"""A result drawn in the terminal: the chart of its first panel and bars for its layers, as plain lines."""

from __future__ import annotations

import numpy as np
from tscope_format import Result
from tscope_tui.plot import Dash, Series, bar, chart
from tscope_tui.plot import draw as plot
from tscope_tui.plot.chart import legend_parts

from tscope_cli.numerals import percent
from tscope_cli.readings import layers, series
from tscope_cli.views import drawn, view_of

HEIGHT = 14
_DASHES: dict[str, Dash] = {"actual": "solid", "telescoped": "solid", "lazy": "dot"}
# One colour for each of the three, whatever else a chart shows.
_HUES = {"actual": 0, "telescoped": 1, "lazy": 2}
_LAYERS = 8
_COLOURS = (36, 33, 35, 32, 34, 31)  # of the terminal's own palette: it suits its background


def draw(result: Result, width: int, *, ascii: bool, colour: bool = False) -> list[str]:
    """Return the chart of a result's first panel as lines, `width` columns wide; none if it has no panel.

    With `colour` the curves carry terminal colours; their dashes tell them apart without.
    """
    view = view_of(result)
    if not view.panels or result.arrays[view.coordinate].data.size < 2:
        return []
    panel = view.panels[0]
    steps = series(result, view.coordinate)
    curves = [
        Series(
            curve.title,
            steps,
            drawn(result, panel, curve),
            _DASHES.get(curve.title, "solid"),
            _HUES.get(curve.title),
        )
        for curve in panel.curves
    ]
    if not colour:
        return chart(curves, width, HEIGHT, log_y=panel.log, ascii=ascii, title=panel.title)
    frame = plot(curves, width, HEIGHT - 1, log_y=panel.log, ascii=ascii).frame()
    key = "  ".join(_paint(text, index) for text, index in legend_parts(curves, ascii=ascii))
    return [
        f"{panel.title}   {key}",
        *("".join(_paint(run.text, run.role) for run in row) for row in frame.rows),
    ]


def _paint(text: str, role: int) -> str:
    """Return text in the colour of a curve, by the colour's number; axes (below 0) are left as they are."""
    return f"\x1b[{_COLOURS[role % len(_COLOURS)]}m{text}\x1b[0m" if role >= 0 else text


def bars(result: Result, width: int, *, ascii: bool) -> list[str]:
    """Return one bar for each layer's share: of the predictions' motion, or of the kernel's trace."""
    if "contribution" in result.arrays:
        parts = np.nansum(np.asarray(result.arrays["contribution"].data, dtype=np.float64), axis=0)
        title = "share of the summed ‖J Δθ‖, by layer"
    elif "share_trace_train" in result.arrays:
        parts = np.nan_to_num(np.asarray(result.arrays["share_trace_train"].data, dtype=np.float64)[-1])
        title = "share of the kernel's trace at the last step, by layer"
    else:
        return []
    total = float(parts.sum())
    if not total > 0:
        return []
    names = layers(result, parts.size)
    order = np.argsort(-parts, kind="stable")[:_LAYERS]
    label = min(max(len(names[layer]) for layer in order), width // 2)
    room = max(4, width - label - 12)
    lines = [
        f"  {names[layer][:label]:{label}} {bar(float(parts[layer] / parts[order[0]]), room, ascii=ascii)} "
        f"{percent(float(parts[layer]) / total):>6}"
        for layer in order
    ]
    rest = parts.size - len(order)
    return [title, *lines, *([f"  and {rest} more layers"] if rest else [])]
