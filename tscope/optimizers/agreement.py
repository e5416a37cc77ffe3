"""Whether a replayed step is the recorded one: its outputs, its gradients, and how close they must be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from tscope_format.errors import AnalysisError, clean

from tscope.optimizers.step import Tensors
from tscope.program import Program

# Batch statistics and dropout are the layers that compute something else in training than in evaluation.
_TRAINING_LAYERS = {"dropout": "dropout", "batch_norm": "batch normalisation"}


@dataclass(frozen=True)
class Tolerance:
    """How far a replay may be from the run, by the precision in which the run was recorded.

    Attributes:
        output: of the outputs, relative to their root mean square: rounding is far below, and dropout or
            batch statistics are far above.
        one: a ratio of gradient norms that is this close to 1 is 1.
        ratio: how far the ratio of one parameter may be from that of all.
        noise: rounding of a gradient, relative to what it would be if the batch's did not cancel out.
    """

    output: float
    one: float
    ratio: float
    noise: float

    @classmethod
    def of(cls, dtypes: set[str]) -> Tolerance:
        """Return the tolerance for parameters, output gradients, norms and a replay of these dtypes."""
        if dtypes == {"float64"}:
            return cls(output=1e-8, one=1e-10, ratio=1e-7, noise=1e-12)
        if dtypes <= {"float32", "float64"}:
            # Ties of ReLU and max-pooling make float32 and float64 gradients differ by some 2e-4.
            return cls(output=1e-3, one=1e-4, ratio=1e-2, noise=1e-5)
        return cls(output=5e-2, one=5e-3, ratio=1e-1, noise=5e-2)


def output_difference(program: Program, recorded: Tensor, replayed: Tensor, limit: float, step: int) -> float:
    """Return how far the replayed training outputs are from the recorded ones, relative to the latter's size.

    Raises:
        AnalysisError: Further than `limit`: the training forward is not the function that is replayed.
    """
    if recorded.shape != replayed.shape:
        raise AnalysisError(
            f"step {step}: the recorded training outputs have the shape {tuple(recorded.shape)}, the model's "
            f"are {tuple(replayed.shape)}; name the output that the loss is of with `tscope record --output`"
        )
    size = float(recorded.square().mean().sqrt())
    found = float((replayed - recorded).square().mean().sqrt())
    relative = found / size if size > 0 else found
    if relative > limit:
        layers = [what for key, what in _TRAINING_LAYERS.items() if _has(program, key)]
        reason = (
            f"the model has {' and '.join(layers)}: train with it in evaluation mode, or without it"
            if layers
            else "train without randomness or state in the forward pass, and in the model's own precision"
        )
        raise AnalysisError(
            f"step {step}: the training outputs are not a fixed function of the parameters and inputs: "
            f"replayed in evaluation mode they differ by {relative:.2g} of their size ({limit:g} is "
            f"allowed); {reason}"
        )
    return relative


class Clip:
    """Tells ρ, what the gradients were multiplied with between backward and the optimizer.

    It is the ratio of the recorded norms, which the optimizer saw, to the replayed ones: a clip of the global
    norm or a constant factor has one ratio for all parameters.

    Near a minimum gradients are what is left when the batch's cancel out, in the end rounding errors, whose
    ratio says nothing. How large those are follows from ‖J_bᵀg‖ without cancellation.

    Args:
        tolerance: How far norms may be from one another.
        reach: ‖J_bᵀu‖ / ‖u‖ for a cotangent of random signs, at any step of the run.
    """

    def __init__(self, tolerance: Tolerance, reach: float) -> None:
        self._tolerance = tolerance
        self._reach = reach

    def factors(
        self, recorded: Mapping[str, float], gradient: Tensors, cotangent: Tensor, step: int
    ) -> dict[str, float]:
        """Return ρ by parameter name.

        Args:
            recorded: The norm of each parameter's gradient as the optimizer saw it.
            gradient: The replayed gradients before clipping, J_bᵀg.
            cotangent: g (slot, output).
            step: For messages.

        Raises:
            AnalysisError: The ratios differ.
        """
        tolerance = self._tolerance
        replayed = {name: float(torch.linalg.vector_norm(gradient[name])) for name in recorded}
        seen, total = math.hypot(*recorded.values()), math.hypot(*replayed.values())
        size = float(torch.linalg.vector_norm(cotangent))
        self._reach = max(self._reach, total / size if size > 0 else 0.0)
        noise = tolerance.noise * self._reach * size
        alike = abs(seen - total) <= max(tolerance.one * total, noise)
        rho = 1.0 if alike or total == 0 else seen / max(total, noise)
        for name, norm in recorded.items():
            expected = rho * replayed[name]
            # Gradients that cancel out (a bias before a normalisation) are rounding errors of the others.
            if not abs(norm - expected) <= tolerance.ratio * expected + tolerance.one * seen + noise:
                raise AnalysisError(
                    f"step {step}: the gradient that the optimizer used for {clean(name)} has the norm "
                    f"{norm:.4g}; that of the recorded output gradients is {replayed[name]:.4g}, times "
                    f"{rho:.4g} for all parameters together. Gradients clipped by value or by parameter, "
                    "accumulated from earlier steps, or of a loss that has more in it than the model's "
                    "output (a penalty on the parameters) cannot be followed; use clip_grad_norm_ and "
                    "the optimizer's weight_decay"
                )
        return dict.fromkeys(recorded, rho)


def _has(program: Program, key: str) -> bool:
    return any(key in node.target for node in program.graph.nodes)
