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

_HALVES = (torch.bfloat16, torch.float16)
# Batch statistics and dropout are the layers that compute something else in training than in evaluation.
_TRAINING_LAYERS = {"dropout": "dropout", "batch_norm": "batch normalisation"}


@dataclass(frozen=True)
class Tolerance:
    """How far a replay may be from the run, by the precision in which the run was recorded.

    In float32 these are at most ten times what was measured, on networks of 200 000 parameters (perceptrons,
    convolutions with pooling, Transformers) with every optimizer that is known.

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
    def of(cls, dtypes: set[str], *, exact: bool) -> Tolerance:
        """Return the tolerance for parameters, output gradients and norms of these dtypes.

        Args:
            dtypes: float32, float64 or both.
            exact: The replayed outputs are the recorded ones bit for bit.
        """
        if dtypes == {"float64"}:
            return cls(output=1e-8, one=1e-10, ratio=1e-7, noise=1e-12)
        if exact:
            # Gradients are the run's too; measured 4e-7, 2e-6 and 1e-7, rounding of the norms themselves.
            return cls(output=1e-5, one=4e-6, ratio=2e-5, noise=1e-6)
        # Rounded otherwise (another machine), ties of ReLU and max-pooling are decided otherwise, which moves
        # the gradient of a small parameter by more; measured 1e-6, 5e-6, 8e-4 and 1e-6.
        return cls(output=1e-5, one=5e-5, ratio=8e-3, noise=1e-5)


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
        reason = _reason(program, recorded)
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
        dtypes: Those of parameters, output gradients and norms.
        reach: ‖J_bᵀu‖ / ‖u‖ for a cotangent of random signs, at any step of the run.
    """

    def __init__(self, dtypes: set[str], reach: float) -> None:
        self._dtypes = dtypes
        self._reach = reach

    def factors(
        self, recorded: Mapping[str, float], gradient: Tensors, cotangent: Tensor, step: int, *, exact: bool
    ) -> dict[str, float]:
        """Return ρ by parameter name.

        Args:
            recorded: The norm of each parameter's gradient as the optimizer saw it.
            gradient: The replayed gradients before clipping, J_bᵀg.
            cotangent: g (slot, output).
            step: For messages.
            exact: The replayed outputs are the recorded ones bit for bit.

        Raises:
            AnalysisError: The ratios differ.
        """
        tolerance = Tolerance.of(self._dtypes, exact=exact)
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


def _reason(program: Program, recorded: Tensor) -> str:
    """Say what may be the matter with outputs that are not replayed, and what to do."""
    half = next((d for d in _HALVES if torch.equal(recorded.to(d).to(recorded.dtype), recorded)), None)
    if half is not None and bool(recorded.any()):
        return f"they are {str(half)[6:]} numbers: train without autocast, in the parameters' own precision"
    layers = [what for key, what in _TRAINING_LAYERS.items() if _has(program, key)]
    if layers:
        return f"the model has {' and '.join(layers)}: train with it in evaluation mode, or without it"
    return (
        "train without randomness or state in the forward pass, in the model's own precision, and with all "
        "passes of a step at the same parameters (those of SAM, for one, are not)"
    )


def _has(program: Program, key: str) -> bool:
    return any(key in node.target for node in program.graph.nodes)
