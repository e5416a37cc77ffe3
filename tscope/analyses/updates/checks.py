"""Whether the terms are those of the run: the optimizer's rule must give the recorded steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from tscope_format.errors import AnalysisError

from tscope.analyses.effective.checks import ROUNDINGS, Share, Tolerance, cause_of
from tscope.analyses.effective.setup import stored_in, trained_in

if TYPE_CHECKING:
    from torch import Tensor

    from tscope.analyses.updates.run import Run
    from tscope.analyses.updates.walk import Interval

# What an influence may be off in float32: D enlarges the rounding of gradients that nearly cancel.
_NOTABLE = 1e-3
_DOUBLE = 1e-8


class Checks:
    """The checks of a walk, in the limits of effective parameters.

    Args:
        run: The run.

    Attributes:
        function: ‖J(Δθ − Δθ_rule)‖ / ‖JΔθ‖ over the run.
        rounding: The same for the rounding of the stored parameters.
    """

    def __init__(self, run: Run) -> None:
        self.function = Share()
        self.rounding = Share()
        self._dtype = run.dtype
        self._trained = trained_in(run.trace)
        self._tolerance = Tolerance.of(self._trained, stored_in(run.trace), run.dtype)
        self._exact = True

    def add(self, interval: Interval) -> None:
        """Take in an interval.

        Raises:
            AnalysisError: The adapter residual is too large.
        """
        self._exact = self._exact and interval.exact
        whole = _square(interval.first_order.sum(0))
        residual = _square(interval.terms[-1].sum(0))
        # A step that leads nowhere and should not: the residual is the whole of it.
        self.function.add(residual, whole or residual)
        self.rounding.add(_square(interval.rounding), whole)
        base = self._tolerance.recorded if self._exact else self._tolerance.ties
        allowed = base + ROUNDINGS * self.rounding.value
        if not self.function.value <= allowed:
            raise AnalysisError(
                f"updates is not valid: at step {interval.last.step} the optimizer's rule does not give the "
                f"recorded steps, ‖J(Δθ_rule − Δθ)‖/‖JΔθ‖ = {self.function.value:.2g} (at most "
                f"{allowed:.1g}); {cause_of(interval.last)}"
            )

    def influence(self, off: float) -> str | None:
        """Judge by how much the influences of all examples do not add up, relative to their sum.

        Returns:
            What there is to say about it.

        Raises:
            AnalysisError: They do not, in float64 throughout.
        """
        double = torch.float64
        if self._trained == self._dtype == double and not off <= _DOUBLE:
            raise AnalysisError(
                "the influences of all training examples do not add up to what gradients did, by "
                f"{off:.2g} of it; this is a fault of tscope: report it"
            )
        if off <= _NOTABLE:
            return None
        return (
            f"the influences of all training examples add up to what gradients did within {off:.0%} only: "
            "rounding of gradients that nearly cancel, which the optimizer's preconditioner enlarges; "
            "`--dtype float64` tells"
        )


def _square(values: Tensor) -> float:
    return float(values.double().square().sum())
