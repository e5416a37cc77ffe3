"""Which form computes the smoother, and what it costs in memory and in arithmetic."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from tscope_format.errors import AnalysisError

if TYPE_CHECKING:
    from tscope.optimizers import LinearStep

# Columns beside the smoother's own: the check's, two rollouts, the anchored predictions.
_EXTRA = 4
# A pass forward and back through a network takes so many flops a parameter and example.
_PASSES = 6
_FEWEST_COLUMNS = 8  # of a pass: with fewer the work beside the columns is most of it
_BLOCK_SHARE = 0.25  # of the memory, for what a block of columns needs beside the state
_BLOCK_COPIES = 4
_LARGEST_BLOCK = 256


@dataclass(frozen=True)
class Traits:
    """What the optimizer's steps need.

    Attributes:
        momentum: M has a memory.
        decay: There is weight decay.
        diagonal: There is a preconditioner.
    """

    momentum: bool = False
    decay: bool = False
    diagonal: bool = False

    def __or__(self, other: Traits) -> Traits:
        return Traits(
            self.momentum or other.momentum, self.decay or other.decay, self.diagonal or other.diagonal
        )

    @classmethod
    def of(cls, update: LinearStep) -> Traits:
        """Return those of one step."""
        return cls(
            momentum=any(update.mu.values()),
            decay=any(update.coupled.values()) or any(update.decoupled.values()),
            diagonal=update.d_in is not None or update.d_out is not None,
        )


@dataclass(frozen=True)
class Size:
    """How large the problem is.

    Attributes:
        points: N.
        outputs: C.
        directions: q, the columns of the exact smoother.
        parameters: P.
        batch: Examples of a step.
        steps: Steps of the run.
        bytes: Of a number.
    """

    points: int
    outputs: int
    directions: int
    parameters: int
    batch: int
    steps: int
    bytes: int


@dataclass(frozen=True)
class Plan:
    """A form with its cost.

    Attributes:
        form: "kernel", "parameter" or "probes".
        columns: Columns of a pass: at most q, or the most probes that fit.
        block: Columns taken at once in parameter space.
        memory: Bytes of the state and of what a step needs.
        flops: Of all passes over the run; of one for probes, whose number is not known.
        passes: How often the run is walked; 1 for probes.
        directions: q.
    """

    form: str
    columns: int
    block: int
    memory: float
    flops: float
    passes: int
    directions: int

    def __str__(self) -> str:
        if self.form == "probes":
            return f"probes form (estimate, up to {self.columns} probes a pass)"
        passes = "" if self.passes == 1 else f" in {self.passes} passes of {self.columns}"
        return f"{self.form} form (exact, {self.directions} label directions{passes})"


def choose(asked: str, size: Size, traits: Traits, *, frozen: bool, limit: float, workers: int = 1) -> Plan:
    """Return the form that was asked for, or the cheapest exact one that fits, else probes.

    The parameter form that was asked for and does not fit takes its columns in several passes.

    Args:
        asked: "auto" or a form.
        size: The problem.
        traits: What the steps of the run need.
        frozen: Decay acts on the recorded parameters.
        limit: Bytes.
        workers: Processes that share them.

    Raises:
        AnalysisError: The form is not exact for the optimizer, or does not fit; the message names what does.
    """
    theta = traits.decay and not frozen
    kept = int(traits.momentum) + int(theta)
    exact = {"parameter": _parameter(size, size.directions, kept, limit, workers)}
    if not traits.momentum and not theta:
        exact["kernel"] = _kernel(size, traits.diagonal)
    fitting = {form: plan for form, plan in exact.items() if plan.memory <= limit}
    part = _part(size, kept, limit, workers)
    probes = None if part is None else replace(part, form="probes")
    if asked == "kernel" and "kernel" not in exact:
        why = "momentum" if traits.momentum else "weight decay that acts on label-dependent parameters"
        other = "" if traits.momentum else ", `--decay frozen`"
        raise AnalysisError(
            f"the kernel form is not exact for an optimizer with {why}; use `--form parameter`, "
            f"`--form probes`{other} or leave out `--form`"
        )
    if asked == "auto" and fitting:
        return min(fitting.values(), key=lambda plan: plan.flops)
    if asked in fitting:
        return fitting[asked]
    if asked == "parameter" and part is not None:
        return _in_passes(size, part.columns, kept, limit, workers)
    if asked in ("auto", "probes") and probes is not None:
        return probes
    least = _parameter(size, min(_FEWEST_COLUMNS, size.directions), kept, limit, workers)
    raise AnalysisError(_too_large(asked, exact, least, part, limit))


def cost_of_probes(plan: Plan, count: int, workers: int) -> float:
    """Return the flops of a pass with `count` probes, of a plan whose passes take more."""
    extra = _EXTRA * workers
    return plan.flops * (min(count, plan.columns) + extra) / (plan.columns + extra)


def seconds(flops: float, dtype: torch.dtype) -> float:
    """Return about how long so many flops take, from a product of matrices timed here and now."""
    a = torch.ones((384, 384), dtype=dtype)
    a @ a
    start = time.perf_counter()
    repeats = 5
    for _ in range(repeats):
        a @ a
    rate = repeats * 2 * 384**3 / max(time.perf_counter() - start, 1e-6)
    return flops / rate


def _kernel(size: Size, diagonal: bool) -> Plan:
    N, C, B, P = size.points, size.outputs, size.batch, size.parameters
    columns = size.directions + _EXTRA
    entries = (N * C) * (B * C)
    # Without D the inner dimension of a layer's product is that of its inputs, some √P.
    inner = P if diagonal else P**0.5
    flops = _PASSES * (N + B) * C * P + 2 * entries * (inner + columns)
    memory = size.bytes * (2 * N * C * columns + 2 * entries + 4 * P)
    return Plan("kernel", size.directions, 1, memory, size.steps * flops, 1, size.directions)


def _parameter(size: Size, directions: int, kept: int, limit: float, workers: int) -> Plan:
    """Return one pass with so many label directions."""
    N, C, B, P = size.points, size.outputs, size.batch, size.parameters
    columns = directions + _EXTRA * workers
    room = _BLOCK_SHARE * limit / (size.bytes * _BLOCK_COPIES * P * workers)
    block = int(min(_LARGEST_BLOCK, columns, max(1, room)))
    state = P * columns * kept + N * C * columns
    memory = size.bytes * (state + _BLOCK_COPIES * P * block * workers + B * C * columns)
    flops = size.steps * columns * (_PASSES * (N + B) * P + 4 * P)
    return Plan("parameter", directions, block, memory, flops, 1, size.directions)


def _part(size: Size, kept: int, limit: float, workers: int) -> Plan | None:
    """Return a pass with as many columns as fit; None if hardly any do."""
    few = min(_FEWEST_COLUMNS, size.directions)
    # The scratch of a block grows with its columns up to the largest block, and is no more from then on.
    low, high = 0, size.directions
    while low < high:
        middle = (low + high + 1) // 2
        fits = _parameter(size, middle, kept, limit, workers).memory <= limit
        low, high = (middle, high) if fits else (low, middle - 1)
    return _parameter(size, low, kept, limit, workers) if low >= few else None


def _in_passes(size: Size, most: int, kept: int, limit: float, workers: int) -> Plan:
    """Return passes of at most so many columns, as even as can be, that together take all."""
    passes = math.ceil(size.directions / most)
    each = _parameter(size, math.ceil(size.directions / passes), kept, limit, workers)
    return replace(each, passes=passes, flops=each.flops * passes)


def _too_large(asked: str, exact: dict[str, Plan], least: Plan, part: Plan | None, limit: float) -> str:
    if asked == "kernel":
        need = f"the kernel form needs {exact[asked].memory / 1e6:.3g} MB"
    else:
        what = "columns of the parameter form" if asked == "parameter" else "probes"
        need = f"{least.columns} {what} need {least.memory / 1e6:.3g} MB"
    others = [
        f"`--form {form}` ({plan.memory / 1e6:.3g} MB)"
        for form, plan in exact.items()
        if form != asked and plan.memory <= limit
    ]
    if part is not None and asked == "kernel" and exact["parameter"].memory > limit:
        others.append("`--form parameter`, in passes,")
    others += ["`--form probes`"] if part is not None and asked != "probes" else []
    instead = f"; {' or '.join(others)} fits" if others else ""
    return (
        f"{need} of the {limit / 1e6:.3g} MB allowed (`--max-memory MB`){instead}; fewer held-out "
        "examples (`--test N`) need less"
    )
