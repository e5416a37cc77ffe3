"""The options of the metric `boosting`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tscope_format.errors import UsageError, clean

from tscope.analyses.checked import check_counts, check_replay, check_seed

SCORES = ("pca", "mahalanobis")
_SHARES = "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1"


@dataclass(frozen=True)
class Options:
    """The options of the metric.

    Attributes:
        against: The trace of the ensemble of trees; needed.
        against_root: Which of its ensembles. Default: the first.
        irregularity: How irregular a test example is: pca (its distance from the mean of the training inputs
            along their first principal component), mahalanobis, or `FILE.npz:NAME`, an array with a number
            for each example of the probe set (`:NAME` may be left out where the file has one array).
        irregular: The share of the test examples, by that score from the top, that counts as irregular.
        shares: Shares of irregular examples in the drawn sets, separated by commas.
        draws: How many sets are drawn for each share.
        seed: Of the drawn sets and examples.
        probe: The test examples, with labels: a probe set of the network's trace by name, or an `.npz`.
            Default: the first that is not in-sample.
        every: Take the network's kernel at every so many rows. Default: 25 rows, evenly spaced.
        preconditioned: Take K^D with the preconditioner D that the optimizer's next step used.
        train: Use so many training examples, drawn with `seed`. Default: 1024.
        dtype: "float32" or "float64" for the network's kernels.
        max_memory_mb: Bound on a block of the kernel, and on the memory of one pass over the examples.
    """

    against: str | None = None
    against_root: str | None = None
    irregularity: str = "pca"
    irregular: float = 0.1
    shares: str = _SHARES
    draws: int = 50
    seed: int = 0
    probe: str | None = None
    every: int | None = None
    preconditioned: bool = False
    train: int | None = None
    dtype: str | None = None
    max_memory_mb: float = 512

    def __post_init__(self) -> None:
        if self.against_root is not None and self.against is None:
            raise UsageError("against_root names an ensemble of the trace `--against`; give that trace too")
        if self.irregularity not in SCORES and ".npz" not in self.irregularity:
            raise UsageError(
                f"irregularity must be {', '.join(SCORES)} or FILE.npz:NAME; got {clean(self.irregularity)!r}"
            )
        if not 0 < self.irregular <= 0.5:
            raise UsageError(
                f"irregular must be a share above 0, at most 0.5 (a set without irregular examples is as "
                f"large); got {self.irregular}"
            )
        _ = self.fractions
        check_counts(draws=self.draws, every=self.every, train=self.train)
        check_replay(self.dtype, self.max_memory_mb)
        check_seed(self.seed)

    @property
    def fractions(self) -> tuple[float, ...]:
        """The shares as numbers, increasing.

        Raises:
            UsageError: They are none, or out of range.
        """
        found = set()
        for word in self.shares.split(","):
            try:
                share = float(word)
            except ValueError:
                share = math.nan
            if not 0 <= share <= 1:
                raise UsageError(
                    f"shares must be numbers from 0 to 1 separated by commas; got {clean(word)!r}"
                )
            found.add(share)
        return tuple(sorted(found))
