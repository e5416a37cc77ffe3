"""What a run did to the predictions of a probe set, row by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tscope_format.errors import AnalysisError, MissingDataError, clean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.trace import Trace

    Values = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Changes:
    """The parts of each change of the predictions, which only replay knows.

    Every array has a row for every row of the predictions; the first is zero.

    Attributes:
        layers: The names of the layers.
        layer: ‖J^(l)Δθ^(l)‖_F (step, layer).
        layer_share: ⟨J^(l)Δθ^(l), Δf⟩ / ‖Δf‖² (step, layer).
        gradient: ‖JΔθ‖_F (step).
        residual: ‖f(θ_t, b_{t−1}) − f(θ_{t−1}, b_{t−1}) − JΔθ‖_F (step), with the buffers b held.
        buffer: ‖f(θ_t, b_t) − f(θ_t, b_{t−1})‖_F (step), the drift of the buffers.
        residual_share: The residual's share of Δf, as for the layers (step).
        buffer_share: The drift's share of Δf (step).
        check: The largest |Δf − (Σ_l J^(l)Δθ^(l) + residual + drift)|.
        per_layer: J^(l)Δθ^(l) itself (step, layer, example, output), if it was asked for.
    """

    layers: tuple[str, ...]
    layer: Values
    layer_share: Values
    gradient: Values
    residual: Values
    buffer: Values
    residual_share: Values
    buffer_share: Values
    check: float
    per_layer: Values | None = None


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of a probe set along a run, and their first-order parts.

    Attributes:
        step: The optimizer step of each row (step); the first is 0.
        actual: f_θt(x) (step, example, output).
        gradient: J·Δθ over the interval that ends at each row (step, example, output); the first is 0.
        lazy: J_0(x)(θ_t − θ_0) (step, example, output).
        stopped: The step at which a value was not finite, where the predictions therefore end.
        changes: The parts of each change, where replay computed them.
    """

    step: NDArray[np.int64]
    actual: Values
    gradient: Values
    lazy: Values
    stopped: int | None = None
    changes: Changes | None = None


def is_recorded(trace: Trace, probe: str) -> bool:
    """Return whether projections of the probe set were recorded: one row after the start at least."""
    present = trace.reader.arrays()
    wanted = [f"probe/{probe}/{name}" for name in ("probe_step", "output", "jvp", "lazy")]
    return all(name in present and present[name].shape[0] > 1 for name in wanted)


def recorded(trace: Trace, probe: str) -> Predictions:
    """Read the projections that were computed while the run was recorded.

    Raises:
        MissingDataError: There are none.
        AnalysisError: They are not finite from the start.
    """
    if not is_recorded(trace, probe):
        raise MissingDataError(
            f"{clean(trace.path)} holds no projections of probe set {clean(probe)}; replay computes them: "
            "`--replay`"
        )
    step, actual, gradient, lazy = (
        trace[f"probe/{probe}/{name}"] for name in ("probe_step", "output", "jvp", "lazy")
    )
    finite = np.ones(len(step), dtype=bool)
    for array in (actual, gradient, lazy):
        finite &= np.isfinite(array).all(axis=(1, 2))
    end = len(step) if finite.all() else int(finite.argmin())
    require_start(end > 0)
    stopped = int(step[end]) if end < len(step) else None
    return Predictions(step[:end].astype(np.int64), actual[:end], gradient[:end], lazy[:end], stopped)


def require_start(finite: bool) -> None:
    """Refuse a run whose predictions are not finite before the first step.

    Raises:
        AnalysisError: They are not.
    """
    if not finite:
        raise AnalysisError(
            "the predictions at step 0 are NaN or infinite, so there is nothing to telescope; check the "
            "model's "
            "initialisation and the probe set"
        )
