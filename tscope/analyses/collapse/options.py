"""The options of the metric `neural-collapse`."""

from __future__ import annotations

from dataclasses import dataclass

from tscope.analyses.checked import (
    check_counts,
    check_loss,
    check_replay,
    check_rows,
    check_seed,
    check_steps,
)


@dataclass(frozen=True)
class Options:
    """The options of the metric.

    Attributes:
        at: Optimizer steps, comma-separated, `last` among them; step 0 is always taken. Default: some 25
            rows, evenly spaced on a logarithmic scale.
        every: Every so many rows instead.
        train: Use so many training examples, drawn with `seed`. Default: all.
        test: Use so many held-out examples; likewise.
        probe: The held-out examples: a probe set of the trace by name, or an `.npz`. Default: the first that
            is not in-sample; without one only training examples are measured.
        seed: Of the drawn examples.
        loss: The training loss, of which the classes are inferred: auto, mse, cross_entropy or bce.
        labels: An `.npz` with the training examples (x, as the model got them) and their labels (y). Default:
            inferred from the trace.
        dtype: "float32" or "float64" for the features; what is derived from them is computed in float64.
        max_memory_mb: Bound on the memory of one pass over the examples.
    """

    at: str | None = None
    every: int | None = None
    train: int | None = None
    test: int | None = None
    probe: str | None = None
    seed: int = 0
    loss: str = "auto"
    labels: str | None = None
    dtype: str | None = None
    max_memory_mb: float = 512

    def __post_init__(self) -> None:
        check_steps(at=self.at)
        check_rows(self.at, self.every)
        check_counts(every=self.every, train=self.train, test=self.test)
        check_loss(self.loss)
        check_replay(self.dtype, self.max_memory_mb)
        check_seed(self.seed)
