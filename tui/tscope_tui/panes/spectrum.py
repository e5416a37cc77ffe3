"""The largest eigenvalues of the kernel at the cursor's step, over those at the start."""

from __future__ import annotations

import functools

import numpy as np

from tscope_tui.data.kernel import Kernel
from tscope_tui.panes.relation import RelationPane
from tscope_tui.plot import Series


def spectrum_pane(kernel: Kernel, step: float) -> RelationPane:
    """Return the eigenvalues by rank at the last row at or before a step, both on logarithmic axes."""
    return _pane(kernel, kernel.row(step))


@functools.lru_cache(maxsize=8)
def _pane(kernel: Kernel, row: int) -> RelationPane:
    """Cached, so that a chart is not drawn anew as long as its row is the same."""
    ranks = np.arange(1, kernel.eigenvalues.shape[1] + 1)
    step = int(kernel.step[row])
    now = Series("now", ranks, kernel.eigenvalues[row])
    start = Series("start", ranks, kernel.eigenvalues[0], "dot")
    curves = (now, start) if row else (now,)
    return RelationPane("spectrum", f"λ @{step:,} (log-log)", "rank", curves, True, True, step)
