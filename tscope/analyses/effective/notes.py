"""What must be said beside effective parameters: what they rest on, and where they say little."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tscope_format.errors import clean

from tscope.analyses.effective.identity import identity
from tscope.analyses.standing import standing

if TYPE_CHECKING:
    from tscope.analyses.effective.estimate import Estimate
    from tscope.analyses.effective.options import Options
    from tscope.analyses.effective.setup import Setup
    from tscope.trace import Trace

    Scalars = Mapping[str, float | int | str | bool | None]

# As for telescoping: above a tenth of the predictions' size the linear model is not the network any more.
_SCALE = 0.1
# Labels that are inferred from float32 gradients are known to some 1e-6 of their size.
_SAME = 1e-4


def notes(
    trace: Trace, setup: Setup, estimate: Estimate, scalars: Scalars, options: Options
) -> tuple[str, ...]:
    """Return the notes of a result."""
    found = []
    apart, scale = _number(scalars["discrepancy_telescoped"]), _number(scalars["prediction_scale"])
    if not apart <= _SCALE * scale:
        found.append(
            f"the telescoping model does not follow the network: they are {apart:.3g} apart where "
            f"predictions are of size {scale:.3g} (root mean squares), so p describes the model, and "
            "the network little; smaller steps bring them together"
        )
    if setup.problem.loss.kind != "mse":
        found.append(
            f"label sensitivity for {setup.problem.loss.kind}, our extension of effective parameters: of "
            "logits, which have no bound; p_…_probability is that of probabilities"
        )
    if not estimate.reached:
        found.append(
            f"the standard error did not reach {options.rtol:.0%} with {estimate.probes} probes; "
            "`--form parameter` would be exact if it fits"
        )
    if setup.traits.decay:
        how = {
            "propagated": "acts on label-dependent parameters (`--decay frozen`: on the recorded ones)",
            "frozen": "acts on the recorded parameters (`--decay propagated`: on label-dependent ones)",
        }
        found.append(f"weight decay {how[options.decay]}")
    found += identity(trace)
    found += _labels(setup)
    if setup.probe is None:
        found.append("no held-out examples: give some with `--probe FILE.npz` for p_test")
    elif setup.probe.in_sample:
        found.append(f"probe set {clean(setup.probe.name)} is in-sample: its examples were trained on")
    if scalars["stopped"] is not None:
        found.append(f"the run holds NaN or infinite values at step {scalars['stopped']}; figures end before")
    elif scalars["steps"] != int(trace.steps[-1]):
        found.append(f"the recursion is not finite after step {scalars['steps']}; figures end there")
    return (*found, *standing(trace))


def _labels(setup: Setup) -> list[str]:
    labels = setup.problem.labels
    spread, size = float((labels - labels.mean(0)).abs().max()), float(labels.abs().max())
    if setup.problem.loss.kind != "mse" or len(labels) < 2 or spread > _SAME * size:
        return []
    return [
        "all labels are the same, as inferred from the gradients: a loss of outputs (n, 1) and targets (n,) "
        "compares each output with the mean of all targets, and its p is of no use"
    ]


def _number(value: float | int | str | bool | None) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
