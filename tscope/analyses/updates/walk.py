"""The walk forward: the terms of every interval of a run, projected on the probe set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tscope.analyses.updates.run import Run, Tensors
from tscope.analyses.updates.terms import TERMS, Splitter
from tscope.optimizers import TrainingStep


@dataclass(frozen=True, eq=False)
class Interval:
    """What the steps of one interval did to the probe set.

    Attributes:
        last: Its last step.
        exact: Whether every training output was replayed bit for bit.
        terms: J^(l)u of each term and layer (term, layer, example, output), J where the interval begins.
        first_order: J^(l)Δθ of each layer, of the recorded Δθ (layer, example, output).
        rounding: JΔθ of what the rounding of the stored parameters may be (example, output).
        change: f at its end less f at its beginning (example, output).
    """

    last: TrainingStep
    exact: bool
    terms: Tensor
    first_order: Tensor
    rounding: Tensor
    change: Tensor

    @property
    def finite(self) -> bool:
        """Whether all of it are numbers."""
        return all(bool(torch.isfinite(v).all()) for v in (self.terms, self.first_order, self.change))


@dataclass
class Walk:
    """The walk over a run; iterate over it once.

    Attributes:
        run: The run.
        progress: Called with (rows done, rows in all).
        optimizer: The name of the optimizer's class.
        stopped: The step at which the run is not finite, where the walk ended.
        output: The largest relative difference of a replayed training output to the recorded one.
        state: The largest relative difference of the optimizer's state to that recorded at anchors.
    """

    run: Run
    progress: Callable[[int, int], None]
    optimizer: str = ""
    stopped: int | None = None
    output: float = 0.0
    state: float = 0.0

    def __iter__(self) -> Iterator[Interval]:
        """Yield the intervals in their order.

        A step costs a forward and a backward pass over its batch; an interval a forward pass and C backward
        passes over the probe set, and a product of J for each term that is not zero.
        """
        run = self.run
        begin = run.first if run.stateless else 1
        steps = run.steps(begin, run.last + 1)
        self.optimizer = steps.optimizer
        splitter = Splitter()
        rounder = _Rounder(run)
        sums: _Sums | None = None
        for step in steps:
            self.output = max(self.output, step.residual.output)
            self.state = max([self.state, *step.residual.state.values()])
            parts = splitter.split(step)
            if step.row >= run.first:
                if sums is None or run.ends(step.row - 1):
                    here = run.probe.value(step.theta, step.buffers)
                    if sums is not None:
                        yield sums.projected(run, here)
                    sums = _Sums(step, step, here)
                sums.add(step, {**parts, "change": step.change, "rounding": rounder.errors(step.theta)})
            self.progress(step.row + 1 - begin, run.last + 1 - begin)
        self.stopped = steps.stopped
        if sums is not None:
            yield sums.projected(run, run.probe.value(*run.state(sums.last.row)))


@dataclass
class _Sums:
    """The steps of an interval, f where it begins, and the sums of their terms by parameter name."""

    first: TrainingStep
    last: TrainingStep
    value: Tensor
    parts: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    exact: bool = True

    def add(self, step: TrainingStep, parts: dict[str, dict[str, Tensor]]) -> None:
        """Take in a step."""
        self.last = step
        self.exact = self.exact and step.residual.output == 0
        for part, found in parts.items():
            sums = self.parts.setdefault(part, {})
            for name, value in found.items():
                sums[name] = sums[name] + value if name in sums else value

    def projected(self, run: Run, value: Tensor) -> Interval:
        """Return the interval; `value` is f at its end."""
        moving = {
            part: {name: v for name, v in found.items() if name in run.probe.names and bool(v.any())}
            for part, found in self.parts.items()
        }
        pushed = [part for part, found in moving.items() if found]
        layers = len(run.probe.layers)
        products = dict.fromkeys(self.parts, value.new_zeros((layers, *value.shape)))
        if pushed:
            found = run.probe.push(self.first.theta, self.first.buffers, [moving[part] for part in pushed])
            products |= zip(pushed, found.unbind(0), strict=True)
        return Interval(
            last=self.last,
            exact=self.exact,
            terms=torch.stack([products[term] for term in TERMS]),
            first_order=products["change"],
            rounding=products["rounding"].sum(0),
            change=value - self.value,
        )


class _Rounder:
    """Draws rounding errors of the stored parameters, of random sign."""

    def __init__(self, run: Run) -> None:
        dtypes = {entry.name: getattr(torch, entry.dtype) for entry in run.trace.parameters}
        self._half = {name: torch.finfo(dtypes[name]).eps / 2 for name in run.probe.names}
        self._random = torch.Generator().manual_seed(0)

    def errors(self, theta: Tensors) -> dict[str, Tensor]:
        """Return one for each parameter by name."""
        found = {}
        for name, half in self._half.items():
            value = theta[name]
            signs = torch.randint(0, 2, value.shape, generator=self._random).to(value.dtype)
            found[name] = signs.mul_(2).sub_(1).mul_(value.abs()).mul_(half)
        return found
