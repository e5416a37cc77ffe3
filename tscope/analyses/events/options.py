"""The options of the metric `events`."""

from __future__ import annotations

from dataclasses import dataclass

from tscope_format.errors import UsageError

from tscope.analyses.checked import check_loss


@dataclass(frozen=True)
class Options:
    """The options of the metric.

    Attributes:
        fit: The share of the training examples told right (of their variance, of the loss at the start) from
            which they count as fitted.
        rise: What held-out examples must still gain after the fit for it to be grokking.
        spike: How many times the level before it a loss must be to be a spike.
        diverge: How many times its lowest level a loss must end at to have diverged.
        sure: Events of less confidence are left out.
        probe: The held-out examples: a probe set of the trace. Default: the first that is not in-sample.
        threshold: The border between the classes of a single output.
        loss: The training loss, from which training labels are inferred: auto, mse, cross_entropy or bce.
        labels: An `.npz` with the training examples (x) and their labels (y), if they cannot be inferred.
    """

    fit: float = 0.99
    rise: float = 0.2
    spike: float = 2.0
    diverge: float = 10.0
    sure: float = 0.99
    probe: str | None = None
    threshold: float | None = None
    loss: str = "auto"
    labels: str | None = None

    def __post_init__(self) -> None:
        for name in ("fit", "rise", "sure"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise UsageError(f"{name} must be a share above 0 and at most 1, got {value}")
        for name in ("spike", "diverge"):
            value = getattr(self, name)
            if not 1 < value < float("inf"):
                raise UsageError(f"{name} must be a finite factor above 1, got {value}")
        check_loss(self.loss)
