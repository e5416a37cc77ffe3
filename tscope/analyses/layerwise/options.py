"""The options of the metric `layers`."""

from __future__ import annotations

from dataclasses import dataclass

from tscope_format.errors import UsageError, clean

from tscope.analyses.checked import check_counts, check_loss, check_replay

PARTS = ("norms", "spectra", "contributions", "steps", "balance")


@dataclass(frozen=True)
class Options:
    """The options of the metric.

    Attributes:
        parts: What to compute, comma-separated: norms, spectra (singular values), contributions (to the
            change of predictions and of the loss on the probe set), steps (the change of the batches' own
            losses), balance (of consecutive linear layers). Default: all that the trace allows.
        every: Take every so many rows, each standing for the interval that ends there. Default: so many that
            at most 200 are taken.
        singular_values: Keep so many of the largest of each matrix.
        probe: The examples whose change is taken apart: a probe set of the trace by name, or an `.npz`.
            Default: the first that is not in-sample, else the first.
        probe_output: Which functional of the output to follow: auto, full, logprob, loss, INDEX.
        loss: The training loss, of which that of the probe set is made: auto, mse, cross_entropy or bce.
        labels: An `.npz` with the training examples (x) and their labels (y), if the loss cannot be inferred.
        dtype: "float32" or "float64" for the replay; norms, spectra and balance are computed in float64.
        max_memory_mb: Bound on the memory of one pass over the probe set, and of the matrices of the balance.
    """

    parts: str | None = None
    every: int | None = None
    singular_values: int = 5
    probe: str | None = None
    probe_output: str | None = None
    loss: str = "auto"
    labels: str | None = None
    dtype: str | None = None
    max_memory_mb: float = 512

    def __post_init__(self) -> None:
        unknown = sorted(set(self.asked or ()) - set(PARTS))
        if unknown:
            raise UsageError(f"unknown part {clean(unknown[0])!r} in parts; there is {', '.join(PARTS)}")
        check_counts(every=self.every, singular_values=self.singular_values)
        check_loss(self.loss)
        check_replay(self.dtype, self.max_memory_mb)

    @property
    def asked(self) -> tuple[str, ...] | None:
        """The parts that were asked for by name; None for all that there can be."""
        return None if self.parts is None else tuple(part.strip() for part in self.parts.split(","))

    def wants(self, part: str) -> bool:
        """Whether a part is to be computed, if it can be."""
        return self.asked is None or part in self.asked
