"""The options of the metric `effective-params`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tscope_format.errors import UsageError, clean

FORMS = ("auto", "kernel", "parameter", "probes")
DECAYS = ("propagated", "frozen")


@dataclass(frozen=True)
class Options:
    """The options of the metric.

    Attributes:
        form: How the smoother is computed: `kernel` and `parameter` are exact, `probes` estimates; `auto`
            takes the cheapest exact form that is valid for the optimizer and fits in memory, else probes.
        rtol: Probes are added until the standard error is below this share of the estimate.
        max_memory_mb: Bound on the state of the recursion, and on the memory of one pass over the points.
        probe: The held-out examples: a probe set of the trace by name, or an `.npz`. Default: the first that
            is not in-sample; without one only training rows are measured.
        test: Use so many of the held-out examples, drawn with `seed`. Default: all of them.
        seed: Of the probes, of the drawn held-out examples and of the perturbed labels.
        every: Keep every so many rows. The recursion itself takes every recorded step.
        loss: The training loss: auto (inferred from the trace), mse, cross_entropy or bce.
        labels: An `.npz` with the training examples (x, as the model got them) and their labels (y). Default:
            inferred from the trace.
        decay: Whether weight decay acts on label-dependent parameters (`propagated`) or on the recorded ones.
        dtype: "float32" or "float64" for the replay.
        workers: Processes that compute: kernel blocks of several steps, or parts of the columns. They share
            `max_memory_mb`, but each holds the examples.
        smoother: Optimizer steps, comma-separated, or `last`: the smoother S itself is kept at these. Needs
            an exact form.
    """

    form: str = "auto"
    rtol: float = 0.05
    max_memory_mb: float = 2048
    probe: str | None = None
    test: int | None = None
    seed: int = 0
    every: int = 1
    loss: str = "auto"
    labels: str | None = None
    decay: str = "propagated"
    dtype: str | None = None
    workers: int = 1
    smoother: str | None = None

    def __post_init__(self) -> None:
        _choice("form", self.form, FORMS)
        _choice("loss", self.loss, ("auto", "mse", "cross_entropy", "bce"))
        _choice("decay", self.decay, DECAYS)
        _choice("dtype", self.dtype, (None, "float32", "float64"))
        if not 0 < self.rtol < 1:
            raise UsageError(f"rtol must lie between 0 and 1, got {self.rtol}")
        if self.max_memory_mb <= 0:
            raise UsageError(f"max_memory_mb must be positive, got {self.max_memory_mb}")
        if self.test is not None and self.test < 1:
            raise UsageError(f"test must be at least 1, got {self.test}")
        if self.every < 1:
            raise UsageError(f"every must be at least 1, got {self.every}")
        if not 1 <= self.workers <= 1024:
            raise UsageError(f"workers must lie between 1 and 1024, got {self.workers}")
        if self.smoother is not None and not re.fullmatch(r"last|\d+(,\d+)*", self.smoother):
            raise UsageError(
                f"smoother must be `last` or steps separated by commas, got {clean(self.smoother)!r}"
            )
        if self.smoother is not None and self.form == "probes":
            raise UsageError("probes give no smoother: leave out `--form probes` or `--smoother`")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must lie between 0 and 2**63 - 1, got {self.seed}")


def _choice(name: str, value: object, known: tuple[str | None, ...]) -> None:
    if value not in known:
        listed = ", ".join(entry for entry in known if entry is not None)
        raise UsageError(f"unknown {name} {clean(value)!r}; there is {listed}")
