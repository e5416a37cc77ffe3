"""What must be said beside kernels: what they leave out, and where a series is undefined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tscope_format.errors import clean

from tscope.analyses.standing import standing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from tscope.analyses.kernel.setup import Setup
    from tscope.analyses.kernel.sketched import Sketches
    from tscope.probes import ProbeSet
    from tscope.trace import Trace

    Scalars = Mapping[str, float | int | str | bool | None]


def notes(trace: Trace, setup: Setup, scalars: Scalars, *, plain: bool) -> tuple[str, ...]:
    """Return the notes of a result; `plain` says that no step had a preconditioner."""
    found = [f"{reason}: no alignment" for reason in setup.unknown]
    for what, examples in (("training", setup.train), ("held-out", setup.test)):
        if examples is not None and examples.labels is not None:
            found += of_labels(what, examples.labels)
    if scalars["preconditioned"] and plain:
        found.append("the optimizer has no preconditioner (D = 1): these are the plain kernels")
    elif scalars["preconditioned"]:
        found.append(
            "D weighs parameters by the optimizer's own averages, at Adam and its kin up to 1/ε where a "
            "gradient nearly cancels: a few parameters can dominate K^D early on"
        )
    if setup.probe is None:
        found.append("no held-out examples: give some with `--probe FILE.npz`")
    elif setup.probe.in_sample:
        found.append(_in_sample(setup.probe))
    if scalars["stopped"] is not None:
        found.append(f"the run is not finite at step {scalars['stopped']}; figures end before")
    if trace.reader.buffers_move:
        found.append("J is that of the model in evaluation mode, with the buffers of each row")
    return (*found, *standing(trace))


def sketch_notes(trace: Trace, sketches: Sketches, scalars: Scalars) -> tuple[str, ...]:
    """Return the notes of a result of sketches."""
    columns, rows = sketches.columns, sketches.size
    measured = scalars["error_exact_test"]
    told = "is not known exactly anywhere: no step that was sketched has its parameters in the trace"
    if isinstance(measured, float):
        steps = ", ".join(map(str, sketches.compared))
        told = f"is at most {measured:.1%} of ‖K‖_F against exact blocks at the steps {steps}"
    found = [
        f"ESTIMATES from sketches of {columns:,} columns: the error of the kernel {told}; `error_test` "
        "estimates it at every step",
        f"a sketch of {columns:,} columns gives no more eigenvalues than that: of a kernel of {rows:,} rows "
        "the largest come out too large, the effective rank too low; the error turns with the kernel, so "
        "distance and velocity are too large",
        "sketches are of the probe set alone, and of all layers together: no training examples, no weights "
        "‖k(x, ·)‖, no shares of layers",
    ]
    if sketches.labels is None:
        name = clean(sketches.probe.name)
        found.append(f"the probe set {name} has no labels that fit the model's outputs: no alignment")
    else:
        found += of_labels("probe", sketches.labels)
    if sketches.probe.in_sample:
        found.append(_in_sample(sketches.probe))
    if sketches.steps[0] != 0:
        found.append(f"step 0 was not sketched in time: movement is from step {sketches.steps[0]}")
    if scalars["stopped"] is not None:
        found.append(f"the sketch is not finite at step {scalars['stopped']}; figures end before")
    return (*found, *standing(trace))


def of_labels(what: str, labels: Tensor | NDArray[np.float64]) -> list[str]:
    """Return which alignments with labels (example, output) are not defined."""
    if not bool(labels.any()):
        return [f"all labels of the {what} examples are 0: their alignment is not defined"]
    if bool((labels == labels[0]).all()):
        return [f"all {what} examples have the same label: their centred alignment is not defined"]
    return []


def _in_sample(probe: ProbeSet) -> str:
    return f"probe set {clean(probe.name)} is in-sample: its examples were trained on"
