"""What must be said beside kernels: what they leave out, and where a series is undefined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tscope_format.errors import clean

from tscope.analyses.standing import standing

if TYPE_CHECKING:
    from tscope.analyses.kernel.setup import Setup
    from tscope.trace import Trace

    Scalars = Mapping[str, float | int | str | bool | None]


def notes(trace: Trace, setup: Setup, scalars: Scalars, *, plain: bool) -> tuple[str, ...]:
    """Return the notes of a result; `plain` says that no step had a preconditioner."""
    found = [f"{reason}: no alignment" for reason in setup.unknown]
    for what, examples in (("training", setup.train), ("held-out", setup.test)):
        if examples is None or examples.labels is None:
            continue
        labels = examples.labels
        if not bool(labels.any()):
            found.append(f"all labels of the {what} examples are 0: their alignment is not defined")
        elif bool((labels == labels[0]).all()):
            found.append(f"all {what} examples have the same label: their centred alignment is not defined")
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
        found.append(f"probe set {clean(setup.probe.name)} is in-sample: its examples were trained on")
    if scalars["stopped"] is not None:
        found.append(f"the run is not finite at step {scalars['stopped']}; figures end before")
    if "buffer/update" in trace.reader.arrays():
        found.append("J is that of the model in evaluation mode, with the buffers of each row")
    return (*found, *standing(trace))
