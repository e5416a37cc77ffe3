"""The options of the metric `weight-averaging`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tscope_format.errors import UsageError, clean

from tscope.analyses.checked import check_counts, check_loss, check_replay, check_seed, check_steps


@dataclass(frozen=True)
class Options:
    """The options of the metric.

    Attributes:
        against: The traces of the other runs, separated by commas. Without it and without `at`, averages
            along the one run are searched.
        at: The optimizer steps of the models, separated by commas, `last` among them: with `against` one
            for all runs or one for each, else of the one run. Default: the last step of each run.
        points: How many places along α are measured, both ends among them.
        match: Put the hidden units of the other models in the order of the first one's.
        recalibrate: Compute BatchNorm's statistics anew, on the training examples.
        layers: Measure barriers of each layer, where only it is averaged.
        every: Along one run: how many rows checkpoints are apart. Default: an epoch.
        starts: Along one run: shares of it after which tails and SWA may start, separated by commas.
        decays: Along one run: decays of the exponential moving average, separated by commas.
        counts: Along one run: numbers of checkpoints of LAWA, separated by commas.
        train: Use so many training examples, drawn with `seed`. Default: 2048.
        test: Use so many held-out examples; likewise.
        probe: The held-out examples: a probe set of the trace by name, or an `.npz`. Default: the first that
            is not in-sample.
        seed: Of the drawn examples, of the halves they are split into, and of the search for a matching.
        loss: The training loss: auto, mse, cross_entropy or bce. Default: inferred.
        labels: An `.npz` with the training examples (x, as the model got them) and their labels (y). Default:
            inferred.
        threshold: The border between the classes of a model of one output trained on values.
        dtype: "float32" or "float64" to evaluate in.
        max_memory_mb: Bound on the memory of one pass, and on averages that are held at once.
    """

    against: str | None = None
    at: str | None = None
    points: int = 11
    match: bool = False
    recalibrate: bool = True
    layers: bool = True
    every: int | None = None
    starts: str = "0.25,0.5,0.75,0.9"
    decays: str = "0.9,0.97,0.99,0.995,0.999"
    counts: str = "2,3,5,10"
    train: int | None = None
    test: int | None = None
    probe: str | None = None
    seed: int = 0
    loss: str = "auto"
    labels: str | None = None
    threshold: float | None = None
    dtype: str | None = None
    max_memory_mb: float = 512

    def __post_init__(self) -> None:
        check_steps(at=self.at)
        if self.points < 3:
            raise UsageError(f"points must be at least 3, got {self.points}: both ends and one between")
        if self.match and self.against is None:
            raise UsageError("match puts another run's units in order; name that run with `--against`")
        check_counts(every=self.every, train=self.train, test=self.test)
        _ = self.fractions, self.rates, self.numbers
        check_loss(self.loss)
        check_replay(self.dtype, self.max_memory_mb)
        check_seed(self.seed)

    @property
    def others(self) -> tuple[str, ...]:
        """The paths of the other traces; one that has a comma in its name is taken whole."""
        if self.against is None:
            return ()
        return (self.against,) if Path(self.against).exists() else tuple(self.against.split(","))

    @property
    def fractions(self) -> tuple[float, ...]:
        """The starts of tails, as shares of the run."""
        return self._numbers("starts", 0.0, 1.0, whole=False)

    @property
    def rates(self) -> tuple[float, ...]:
        """The decays."""
        return self._numbers("decays", 0.0, 1.0, whole=False)

    @property
    def numbers(self) -> tuple[int, ...]:
        """How many checkpoints LAWA takes."""
        return tuple(int(value) for value in self._numbers("counts", 1.0, float("inf"), whole=True))

    def _numbers(self, name: str, least: float, limit: float, *, whole: bool) -> tuple[float, ...]:
        """Return the numbers of an option, increasing.

        Raises:
            UsageError: One is no number, or out of range.
        """
        found = set()
        for word in getattr(self, name).split(","):
            try:
                value: float = int(word) if whole else float(word)
            except ValueError:
                value = -1.0
            if not least <= value < limit:
                what = "whole numbers from 1" if whole else "numbers from 0, below 1,"
                raise UsageError(f"{name} must be {what} separated by commas; got {clean(word)!r}")
            found.add(value)
        return tuple(sorted(found))
