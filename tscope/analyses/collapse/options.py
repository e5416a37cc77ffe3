"""The options of the metric `neural-collapse`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tscope_format.errors import UsageError, clean

_LOSSES = ("auto", "mse", "cross_entropy", "bce")
_STEPS = re.compile(r"(\d+|last)(,(\d+|last))*")


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
        if self.at is not None and not _STEPS.fullmatch(self.at):
            raise UsageError(f"at must be steps separated by commas, or `last`; got {clean(self.at)!r}")
        if self.at is not None and self.every is not None:
            raise UsageError("at and every both choose the rows; leave out one of the two")
        for name in ("every", "train", "test"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}")
        if self.loss not in _LOSSES:
            raise UsageError(f"unknown loss {clean(self.loss)!r}; there is {', '.join(_LOSSES)}")
        if self.dtype not in (None, "float32", "float64"):
            raise UsageError(f"unknown dtype {clean(self.dtype)!r}; there is float32, float64")
        if self.max_memory_mb <= 0:
            raise UsageError(f"max_memory_mb must be positive, got {self.max_memory_mb}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must lie between 0 and 2**63 - 1, got {self.seed}")
