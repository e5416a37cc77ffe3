"""Effective parameters of a run by the chosen form: exactly, or by probes until the error is small."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from tscope_format.errors import AnalysisError

from tscope.analyses.effective.curve import Discrepancies, Series
from tscope.analyses.effective.error import relative_bound
from tscope.analyses.effective.partial import Partial
from tscope.analyses.effective.walk import Part, Tally, walk
from tscope.analyses.effective.worker import PartRequest

if TYPE_CHECKING:
    from torch import Tensor

    from tscope.analyses.effective.checks import Checks
    from tscope.analyses.effective.crew import Crew
    from tscope.analyses.effective.partial import Place
    from tscope.analyses.effective.recursion import Choice
    from tscope.analyses.effective.setup import Setup
    from tscope.analyses.metric import Watch

FIRST_PROBES = 16
"""The first probes give a coarse answer, and say how many are needed."""

_SURE_PROBES = 32
"""With fewer the error of a p that is skewed is itself too uncertain to decide."""

_NOT_SKEWED = 0.05
"""A relative error so small, of p from few probes, comes of many directions that are about even."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """What the passes found.

    Attributes:
        series: p at the kept rows.
        mean_space: p of S^μ, where the network's outputs are logits.
        discrepancies: Of the rollouts, at the kept rows.
        smoother: S at the chosen rows, each (point, output, column).
        probes: How many random columns; 0 where it is exact.
        passes: How often the run was walked.
        reached: Whether the standard error is as small as was asked.
        stopped: The step at which the run stopped being finite; None if it did not.
    """

    series: Series
    mean_space: Series | None
    discrepancies: Discrepancies
    smoother: list[Tensor]
    probes: int
    passes: int
    reached: bool
    stopped: int | None


@dataclass(frozen=True, eq=False)
class Passes:
    """Takes columns through the run, in as many processes as there are.

    Attributes:
        setup: The run.
        choice: The form, and what it keeps.
        perturbation: δ (train, output).
        checks: What to check, in the first pass.
        crew: The processes beside this one.
        place: Where interrupted walks are kept; None keeps nothing.
        began: When the analysis began, as `time.monotonic` says it.
        watch: Who is told how far it is.
    """

    setup: Setup
    choice: Choice
    perturbation: Tensor
    checks: Checks
    crew: Crew
    place: Place | None
    began: float
    watch: Watch

    def run(self, index: int, W: Tensor, *, exact: bool, progress: Callable[[int], None]) -> Tally:
        """Walk the run once with the columns W (train, output, column); pass 0 makes the checks.

        In the kernel form the processes compute the blocks; else each takes a part of the columns.
        """
        share = 1 if self.choice.form == "kernel" else min(self.crew.size + 1, W.shape[2])
        parts = [
            Part(f"pass-{index + 1}-part-{k + 1}-of-{share}", columns.contiguous(), exact)
            for k, columns in enumerate(W.tensor_split(share, 2))
        ]
        others = range(share - 1)
        for k in others:
            self.crew.send(k, self._request(parts[k + 1]))
        last = 0

        def show(row: int) -> None:
            nonlocal last
            last = row
            progress(sum([row, *(self.crew.rows()[k] for k in others)]) // share)

        found = walk(
            self.setup,
            parts[0],
            self.choice,
            self.perturbation,
            self.checks if index == 0 else None,
            Partial(self.place, parts[0].name, self.watch.say, self.began),
            show,
            self.watch.say,
            self.crew,
        )
        for k in others:
            found.join(self.crew.tally(k, lambda: show(last)))
        return found

    def _request(self, part: Part) -> PartRequest:
        return PartRequest(
            part.name,
            part.columns.numpy(),
            part.exact,
            self.choice,
            self.perturbation.numpy(),
            self.place,
            self.began,
        )


def exactly(passes: Passes, columns: int) -> Estimate:
    """Return the exact effective parameters: every label direction, `columns` of them a pass."""
    directions, length = passes.setup.directions, passes.setup.problem.rows[-1]
    starts = range(0, directions.count, columns)
    tally: Tally | None = None
    for index, start in enumerate(starts):
        W = directions.basis(start, min(start + columns, directions.count))

        def show(row: int, done: int = index * length) -> None:
            passes.watch.progress(done + row, len(starts) * length)

        found = passes.run(index, W, exact=True, progress=show)
        if tally is None:
            tally = found
        else:
            tally.join(found)
    assert tally is not None  # there is a label direction: a run has an example
    return _estimate(tally, probes=0, passes=len(starts), reached=True)


def by_probes(passes: Passes, *, rtol: float, most: int, seed: int) -> Estimate:
    """Return effective parameters by Hutchinson's estimator, p = n/|I| E‖S_I ε‖² / C with ε of random signs.

    Probes are added until the standard error at the last row is below `rtol` of p, for the training and the
    held-out examples, its own uncertainty counted. There are never more than label directions, with which p
    would be exact. How many fit in a pass does not change how often the error is looked at: it would more
    often be small by chance.

    Args:
        passes: Takes columns through the run, in the parameter form.
        rtol: The share of p.
        most: Probes that fit in one pass.
        seed: Of the probes.
    """
    directions, length = passes.setup.directions, passes.setup.problem.rows[-1]
    generator = torch.Generator().manual_seed(seed)
    tally: Tally | None = None
    probes = count = 0
    target = min(FIRST_PROBES, directions.count)
    while True:
        wanted = target - probes
        done, remaining = count * length, math.ceil(wanted / most)

        def show(row: int, done: int = done, total: int = (count + remaining) * length) -> None:
            passes.watch.progress(done + row, total)

        # Never a single probe: the error of one is unknown.
        W = directions.probes(max(min(wanted, most), 2), generator)
        found = passes.run(count, W, exact=False, progress=show)
        if tally is None:
            tally = found
        elif found.rows < tally.rows:
            raise AnalysisError(
                f"the smoother overflowed at step {found.discrepancies.step[-1]} in pass {count + 1} but not "
                "in the first: the recursion diverges; analyse fewer steps, or use another `--seed`"
            )
        else:
            tally.join(found)
        probes += W.shape[2]
        count += 1
        if probes < target:
            continue
        series = tally.plain.series(tally.rows)
        target = enough(series, probes, rtol=rtol, most=directions.count)
        if target <= probes:
            reached = relative_error(series) <= rtol
            return _estimate(tally, probes=probes, passes=count, reached=reached)
        passes.watch.say(f"{_coarse(series, probes)}; {target - probes} more for {rtol:.0%}")


def enough(series: Series, probes: int, *, rtol: float, most: int) -> int:
    """Return how many probes are enough, at most `most`, as far as `probes` tell; `probes` if these are.

    Fewer than `_SURE_PROBES` are enough only where p is far from skewed.
    """
    bound = relative_bound(relative_error(series), probes)
    if bound <= (rtol if probes >= _SURE_PROBES else min(rtol, _NOT_SKEWED)) or probes >= most:
        return probes
    return min(max(math.ceil(probes * (bound / rtol) ** 2), probes + 1, _SURE_PROBES), most)


def relative_error(series: Series) -> float:
    """Return the larger standard error of p_train and p_test at the last row, relative to them."""
    pairs = ((series.train[-1], series.train_se[-1]), (series.test[-1], series.test_se[-1]))
    return max((float(se / p) for p, se in pairs if p > 0), default=0.0)


def _coarse(series: Series, probes: int) -> str:
    """Return what the probes so far say, in words."""
    found = [f"p_train {series.train[-1]:.4g} ± {series.train_se[-1]:.2g}"]
    if math.isfinite(series.test[-1]):
        found.append(f"p_test {series.test[-1]:.4g} ± {series.test_se[-1]:.2g}")
    return f"{probes} probes: {', '.join(found)}"


def _estimate(tally: Tally, *, probes: int, passes: int, reached: bool) -> Estimate:
    mean = None if tally.mean is None else tally.mean.series(tally.rows)
    series = tally.plain.series(tally.rows)
    return Estimate(series, mean, tally.discrepancies, tally.smoother, probes, passes, reached, tally.stopped)
