"""The options of the metric `kernel`."""

from __future__ import annotations

from dataclasses import dataclass

from tscope_format.errors import UsageError, clean

from tscope.analyses.checked import (
    check_counts,
    check_loss,
    check_replay,
    check_rows,
    check_seed,
    check_steps,
)

FORMS = ("auto", "exact", "sketch")


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
        check_steps(at=self.at, matrix=self.matrix)
        check_rows(self.at, self.every)
        if self.form not in FORMS:
            raise UsageError(f"unknown form {clean(self.form)!r} of kernel; there is {', '.join(FORMS)}")
        if self.form == "sketch" and self.preconditioned:
            raise UsageError("preconditioned kernels are exact ones: sketches know nothing of D")
        check_counts(every=self.every, train=self.train, test=self.test, eigenvalues=self.eigenvalues)
        if self.probe_output in ("auto", "logprob", "loss"):
            raise UsageError(
                f"a tangent kernel is of the model's outputs, not of {self.probe_output}: probe_output must "
                "be full, or positions such as 3, 0,4,7 or 0:16"
            )
        check_loss(self.loss)
        check_replay(self.dtype, self.max_memory_mb)
        check_seed(self.seed)
