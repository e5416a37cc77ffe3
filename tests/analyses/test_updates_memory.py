"""How much memory the walk back takes: every allocation of torch is counted, none is timed or sampled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import tscope
from tests.optimizers.recorded import data, epochs, train
from tscope.analyses.updates import analysis, influence

OUTPUTS, HIDDEN = 3, 1500
MEMORY = 12.0  # MB


def peak(call: Callable[[], Any]) -> tuple[Any, int]:
    """Return what a call returns, and the most bytes that torch held for it at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        result = call()
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return result, int(np.cumsum([event.nbytes() for event in events]).max())


def test_the_walk_back_holds_what_was_estimated_and_no_more(tmp_path, monkeypatch):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, OUTPUTS)).double()
    parameters = sum(value.numel() for value in module.parameters())
    trace = train(
        tmp_path / "run.zarr",
        module,
        torch.optim.Adam(module.parameters(), lr=1e-3),
        epochs(*data(OUTPUTS), size=4, count=3),
        nn.functional.mse_loss,
    )
    np.savez(tmp_path / "held.npz", x=torch.randn(2, 4, dtype=torch.float64).numpy())
    peaks = []

    def counted(*arguments):
        found, most = peak(lambda: influence.trace_back(*arguments))
        peaks.append(most)
        return found

    monkeypatch.setattr(analysis, "trace_back", counted)
    tscope.analyze(
        trace, "updates", probe=str(tmp_path / "held.npz"), influence="all", max_memory_mb=MEMORY, save=False
    )
    # Both examples are traced in one walk, which is in two pieces: 8 steps fit their part of the memory.
    rows, steps = 2 * OUTPUTS * parameters * 8, 8 * parameters * 8
    assert rows <= influence._ROWS * MEMORY * 1e6 / influence._COPIES < 2 * rows
    assert int(influence._STEPS * MEMORY * 1e6 / (influence._KEPT * parameters * 8)) == 8
    assert len(peaks) == 1
    # J, Λ and the directions are there at once; of the steps, θ and Adam's diagonal.
    assert 4 * rows < peaks[0] <= influence._COPIES * rows + 2 * steps
