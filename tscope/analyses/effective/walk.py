"""One walk over a run with a share of the smoother's columns, which can be interrupted and continued."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tscope.analyses.effective.ahead import Ahead
from tscope.analyses.effective.curve import Discrepancies, Squares, in_mean_space
from tscope.analyses.effective.forms import State
from tscope.analyses.effective.recursion import Choice, Kept, Pause, roll
from tscope.analyses.effective.snapshot import pack, restore

if TYPE_CHECKING:
    from tscope.analyses.effective.checks import Checks
    from tscope.analyses.effective.crew import Crew
    from tscope.analyses.effective.forms import Block
    from tscope.analyses.effective.partial import Partial
    from tscope.analyses.effective.setup import Setup


@dataclass(frozen=True, eq=False)
class Part:
    """Columns that one walk takes.

    Attributes:
        name: Which of all walks it is; partial results are kept by it.
        columns: W (train, output, column).
        exact: They belong to a basis; else they are probes.
    """

    name: str
    columns: Tensor
    exact: bool


@dataclass
class Tally:
    """What walks found, of one share of the columns or of several joined.

    Attributes:
        plain: Squares of S.
        mean: Squares of S^μ, where the network's outputs are logits.
        discrepancies: Of the rollouts, at the kept rows.
        smoother: S at each of the chosen rows (point, output, column), in their order.
        stopped: The step at which the run stopped being finite; None if it did not.
    """

    plain: Squares
    mean: Squares | None = None
    discrepancies: Discrepancies = field(default_factory=Discrepancies)
    smoother: list[Tensor] = field(default_factory=list)
    stopped: int | None = None

    @classmethod
    def of(cls, setup: Setup, *, exact: bool) -> Tally:
        """Return one with nothing in it."""
        counts, outputs = setup.problem.points.counts, setup.size.outputs
        mean = None if setup.problem.loss.kind == "mse" else Squares(counts, outputs, exact)
        return cls(Squares(counts, outputs, exact), mean)

    @property
    def rows(self) -> int:
        """How many rows were kept."""
        return len(self.discrepancies.step)

    def add(self, kept: Kept, kind: str, chosen: frozenset[int]) -> None:
        """Take in a kept row."""
        index, S = self.rows, kept.state.smoother
        self.discrepancies.add(kept)
        self.plain.add(index, S)
        if self.mean is not None:
            self.mean.add(index, in_mean_space(kind, kept.output, S))
        if kept.row in chosen:
            self.smoother.append(S.clone())

    def join(self, other: Tally) -> None:
        """Take in another share of the columns; rows that not both have are dropped."""
        self.plain.join(other.plain)
        if self.mean is not None and other.mean is not None:
            self.mean.join(other.mean)
        self.discrepancies = self.discrepancies.first(min(self.rows, other.rows))
        pairs = zip(self.smoother, other.smoother, strict=False)
        self.smoother = [torch.cat(pair, 2) for pair in pairs]
        self.stopped = other.stopped if self.stopped is None else self.stopped


@dataclass
class Standing:
    """Where a walk stands: a pause as values that can be kept."""

    row: int = 0
    smoother: Tensor = field(default_factory=lambda: torch.empty(0))
    rollouts: Tensor = field(default_factory=lambda: torch.empty(0))
    anchored: Tensor = field(default_factory=lambda: torch.empty(0))
    memory: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, pause: Pause) -> Standing:
        """Return that of a pause; nothing is copied."""
        state = pause.state
        return cls(pause.row, state.smoother, state.rollouts, state.anchored, pause.memory)

    def pause(self) -> Pause:
        """Return the pause."""
        return Pause(self.row, State(self.smoother, self.rollouts, self.anchored), self.memory)


def walk(
    setup: Setup,
    part: Part,
    choice: Choice,
    perturbation: Tensor,
    checks: Checks | None,
    partial: Partial,
    progress: Callable[[int], None],
    say: Callable[[str], None],
    crew: Crew,
) -> Tally:
    """Walk the run with a part of the columns, from where an interrupted analysis left it.

    Args:
        setup: The run.
        part: The columns.
        choice: The form, and what it keeps.
        perturbation: δ (train, output), the change of labels that checks the smoother.
        checks: What to check on the way; it is given what an interrupted walk had checked.
        partial: Where the walk is kept.
        progress: Called with the row after each step.
        say: Called with a word for the user.
        crew: Processes to compute kernel blocks in; without any they are computed here.

    Raises:
        FormError: A step does not admit the form.
        AnalysisError: A check fails.
    """
    problem = setup.problem
    tally = Tally.of(setup, exact=part.exact)
    start: Pause | None = None
    found = partial.load()
    if found is not None:
        restore(tally, found["tally"])
        if checks is not None:
            restore(checks, found["checks"])
        if found["standing"] is None:
            return tally
        standing = Standing()
        restore(standing, found["standing"])
        start = standing.pause()
        say(f"continuing after row {start.row} of {problem.rows[-1]} ({part.name}), where it was interrupted")
        progress(start.row)

    def keep(pause: Pause | None) -> None:
        if partial.due:
            standing = None if pause is None else Standing.of(pause)
            partial.save({"tally": pack(tally), "checks": pack(checks), "standing": pack(standing)})

    block: Block | None = None
    if choice.form == "kernel" and crew.size:
        ahead = Ahead(problem, crew, 0 if start is None else start.row)
        problem, block = replace(problem, steps=ahead.steps), ahead.block
    for kept in roll(
        problem, part.columns, choice, perturbation, checks, progress, block=block, start=start, pause=keep
    ):
        tally.add(kept, problem.loss.kind, problem.chosen)
    tally.stopped = setup.walks[-1].stopped
    keep(None)
    return tally
