"""Writing what a pane shows to files in the working directory."""

from __future__ import annotations

import re
from pathlib import Path

from tscope_tui.panes.chart import ChartPane
from tscope_tui.panes.pane import Pane
from tscope_tui.panes.relation import RelationPane
from tscope_tui.plot import svg


def export(
    pane: Pane, run: str, folder: Path, *, log_x: bool, log_y: bool, window: tuple[float, float] | None
) -> list[Path]:
    """Write a pane as CSV and JSON, and a chart as SVG too; an earlier export is never overwritten.

    Raises:
        OSError: The folder cannot be written.
    """
    table = pane.table()
    texts = {".csv": table.csv(), ".json": table.json()}
    if isinstance(pane, ChartPane) and pane.series:
        texts[".svg"] = svg(
            pane.series, title=f"{run}: {pane.name}", log_x=log_x, log_y=log_y, x_range=window
        )
    elif isinstance(pane, RelationPane) and pane.series:
        # Over something else than steps, the steps in sight and their scale say nothing.
        texts[".svg"] = svg(pane.series, title=f"{run}: {pane.title}", log_x=pane.log_x, log_y=log_y)
    stem = _free(folder, re.sub(r"[^\w.-]+", "-", f"{run}-{table.name}").strip("-."), list(texts))
    written = []
    for suffix, text in texts.items():
        path = folder / (stem + suffix)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def _free(folder: Path, stem: str, suffixes: list[str]) -> str:
    candidate, count = stem, 1
    while any((folder / (candidate + suffix)).exists() for suffix in suffixes):
        count += 1
        candidate = f"{stem}-{count}"
    return candidate


def told(paths: list[Path]) -> str:
    """Return one line that says where an export went."""
    first, *rest = paths
    return f"wrote {first}" + "".join(f", {path.suffix}" for path in rest)
