"""Effective parameters of a run by the chosen form: one pass, or probes until the error is small."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from tscope_format.errors import AnalysisError

from tscope.analyses.effective.curve import Discrepancies, Series, Squares, in_mean_space
from tscope.analyses.effective.recursion import Choice, Problem, roll

if TYPE_CHECKING:
    from torch import Tensor

    from tscope.analyses.effective.checks import Checks
    from tscope.analyses.effective.directions import Directions

# The first probes give a coarse answer and say how many are needed.
_FIRST_PROBES = 16
_MARGIN = 1.2


@dataclass(frozen=True, eq=False)
class Estimate:
    """What the passes found.

    Attributes:
        series: p at the kept rows.
        mean_space: p of S^μ, where the network's outputs are logits.
        discrepancies: Of the rollouts, at the kept rows.
        probes: How many random columns; 0 where it is exact.
        passes: How often the run was walked.
        reached: Whether the standard error is as small as was asked.
    """

    series: Series
    mean_space: Series | None
    discrepancies: Discrepancies
    probes: int
    passes: int
    reached: bool


class _Tally:
    """The squares of all passes, in the space of outputs and of means."""

    def __init__(self, problem: Problem, outputs: int, *, exact: bool) -> None:
        kind = problem.loss.kind
        self._kind = kind
        self.plain = Squares(problem.points.counts, outputs, exact)
        self.mean = None if kind == "mse" else Squares(problem.points.counts, outputs, exact)

    def walk(
        self,
        problem: Problem,
        W: Tensor,
        choice: Choice,
        perturbation: Tensor,
        checks: Checks | None,
        progress: Callable[[int], None],
    ) -> Discrepancies:
        """Walk the run once with the columns W, and take in what the kept rows hold."""
        discrepancies = Discrepancies()
        for index, kept in enumerate(roll(problem, W, choice, perturbation, checks, progress)):
            discrepancies.add(kept)
            self.plain.add(index, kept.state.smoother)
            if self.mean is not None:
                self.mean.add(index, in_mean_space(self._kind, kept.output, kept.state.smoother))
        return discrepancies


def exactly(
    problem: Problem,
    directions: Directions,
    choice: Choice,
    perturbation: Tensor,
    checks: Checks,
    progress: Callable[[int, int], None],
) -> Estimate:
    """Return the exact effective parameters: one pass with every label direction."""
    tally = _Tally(problem, perturbation.shape[1], exact=True)
    total = problem.rows[-1]
    found = tally.walk(
        problem, directions.basis(), choice, perturbation, checks, lambda row: progress(row, total)
    )
    rows = len(found.step)
    mean = None if tally.mean is None else tally.mean.series(rows)
    return Estimate(tally.plain.series(rows), mean, found, 0, 1, True)


def by_probes(
    problem: Problem,
    directions: Directions,
    choice: Choice,
    perturbation: Tensor,
    checks: Checks,
    progress: Callable[[int, int], None],
    *,
    rtol: float,
    most: int,
    seed: int,
) -> Estimate:
    """Return effective parameters by Hutchinson's estimator, p = n/|I| E‖S_I ε‖² / C with ε of random signs.

    Passes are added until the standard error at the last row is below `rtol` of p, for the training and the
    held-out examples. There are never more probes than label directions, with which p would be exact.

    Args:
        problem: The run.
        directions: The label directions.
        choice: The parameter form's.
        perturbation: δ (train, output).
        checks: What to check, in the first pass.
        progress: Called with (rows done, rows in all); the total grows with the passes.
        rtol: The share of p.
        most: Probes that fit in one pass.
        seed: Of the probes.
    """
    generator = torch.Generator().manual_seed(seed)
    tally = _Tally(problem, perturbation.shape[1], exact=False)
    length = problem.rows[-1]
    found: Discrepancies | None = None
    probes = passes = 0
    wanted = min(_FIRST_PROBES, most, directions.count)
    rows = 0
    while wanted > 0:
        done, remaining = passes * length, math.ceil(wanted / most)

        def show(row: int, done: int = done, passes: int = passes + remaining) -> None:
            progress(done + row, passes * length)

        count = min(wanted, most)
        # Never a single probe: the error of one is unknown.
        W = directions.probes(max(count, 2), generator)
        kept = tally.walk(problem, W, choice, perturbation, checks if found is None else None, show)
        if found is None:
            found, rows = kept, len(kept.step)
        elif len(kept.step) < rows:
            raise AnalysisError(
                f"the smoother overflowed at step {kept.step[-1]} in pass {passes + 1} but not in the first: "
                "the recursion diverges; analyse fewer steps, or use another `--seed`"
            )
        probes += W.shape[2]
        passes += 1
        relative = relative_error(tally.plain.series(rows))
        if relative <= rtol or probes >= directions.count:
            break
        needed = math.ceil(_MARGIN * probes * (relative / rtol) ** 2)
        wanted = min(needed, directions.count) - probes
    assert found is not None  # the first pass always runs: wanted starts above zero
    series = tally.plain.series(rows)
    mean = None if tally.mean is None else tally.mean.series(rows)
    return Estimate(series, mean, found, probes, passes, relative_error(series) <= rtol)


def relative_error(series: Series) -> float:
    """Return the larger standard error of p_train and p_test at the last row, relative to them."""
    pairs = ((series.train[-1], series.train_se[-1]), (series.test[-1], series.test_se[-1]))
    return max((float(se / p) for p, se in pairs if p > 0), default=0.0)
