"""The options of the metric `gradients`."""

from __future__ import annotations

from dataclasses import dataclass

from tscope_format.errors import UsageError

from tscope.analyses.checked import check_counts, check_replay, check_rows, check_seed, check_steps


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
        recalibrate: Compute BatchNorm's statistics anew for each row, on the training examples.
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
    recalibrate: bool = True
    dtype: str | None = None
    max_memory_mb: float = 1024

    def __post_init__(self) -> None:
        check_steps(since=self.since, at=self.at)
        check_rows(self.at, self.every)
        check_counts(every=self.every, train=self.train, test=self.test)
        if not self.stable > 0:
            raise UsageError(f"stable must be a share above 0, got {self.stable}")
        if self.probe_output in ("auto", "logprob", "loss"):
            raise UsageError(
                f"these gradients are of the model's outputs, not of {self.probe_output}: probe_output must "
                "be full, or positions such as 3, 0,4,7 or 0:16"
            )
        check_replay(self.dtype, self.max_memory_mb)
        check_seed(self.seed)
