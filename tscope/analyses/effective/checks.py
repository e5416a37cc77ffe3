"""What makes the smoother's figures valid, measured on every step; a check that fails is an error.

A match of predictions validates nothing: a diagonal fitted to Δθ matches them to 6e-9 with p = 4e15 (math.md
§2). So the recursion is held against what it is made of: the optimizer's own step, the loss's own gradient,
and a second rollout with other labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from tscope_format.errors import AnalysisError, clean

from tscope.analyses.effective.columns import Columns

if TYPE_CHECKING:
    from torch import Tensor

    from tscope.analyses.effective.points import Jacobian, Points
    from tscope.optimizers import LinearStep, Loss, TrainingStep

    Tensors = Mapping[str, Tensor]

# Function space is looked at on so many steps of the run, spread evenly, and wherever parameters fit worse.
_LOOKS = 100
_FIRST = 8
_WORSE = 1.5
# Stored parameters are rounded; a step's arithmetic rounds a few times.
ROUNDINGS = 4.0
# The rounding of float32 in a step of a rollout, and in all of them; limits of float64 lie below the third.
_EACH_STEP, _MOST = 1e-6, 2e-3
_DOUBLE = 1e-6


@dataclass
class Share:
    """‖part‖ / ‖whole‖ over the run: root of sums of squares."""

    part: float = 0.0
    whole: float = 0.0

    def add(self, part: float, whole: float) -> None:
        """Take in the squares of one step."""
        self.part += part
        self.whole += whole

    @property
    def value(self) -> float:
        """The share; 0 where nothing was."""
        return (self.part / self.whole) ** 0.5 if self.whole > 0 else 0.0


@dataclass(frozen=True)
class Tolerance:
    """What relative differences may be.

    In float32 these are at most ten times what was measured, on networks of 200 000 parameters (perceptrons,
    convolutions with pooling, Transformers) with every optimizer that is known.

    Attributes:
        replayed: Between two ways of computing the same: rounding of the replay, amplified by many steps.
        recorded: To what was recorded: rounding of the run and of the trace.
        ties: The same for the optimizer's steps, where training outputs are not replayed bit for bit: ties of
            ReLU and max-pooling are then decided otherwise in some steps, which moves their gradients.
    """

    replayed: float
    recorded: float
    ties: float

    @classmethod
    def of(cls, trained: torch.dtype, stored: torch.dtype, replayed: torch.dtype) -> Tolerance:
        """Return the tolerance for a run trained, stored (output gradients) and replayed in these dtypes."""
        double = torch.float64
        replay = 1e-8 if replayed == double else 5e-5
        if trained == stored == replayed == double:
            return cls(replay, 1e-8, 1e-8)
        return cls(replay, 5e-6, 2e-3)

    def labels(self, steps: int, cancellation: float = 1.0) -> float:
        """Return what the rollouts may differ by after so many steps, whose rounding adds up.

        In float32 3e-4 was measured after 2000 steps of SGD, 4e-6 after 12 of RMSprop, and 7e-5 after 10 of
        AdamW on outputs that were seven times the labels.

        Args:
            steps: How many steps.
            cancellation: The size of what is subtracted to see the difference, over the difference's.
        """
        if self.replayed < _DOUBLE:
            return min(_DOUBLE, cancellation * self.replayed)
        return min(_MOST, cancellation * (self.replayed + _EACH_STEP * steps))


@dataclass
class Checks:
    """The checks of one pass over the run.

    Attributes:
        points: The evaluation points.
        trained: The dtype that the run was trained in.
        tolerance: What differences may be.
        total: How many steps the run has.
        parameters: ‖Δθ_adapter − Δθ‖ / ‖Δθ‖.
        function: ‖J(Δθ_adapter − Δθ)‖ / ‖JΔθ‖, on the steps that were looked at.
        rounding: The same for the rounding of the stored parameters.
        kernel: ‖change by the form − JΔ‖ / ‖JΔ‖ on those steps, of the recorded gradient.
        kernel_rounding: The same for the rounding of the predictions, whose difference is the change.
        loss: ‖∂ℓ/∂f − recorded‖ / ‖recorded‖, the loss's gradient at the recorded outputs.
        loss_rounding: The same for the rounding of μ(f), of which the labels leave little in the end.
        labels: ‖Δf̃ − Sδ‖ / ‖Sδ‖ at the last kept row.
        state: The largest relative difference to the optimizer state recorded at anchors.
        output: The largest relative difference to the recorded training outputs.
    """

    points: Points
    trained: torch.dtype
    tolerance: Tolerance
    total: int
    parameters: Share = field(default_factory=Share)
    function: Share = field(default_factory=Share)
    rounding: Share = field(default_factory=Share)
    kernel: Share = field(default_factory=Share)
    kernel_rounding: Share = field(default_factory=Share)
    loss: Share = field(default_factory=Share)
    loss_rounding: Share = field(default_factory=Share)
    labels: float = 0.0
    state: float = 0.0
    output: float = 0.0
    looked: int = 0
    _adapter: Columns = field(default_factory=lambda: Columns(1))
    _worst: float = 0.0
    _steps: int = 0
    _generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def adapted(self, step: TrainingStep, update: LinearStep) -> dict[str, Tensor]:
        """Return Δ (…) of the recorded gradient by the table's row, and compare it with the recorded Δθ.

        Raises:
            AnalysisError: The preconditioner is not one.
        """
        _check_diagonal(step, update)
        gradient = {name: value.clone()[None] for name, value in step.gradient.items()}
        moved = self._adapter.change(update, gradient, fixed=step.theta)
        return {
            name: moved[name][0] if name in moved else torch.zeros_like(value)
            for name, value in step.gradient.items()
        }

    def step(
        self, step: TrainingStep, adapted: Tensors, jacobian: Jacobian, moved: Tensor, loss: Loss
    ) -> None:
        """Take in one step.

        Args:
            step: The step.
            adapted: What `adapted` returned.
            jacobian: J at θ_{t−1}.
            moved: The change of the anchored predictions by the form (point, output).
            loss: The training loss.

        Raises:
            AnalysisError: A check fails.
        """
        self.output = max(self.output, step.residual.output)
        self.state = max([self.state, *step.residual.state.values()])
        self._take_loss(step, loss)
        change = {name: step.after[name] - step.theta[name] for name in adapted}
        rest = {name: adapted[name] - change[name] for name in adapted}
        part, whole = (sum(_square(v) for v in values.values()) for values in (rest, change))
        self.parameters.add(part, whole)
        relative = (part / whole) ** 0.5 if whole > 0 else 0.0
        spread = max(1, self.total // _LOOKS)
        if self._steps < _FIRST or self._steps % spread == 0 or relative > _WORSE * self._worst:
            self._look(step, rest, change, jacobian, moved)
        self._worst = max(self._worst, relative)
        self._steps += 1
        self._require_adapter(step)
        self._require_loss(step)

    def require_labels(self, row_step: int, expected: Tensor, found: Tensor, cancellation: float) -> None:
        """Compare what the perturbed labels did to the predictions with Sδ, both (point, output).

        Args:
            row_step: The step.
            expected: Sδ.
            found: What they did.
            cancellation: The size of what was subtracted to find it, over its own.

        Raises:
            AnalysisError: They differ.
        """
        # Squares of a run that diverges do not fit into float32.
        expected, found = expected.double(), found.double()
        scale = float(expected.norm())
        self.labels = float((found - expected).norm()) / scale if scale > 0 else float(found.norm())
        allowed = self.tolerance.labels(self._steps, cancellation)
        if not self.labels <= allowed:
            raise AnalysisError(
                f"effective-params is not valid at step {row_step}: perturbed labels change the rolled-out "
                f"predictions by {self.labels:.2g} of ‖Sδ‖ other than the smoother says (at most "
                f"{allowed:.1g}); {self._remedy()}"
            )

    def _take_loss(self, step: TrainingStep, loss: Loss) -> None:
        """Compare the loss's gradient at the recorded outputs with the recorded one."""
        whole = _square(step.output_grad)
        gradient = loss.gradient(step.output, step.examples, step.sizes)
        self.loss.add(_square(gradient - step.output_grad), whole)
        half = torch.finfo(self.trained).eps / 2
        rounded = half * loss.coefficients(step.sizes, step.output)[:, None] * loss.mean(step.output)
        self.loss_rounding.add(_square(rounded), whole)

    def _look(
        self, step: TrainingStep, rest: Tensors, change: Tensors, jacobian: Jacobian, moved: Tensor
    ) -> None:
        """Compare the step in function space."""
        adapted = {name: change[name] + rest[name] for name in jacobian.names}
        pulled = _pulled(step, adapted, jacobian)
        columns = {
            name: torch.stack([change[name], rest[name], pulled[name], self._rounding(step.theta[name])])
            for name in jacobian.names
        }
        recorded, missing, own, rounded = self.points.pushforward(jacobian, columns).unbind(-1)
        whole = _square(recorded)
        self.function.add(_square(missing), whole)
        self.rounding.add(_square(rounded), whole)
        # The parameter form takes the adapted step, the kernel form pulls the output gradient back itself.
        off = min(_square(moved - (recorded + missing)), _square(moved - own))
        formed = _square(recorded + missing)
        self.kernel.add(off, formed)
        size = moved.numel() * _square(step.output) / step.output.numel()
        self.kernel_rounding.add(size * (torch.finfo(moved.dtype).eps / 2) ** 2, formed)
        self.looked += 1

    def _rounding(self, theta: Tensor) -> Tensor:
        """Return a rounding error of random sign for each stored parameter."""
        signs = torch.randint(0, 2, theta.shape, generator=self._generator).to(theta.dtype).mul_(2).sub_(1)
        return theta.abs() * signs * (torch.finfo(self.trained).eps / 2)

    def _require_adapter(self, step: TrainingStep) -> None:
        exact = self.output == 0
        base = self.tolerance.recorded if exact else self.tolerance.ties
        allowed = base + ROUNDINGS * self.rounding.value
        if not self.function.value <= allowed:
            raise AnalysisError(
                f"effective-params is not valid: at step {step.step} the optimizer's rule does not give the "
                f"recorded steps, ‖J(Δθ_rule − Δθ)‖/‖JΔθ‖ = {self.function.value:.2g} (at most "
                f"{allowed:.1g}); {cause_of(step)}"
            )
        allowed = self.tolerance.replayed + ROUNDINGS * self.kernel_rounding.value
        if not self.kernel.value <= allowed:
            raise AnalysisError(
                f"effective-params is not valid: at step {step.step} the kernel gives another step than "
                f"the Jacobian, by {self.kernel.value:.2g} of it (at most {allowed:.1g}); " + self._remedy()
            )

    def _remedy(self) -> str:
        """Say what to do about two computations of the replay that disagree."""
        precise = self.tolerance.replayed < _DOUBLE
        return "this is a fault of tscope: report it" if precise else "try `--dtype float64`"

    def _require_loss(self, step: TrainingStep) -> None:
        allowed = self.tolerance.recorded + ROUNDINGS * self.loss_rounding.value
        if not self.loss.value <= allowed:
            raise AnalysisError(
                f"effective-params is not valid: at step {step.step} the loss and labels do not give the "
                f"recorded output gradients, they differ by {self.loss.value:.2g} of them (at most "
                f"{allowed:.1g}); give the right `--loss` and `--labels`"
            )

    def scalars(self) -> dict[str, float]:
        """Return the figures of the checks by name."""
        return {
            "adapter_residual": self.function.value,
            "adapter_residual_parameters": self.parameters.value,
            "adapter_rounding": self.rounding.value,
            "adapter_state": self.state,
            "kernel_residual": self.kernel.value,
            "loss_residual": self.loss.value,
            "label_residual": self.labels,
            "determinism_residual": self.output,
        }


