"""One recorded update of a run: what went in, what came out, and the linear map in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]
Numbers = Mapping[str, float]


@dataclass(frozen=True, eq=False)
class LinearStep:
    """The update as a linear function of the gradient J_bᵀR, with everything else frozen (math.md §2).

        G = ρ J_bᵀR + λΘ
        M ← μM + ν D_in∘G
        Δ = −D_out∘(aM + bG) − wΘ

    All mappings have the same keys: the parameters that this step moved. For any other parameter (not in an
    optimizer, or without a gradient in this step) Δ = 0, and M stays what it was.

    Attributes:
        mu: μ by parameter name; 0 where there is no momentum yet, so that M need not exist before.
        nu: ν by parameter name.
        a: a by parameter name, the learning rate included.
        b: b by parameter name (Nesterov, NAdam), the learning rate included.
        coupled: λ by parameter name: weight decay within the gradient.
        decoupled: w by parameter name: weight decay beside it, the learning rate included.
        rho: ρ by parameter name: the clip or scale factor, negative with `maximize`.
        rate: γ by parameter name: the learning rate of the step, which is in a, b and w already.
        d_in: D_in by parameter name, of the parameter's shape; None where it is 1 throughout.
        d_out: D_out, likewise.
    """

    mu: Numbers
    nu: Numbers
    a: Numbers
    b: Numbers
    coupled: Numbers
    decoupled: Numbers
    rho: Numbers
    rate: Numbers
    d_in: Tensors | None = None
    d_out: Tensors | None = None

    def to(self, dtype: torch.dtype) -> LinearStep:
        """Return the same map with its diagonals in `dtype`."""

        def cast(diagonal: Tensors | None) -> Tensors | None:
            return None if diagonal is None else {name: value.to(dtype) for name, value in diagonal.items()}

        return replace(self, d_in=cast(self.d_in), d_out=cast(self.d_out))


@dataclass(frozen=True, eq=False)
class StepResidual:
    """How well a replayed step gives the recorded one.

    Attributes:
        relative: ‖Δθ_adapter − Δθ‖ / ‖Δθ‖ over all parameters; 0 where both are zero.
        difference: Δθ_adapter − Δθ by parameter name, for a look at it in function space.
        output: root mean square of (replayed − recorded training outputs), over that of the recorded ones.
        fresh: whether the optimizer keeps a state, and this was taken to be its first step, without any.
        state: at anchors, the relative difference of each of the optimizer's states (`exp_avg`, …) to the
            recorded one; empty elsewhere.
    """

    relative: float
    difference: Tensors
    output: float
    fresh: bool
    state: Numbers


@dataclass(frozen=True, eq=False)
class TrainingStep:
    """One row t of a run.

    Attributes:
        row: t; row 0 is the state before training.
        step: the optimizer step of the row.
        theta: θ_{t−1} by parameter name, in the dtype that was asked for, as all that follows.
        after: θ_t by parameter name.
        buffers: what the training forward used: those of row t − 1.
        examples: (slot,) int64, rows of `examples/`; the same may occur twice.
        inputs: the model's inputs, each (slot, …).
        output: (slot, output), the recorded training outputs.
        output_grad: (slot, output), ∂L/∂output of the loss before a gradient scaler multiplied it.
        sizes: number of slots of each micro-batch, in the order of the slots.
        scales: what a gradient scaler multiplied the loss of each micro-batch with.
        gradient: J_bᵀ·output_grad at θ_{t−1} by parameter name, before clipping; zero where it does not
            reach.
        update: what the optimizer made of it; None for a skipped step (Δθ = 0).
        residual: how well that gives the recorded θ_t − θ_{t−1}.
    """

    row: int
    step: int
    theta: Tensors
    after: Tensors
    buffers: Tensors
    examples: Tensor
    inputs: tuple[Tensor, ...]
    output: Tensor
    output_grad: Tensor
    sizes: tuple[int, ...]
    scales: tuple[float, ...]
    gradient: Tensors
    update: LinearStep | None
    residual: StepResidual

    @property
    def change(self) -> dict[str, Tensor]:
        """The recorded Δθ = θ_t − θ_{t−1} by parameter name."""
        return {name: value - self.theta[name] for name, value in self.after.items()}
