"""How often events are found in noise: `python -m tests.analyses.event_noise` prints the docs' rates."""

from __future__ import annotations

import numpy as np

from tests.analyses.event_curves import NOISES, falling, fit, sigmoid
from tscope.analyses.events.losses import divergence, spikes
from tscope.analyses.events.onsets import grokking, interpolation
from tscope.analyses.events.peaks import jump, peak

SEEDS, ROWS = 1000, 1000
_SURE = 0.99


def rates(name: str, seeds: int = SEEDS) -> dict[str, float]:
    """Return the share of runs of noise in which each kind of event is found.

    A loss falls by a factor of 50, or stays, times e^(0.3·noise); accuracies of 500 examples are
    0.5 + 0.1·noise; effective parameters 100 + 10·noise in 200 or 25 rows, alignments 0.5 + 0.1·noise in 25
    rows on a logarithmic scale.
    """
    steps = np.arange(1, ROWS + 1)
    few = np.r_[0, np.unique(np.geomspace(1, ROWS, 26).round().astype(int))]
    fitted = interpolation(fit(steps, sigmoid(steps, 20, 0.1), 500), 0.99, _SURE)
    assert fitted is not None
    found: dict[str, int] = {}

    def count(event: str, happened: bool) -> None:
        found[event] = found.get(event, 0) + happened

    for seed in range(seeds):
        random = np.random.default_rng(seed)
        noise = NOISES[name]
        for course, level in (("falling", falling(ROWS)), ("flat", np.ones(ROWS))):
            loss = level * np.exp(0.3 * noise(random, ROWS))
            count(f"loss spike, {course} loss", bool(spikes(steps, loss, 2.0, _SURE)))
            count(f"divergence, {course} loss", divergence(steps, loss, 10.0, _SURE) is not None)
        accuracy = fit(steps, np.clip(0.5 + 0.1 * noise(random, ROWS), 0, 1), 500)
        count("interpolation", interpolation(accuracy, 0.99, _SURE) is not None)
        count("grokking", grokking(fitted, accuracy, 0.2, _SURE) is not None)
        for rows in (200, 25):
            p = 100 + 10 * noise(random, rows)
            event = peak(np.arange(rows), p, np.zeros(rows), "training", _SURE)
            count(f"effective-parameter peak, {rows} rows", event is not None)
        alignment = 0.5 + 0.1 * noise(random, len(few))
        count(f"alignment jump, {len(few)} rows", jump(few, alignment, _SURE) is not None)
    return {event: hits / seeds for event, hits in found.items()}


if __name__ == "__main__":
    for kind in NOISES:
        for event, rate in rates(kind).items():
            print(f"{kind:12} {event:40} {rate:.3f}")