def cause_of(step: TrainingStep) -> str:
    """Say what may be the matter with a step that is not the optimizer's."""
    cause = (
        "something else changes the parameters or the gradients (a clip within a hook of the optimizer's "
        "step, for one), or the learning rate or decay is not what was recorded"
    )
    if not step.residual.fresh:
        return cause
    return (
        "this was taken to be its first one: an optimizer that went on from a checkpoint has momentum or "
        f"averages that are not in the trace, record from the run's beginning; or {cause}"
    )


def _check_diagonal(step: TrainingStep, update: LinearStep) -> None:
    """Refuse a D that no optimizer has: a fitted one has both signs."""
    for diagonals in (update.d_in, update.d_out):
        for name, diagonal in (diagonals or {}).items():
            if not bool((diagonal >= 0).all()):
                raise AnalysisError(
                    f"effective-params is not valid: at step {step.step} the preconditioner of "
                    f"{clean(name)} is negative or NaN; it must come from the optimizer's state"
                )


def _pulled(step: TrainingStep, adapted: Tensors, jacobian: Jacobian) -> Tensors:
    """Return Δ of the recorded output gradient, pulled back in the precision of the replay.

    The run's own gradient differs from that by its rounding, which D may enlarge. With momentum there is no
    such Δ of one step; then it is `adapted`.
    """
    update = step.update
    if update is None or any(update.mu.values()):
        return adapted
    gradient = jacobian.pullback(step.inputs, step.output_grad[..., None])
    moved = Columns(1, momentum=False).change(update, gradient, fixed=step.theta)
    return {name: value[0] for name, value in moved.items()}


def _square(values: Tensor) -> float:
    return float(values.double().square().sum())
