"""The options of the metric `updates`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tscope_format.errors import UsageError, clean


@dataclass(frozen=True)
class Options:
    """The options of the metric.

    Attributes:
        probe: A probe set of the trace by name, or an `.npz` of examples. Default: the first that is not
            in-sample, else the first.
        steps: The optimizer steps to look at, "FIRST-LAST" with both included, or a single one. Default: all.
        every: Take so many steps together: J where the interval begins, times each term's sum over it.
        layers: Tell apart what each layer adds to a term.
        influence: The probe examples whose change is traced to training examples: "none", "all", or their
            numbers, "0,3,17". Default: the first eight.
        top: How many training examples are named for each row and traced probe example.
        probe_output: Which functional of the output to follow: auto, full, logprob, loss, INDEX.
        dtype: "float32" or "float64" for the replay.
        max_memory_mb: Bound on the memory of one pass over the probe set, and of the walk back.
        full: Keep every term of every row for every example and output.
    """

    probe: str | None = None
    steps: str | None = None
    every: int = 1
    layers: bool = True
    influence: str | None = None
    top: int = 5
    probe_output: str | None = None
    dtype: str | None = None
    max_memory_mb: float = 512
    full: bool = False

    def __post_init__(self) -> None:
        if self.steps is not None and re.fullmatch(r"[0-9]+(-[0-9]+)?", self.steps) is None:
            raise UsageError(f"steps must be FIRST-LAST or a single step, got {clean(self.steps)!r}")
        if self.every < 1:
            raise UsageError(f"every must be at least 1, got {self.every}")
        if self.top < 1:
            raise UsageError(f"top must be at least 1, got {self.top}")
        if self.influence not in (None, "none", "all") and not re.fullmatch(
            r"[0-9]+(,[0-9]+)*", str(self.influence)
        ):
            raise UsageError(
                "influence must be none, all, or numbers of probe examples such as 0,3,17, got "
                f"{clean(self.influence)!r}"
            )
        if self.dtype not in (None, "float32", "float64"):
            raise UsageError(f"unknown dtype {clean(self.dtype)!r}; there is float32, float64")
        if self.max_memory_mb <= 0:
            raise UsageError(f"max_memory_mb must be positive, got {self.max_memory_mb}")

    @property
    def bounds(self) -> tuple[int, int] | None:
        """The first and the last step of `steps`; None for all."""
        if self.steps is None:
            return None
        first, _, last = self.steps.partition("-")
        return int(first), int(last or first)
