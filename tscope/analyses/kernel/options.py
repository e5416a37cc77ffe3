"""The options of the metric `kernel`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tscope_format.errors import UsageError, clean

FORMS = ("auto", "exact", "sketch")
_LOSSES = ("auto", "mse", "cross_entropy", "bce")
_STEPS = re.compile(r"(\d+|last)(,(\d+|last))*")


@dataclass(frozen=True)
class Options:
    """The options of the metric.

    Attributes:
        at: Optimizer steps, comma-separated, `last` among them. Step 0 is always taken: kernels are compared
            with it. Default: some 25 rows, evenly spaced on a logarithmic scale.
        every: Every so many rows instead.
        form: exact, from the parameters; sketch, an estimate from what `record --sketch` kept of a probe set;
            auto: exact where the parameters are known at the rows asked for.
        preconditioned: Take K^D = J D Jᵀ with the preconditioner D that the optimizer's next step used.
        train: Use so many training examples, drawn with `seed`. Default: 256, fewer with many outputs.
        test: Use so many held-out examples; likewise.
        probe: The held-out examples: a probe set of the trace by name, or an `.npz`. Default: the first that
            is not in-sample; without one only training examples are measured.
        probe_output: The outputs to take: full, or positions such as 3, 0,4,7 or 0:16. Default: full.
        seed: Of the drawn examples.
        eigenvalues: Keep so many of the largest eigenvalues.
        layers: Compute each layer's share of every series.
        matrix: Keep the matrix itself at these of the rows: optimizer steps, comma-separated, or `last`.
        loss: The training loss, of which the labels are inferred: auto, mse, cross_entropy or bce.
        labels: An `.npz` with the training examples (x, as the model got them) and their labels (y). Default:
            inferred from the trace.
        dtype: "float32" or "float64" for the kernels; what is derived from them is computed in float64.
        max_memory_mb: Bound on the matrices, and on the memory of one pass over the examples.
    """

    at: str | None = None
    every: int | None = None
    form: str = "auto"
    preconditioned: bool = False
    train: int | None = None
    test: int | None = None
    probe: str | None = None
    probe_output: str | None = None
    seed: int = 0
    eigenvalues: int = 10
    layers: bool = True
    matrix: str | None = None
    loss: str = "auto"
    labels: str | None = None
    dtype: str | None = None
    max_memory_mb: float = 2048

    def __post_init__(self) -> None:
        for name in ("at", "matrix"):
            value = getattr(self, name)
            if value is not None and not _STEPS.fullmatch(value):
                raise UsageError(f"{name} must be steps separated by commas, or `last`; got {clean(value)!r}")
        if self.at is not None and self.every is not None:
            raise UsageError("at and every both choose the rows; leave out one of the two")
        if self.form not in FORMS:
            raise UsageError(f"unknown form {clean(self.form)!r} of kernel; there is {', '.join(FORMS)}")
        if self.form == "sketch" and self.preconditioned:
            raise UsageError("preconditioned kernels are exact ones: sketches know nothing of D")
        for name in ("every", "train", "test", "eigenvalues"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}")
        if self.probe_output in ("auto", "logprob", "loss"):
            raise UsageError(
                f"a tangent kernel is of the model's outputs, not of {self.probe_output}: probe_output must "
                "be full, or positions such as 3, 0,4,7 or 0:16"
            )
        if self.loss not in _LOSSES:
            raise UsageError(f"unknown loss {clean(self.loss)!r}; there is {', '.join(_LOSSES)}")
        if self.dtype not in (None, "float32", "float64"):
            raise UsageError(f"unknown dtype {clean(self.dtype)!r}; there is float32, float64")
        if self.max_memory_mb <= 0:
            raise UsageError(f"max_memory_mb must be positive, got {self.max_memory_mb}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must lie between 0 and 2**63 - 1, got {self.seed}")
