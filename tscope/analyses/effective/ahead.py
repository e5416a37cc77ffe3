"""Kernel blocks computed ahead of the recursion: by worker processes, and by this one while it would wait.

The block of a step depends on the recorded parameters only, not on the smoother, so that those of the next
steps can be computed at once; the recursion itself goes step by step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from tscope.analyses.effective.columns import FormError, preconditioner
from tscope.analyses.effective.worker import BlockRequest

if TYPE_CHECKING:
    from torch import Tensor

    from tscope.analyses.effective.crew import Crew
    from tscope.analyses.effective.points import Jacobian
    from tscope.analyses.effective.recursion import Problem
    from tscope.optimizers import TrainingStep

    Tensors = Mapping[str, Tensor]

_OUTSTANDING = 2  # requests of a worker: the next one waits there when the last is done
_STEP_COPIES = 6  # what a step holds of the parameters' size
_SHARE = 0.25  # of the memory


@dataclass(eq=False)
class _Item:
    """A step whose block will be needed."""

    step: TrainingStep
    jacobian: Jacobian
    D: Tensors | None
    member: int | None = None
    K: Tensor | None = None


class Ahead:
    """Walks the steps some way ahead of their use.

    Args:
        problem: The run.
        crew: The processes.
        after: Blocks are needed of the rows after this one.
    """

    def __init__(self, problem: Problem, crew: Crew, after: int) -> None:
        self._problem = problem
        self._crew = crew
        self._after = after
        self._items: dict[int, _Item] = {}
        self._waiting: deque[TrainingStep] = deque()

    def steps(self) -> Iterator[TrainingStep]:
        """Yield the run's training steps."""
        source = self._problem.steps()
        for step in source:
            self._take(step)
            while len(self._waiting) >= self._window(step):
                yield self._waiting.popleft()
        while self._waiting:
            yield self._waiting.popleft()

    def block(self, step: TrainingStep, jacobian: Jacobian, D: Tensors | None) -> Tensor:
        """Return K^D of every point with the step's batch (point, output, slot, output)."""
        item = self._items[step.row]
        while (K := item.K) is None:
            self._collect(wait=False)
            self._distribute()
            # Rather than wait: this step's own block, or else the one that is needed last.
            free = [other for other in self._items.values() if other.member is None and other.K is None]
            if item.K is None and item.member is None:
                item.K = self._computed(item)
            elif item.K is None and free:
                free[-1].K = self._computed(free[-1])
            elif item.K is None:
                self._collect(wait=True)
        del self._items[step.row]
        self._distribute()
        return K

    def _take(self, step: TrainingStep) -> None:
        """Put a step into the queue, with what its block needs."""
        self._waiting.append(step)
        if step.update is None or step.row <= self._after:
            return
        jacobian = self._problem.jacobian(step.theta, step.buffers, step.update.mu.keys())
        if not jacobian.names:
            return
        try:
            _, D = preconditioner(step.update, {name: step.theta[name] for name in jacobian.names})
        except FormError:
            return  # the recursion will say so when it comes there
        self._items[step.row] = _Item(step, jacobian, D)
        self._distribute()

    def _window(self, step: TrainingStep) -> int:
        """Return how many steps are held at once: enough for the workers, as far as memory allows."""
        points, outputs = self._problem.points.total, step.output.shape[1]
        size = step.output.element_size() if step.output.is_floating_point() else 8
        kernel = points * outputs * step.output.numel()
        held = size * (kernel + _STEP_COPIES * sum(value.numel() for value in step.theta.values()))
        fitting = int(_SHARE * self._problem.memory / held)
        return max(2, min(fitting, (_OUTSTANDING + 2) * self._crew.size))

    def _computed(self, item: _Item) -> Tensor:
        return self._problem.points.block(item.jacobian, item.step.inputs, item.D)

    def _distribute(self) -> None:
        """Give the earliest steps to workers that have little to do."""
        for row, item in self._items.items():
            if item.member is None and item.K is None:
                member = self._crew.least_busy(_OUTSTANDING)
                if member is None:
                    return
                item.member = member
                self._crew.send(member, _request(row, item))

    def _collect(self, *, wait: bool) -> None:
        """Take in the blocks that have arrived."""
        for row, K in self._crew.blocks(wait=wait):
            self._items[row].K = torch.from_numpy(K)


def _request(row: int, item: _Item) -> BlockRequest:
    step = item.step

    def arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in tensors.items()}

    return BlockRequest(
        row,
        tuple(item.jacobian.names),
        arrays(step.theta),
        arrays(step.buffers),
        [value.numpy() for value in step.inputs],
        None if item.D is None else arrays(item.D),
    )
