"""The exact forms of the recursion: how a step's residuals move the smoother and the predictions.

Both take R_t, which is linear in the labels, and add J_tΔ_t to F = [S | predictions] (math.md §2). Probes are
the parameter form on random columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from tscope.analyses.effective.columns import Columns, FormError, preconditioner

if TYPE_CHECKING:
    from torch import Tensor

    from tscope.analyses.effective.points import Jacobian, Points
    from tscope.optimizers import LinearStep, TrainingStep

    Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Residuals:
    """R_t of one step, on the slots of its batch.

    Attributes:
        smoother: H S[b] + N W_b (slot, output, column).
        rollouts: ∂ℓ/∂f of the rolled-out predictions (slot, output, rollout).
        recorded: The recorded output gradient (slot, output).
        adapted: Δ of the recorded gradient by the optimizer's adapter (…) by parameter name.
    """

    smoother: Tensor
    rollouts: Tensor
    recorded: Tensor
    adapted: Tensors


@dataclass(frozen=True, eq=False)
class State:
    """F_t at every point; the forms add to it in place.

    Attributes:
        smoother: S W (point, output, column): the smoother applied to the label directions.
        rollouts: Predictions rolled out by the recursion itself (point, output, rollout).
        anchored: f_0 + ΣJΔ by the adapter from the recorded gradients (point, output).
    """

    smoother: Tensor
    rollouts: Tensor
    anchored: Tensor


class Form(Protocol):
    """One way to advance the state by a step."""

    def advance(
        self, state: State, step: TrainingStep, update: LinearStep, jacobian: Jacobian, R: Residuals
    ) -> None:
        """Add J_tΔ_t to the state, in place."""
        ...

    def memory(self) -> dict[str, Tensor]:
        """Return what the form remembers between steps, by name."""
        ...

    def recall(self, memory: Tensors) -> None:
        """Take over what `memory` returned of another form for the same columns."""
        ...


Block = Callable[["TrainingStep", "Jacobian", "Tensors | None"], "Tensor"]
"""Gives K^D of every point with a step's batch (point, output, slot, output), D None for the identity."""


class KernelForm:
    """F ← F − γ K^D[:, b] R, without any state in parameter space.

    Exact where M has no memory (μ = 0) and decay does not act on label-dependent parameters. One kernel block
    a step (points × batch), and 2(N·C)(B·C)k flops for k columns.

    Args:
        points: The evaluation points.
        block: Gives the kernel's blocks.
        frozen: Decay acts on the recorded parameters. Otherwise a step with decay is refused.
        tangents: Which rollouts are tangents, on which a decay of constants does nothing (rollout,).
    """

    def __init__(self, points: Points, block: Block, *, frozen: bool, tangents: Tensor) -> None:
        self._points = points
        self._block = block
        self._frozen = frozen
        self._moved = ~tangents

    def advance(
        self, state: State, step: TrainingStep, update: LinearStep, jacobian: Jacobian, R: Residuals
    ) -> None:
        """Add J_tΔ_t to the state, in place.

        Raises:
            FormError: The step has momentum, or decay that depends on the labels.
        """
        decays = any(update.coupled.values()) or any(update.decoupled.values())
        if decays and not self._frozen:
            raise FormError("the optimizer took up weight decay", decay=True)
        gamma, D = preconditioner(update, {name: step.theta[name] for name in jacobian.names})
        K = self._block(step, jacobian, D)
        N, C, B, _ = K.shape
        columns = torch.cat([R.smoother, R.rollouts, R.recorded[..., None]], 2)
        change = (K.reshape(N * C, B * C) @ columns.reshape(B * C, -1)).reshape(N, C, -1).mul_(-gamma)
        width, rolled = state.smoother.shape[2], state.rollouts.shape[2]
        state.smoother.add_(change[..., :width])
        state.rollouts.add_(change[..., width : width + rolled])
        state.anchored.add_(change[..., -1])
        if decays:
            nothing = {name: torch.zeros_like(step.theta[name])[None] for name in jacobian.names}
            shrink = Columns(1, momentum=False).change(update, nothing, fixed=step.theta)
            drift = self._points.pushforward(jacobian, shrink)
            state.rollouts.add_(drift * self._moved)
            state.anchored.add_(drift[..., 0])

    def memory(self) -> dict[str, Tensor]:
        """Return nothing: all that there is, is the state."""
        return {}

    def recall(self, memory: Tensors) -> None:
        """Take over nothing."""


class ParameterForm:
    """The recursion as written: M, and Θ where decay acts on it, for every column. Any optimizer.

    2(N + B)P flops a column and step, and P values for each of M and Θ; columns are taken in blocks, so that
    what a step needs beside them stays small.

    Args:
        points: The evaluation points.
        blocks: The columns of the smoother, block by block.
        rollouts: The columns of the rollouts.
        frozen: Decay acts on the recorded parameters.
        tangents: Which rollouts are tangents, on which a decay of constants does nothing (rollout,).
    """

    def __init__(
        self, points: Points, blocks: list[Columns], rollouts: Columns, *, frozen: bool, tangents: Tensor
    ) -> None:
        self._points = points
        self._blocks = blocks
        self._rollouts = rollouts
        self._frozen = frozen
        self._moved = ~tangents

    def advance(
        self, state: State, step: TrainingStep, update: LinearStep, jacobian: Jacobian, R: Residuals
    ) -> None:
        """Add J_tΔ_t to the state, in place."""
        start = 0
        for block in self._blocks:
            place = slice(start, start + block.count)
            start += block.count
            if block is not self._blocks[-1]:
                gradient = jacobian.pullback(step.inputs, R.smoother[..., place])
                change = block.change(update, gradient)
                state.smoother[..., place] += self._points.pushforward(jacobian, change)
                continue
            # The rollouts and the adapted step ride along with the last block: fewer passes.
            columns = torch.cat([R.smoother[..., place], R.rollouts], 2)
            gradient = jacobian.pullback(step.inputs, columns)
            own = block.change(update, {name: value[: block.count] for name, value in gradient.items()})
            rolled = {name: value[block.count :] for name, value in gradient.items()}
            beside = self._rollouts.change(update, rolled, self._constant(step))
            change = {n: torch.cat([own[n], beside[n], R.adapted[n][None]]) for n in own}
            moved = self._points.pushforward(jacobian, change)
            state.smoother[..., place] += moved[..., : block.count]
            state.rollouts.add_(moved[..., block.count : -1])
            state.anchored.add_(moved[..., -1])

    def memory(self) -> dict[str, Tensor]:
        """Return Θ and M of every block by its number."""
        return {
            f"{index}/{key}": value
            for index, columns in enumerate((*self._blocks, self._rollouts))
            for key, value in columns.memory().items()
        }

    def recall(self, memory: Tensors) -> None:
        """Take over what `memory` returned."""
        for index, columns in enumerate((*self._blocks, self._rollouts)):
            prefix = f"{index}/"
            columns.recall({k.removeprefix(prefix): v for k, v in memory.items() if k.startswith(prefix)})

    def _constant(self, step: TrainingStep) -> dict[str, Tensor] | None:
        """Return what frozen decay acts on (rollout, …): the recorded parameters, nothing for tangents."""
        if not self._frozen:
            return None
        mask = self._moved
        return {
            name: value[None] * mask.to(value.dtype).reshape(-1, *[1] * value.dim())
            for name, value in step.theta.items()
            if name in step.gradient
        }
