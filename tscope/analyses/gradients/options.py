"""The options of the metric `gradients`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tscope_format.errors import UsageError, clean

_STEPS = re.compile(r"(\d+|last)(,(\d+|last))*")


@dataclass(frozen=True)
class Options:
    """The options of the metric.

    Attributes:
        since: The steps t' that later gradients are compared with: optimizer steps, comma-separated. Default:
            step 0 and some five more, evenly spaced on a logarithmic scale.
        at: The later steps, comma-separated, `last` among them. Default: some 13, evenly spaced on a
            logarithmic scale, and those of `since`.
        every: Every so many rows instead.
        stable: Gradients count as stable from t' on where they change by no more than this share.
        train: Use so many training examples, drawn with `seed`. Default: 64, fewer with many outputs.
        test: Use so many held-out examples; likewise.
        probe: The held-out examples: a probe set of the trace by name, or an `.npz`. Default: the first that
            is not in-sample; without one only training examples are measured.
        probe_output: The outputs to take: full, or positions such as 3, 0,4,7 or 0:16. Default: full.
        seed: Of the drawn examples.
        dtype: "float32" or "float64" for the gradients; sums are in float64.
        max_memory_mb: Bound on the gradients and parameters that are held at once.
    """

    since: str | None = None
    at: str | None = None
    every: int | None = None
    stable: float = 0.1
    train: int | None = None
    test: int | None = None
    probe: str | None = None
    probe_output: str | None = None
    seed: int = 0
    dtype: str | None = None
    max_memory_mb: float = 1024

    def __post_init__(self) -> None:
        for name in ("since", "at"):
            value = getattr(self, name)
            if value is not None and not _STEPS.fullmatch(value):
                raise UsageError(f"{name} must be steps separated by commas, or `last`; got {clean(value)!r}")
        if self.at is not None and self.every is not None:
            raise UsageError("at and every both choose the rows; leave out one of the two")
        for name in ("every", "train", "test"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}")
        if not self.stable > 0:
            raise UsageError(f"stable must be a share above 0, got {self.stable}")
        if self.probe_output in ("auto", "logprob", "loss"):
            raise UsageError(
                f"these gradients are of the model's outputs, not of {self.probe_output}: probe_output must "
                "be full, or positions such as 3, 0,4,7 or 0:16"
            )
        if self.dtype not in (None, "float32", "float64"):
            raise UsageError(f"unknown dtype {clean(self.dtype)!r}; there is float32, float64")
        if self.max_memory_mb <= 0:
            raise UsageError(f"max_memory_mb must be positive, got {self.max_memory_mb}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must lie between 0 and 2**63 - 1, got {self.seed}")
