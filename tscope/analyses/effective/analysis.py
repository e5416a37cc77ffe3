"""Effective parameters of a recorded run [Curth23, Jeffares24], from the trace to the result.

    p(I) = (n/|I|) ‖S_I‖_F² / C,   S_t = ∂f̃_t/∂y

with S the smoother of the telescoping model: what each prediction owes to each training label. The recursion
is math.md §2–3; `docs/metrics/effective-params.md` says how to read it.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tscope_format.errors import AnalysisError
from tscope_format.results import Array, Result

from tscope.analyses.effective.columns import FormError
from tscope.analyses.effective.estimate import Estimate, by_probes, exactly
from tscope.analyses.effective.notes import notes
from tscope.analyses.effective.plan import Plan, Traits, choose, seconds
from tscope.analyses.effective.recursion import Choice
from tscope.analyses.effective.setup import Setup, prepare

if TYPE_CHECKING:
    from tscope.analyses.effective.checks import Checks
    from tscope.analyses.effective.curve import Series
    from tscope.analyses.effective.options import Options
    from tscope.analyses.metric import Progress
    from tscope.trace import Trace


def analyse(trace: Trace, options: Options, progress: Progress) -> Result:
    """Compute the metric.

    Raises:
        MissingDataError: The trace lacks what the recursion needs.
        AnalysisError: The run cannot be followed, the form does not fit, or a validity check fails.
        UsageError: The options do not fit the trace.
    """
    setup = prepare(trace, options)
    start = time.perf_counter()
    traits = setup.traits
    while True:
        plan = _plan(setup, traits, options)
        checks = setup.checks()
        try:
            estimate = _estimate(setup, plan, traits, checks, options, progress)
            break
        except FormError as error:
            # The first steps did not show everything: a schedule of momentum or decay.
            if options.form == "kernel":
                raise AnalysisError(
                    f"{error} on the way, where the kernel form is not exact; use `--form parameter` or "
                    "leave out `--form`"
                ) from error
            traits |= Traits(momentum=error.momentum, decay=error.decay)
    setup = replace(setup, traits=traits)
    return _result(trace, options, setup, plan, estimate, checks, time.perf_counter() - start)


def describe(trace: Trace, options: Options) -> str:
    """Return which form would be used and what it costs, in words."""
    setup = prepare(trace, options)
    plan = _plan(setup, setup.traits, options)
    took = seconds(plan.flops, setup.problem.dtype)
    a_pass = " a pass" if plan.form == "probes" else ""
    return (
        f"{plan}: about {_span(took)}{a_pass} of arithmetic for {setup.size.steps} steps, "
        f"{setup.size.points} points and {setup.size.parameters:,} parameters, {plan.memory / 1e6:.0f} MB"
    )


def _span(took: float) -> str:
    if took < 100:
        return f"{took:.0f} s"
    return f"{took / 60:.0f} min" if took < 6000 else f"{took / 3600:.0f} h"


def _plan(setup: Setup, traits: Traits, options: Options) -> Plan:
    limit = options.max_memory_mb * 1e6
    return choose(options.form, setup.size, traits, frozen=setup.problem.frozen, limit=limit)


def _estimate(
    setup: Setup, plan: Plan, traits: Traits, checks: Checks, options: Options, progress: Progress
) -> Estimate:
    """Walk the run by the plan."""
    problem, directions = setup.problem, setup.directions
    generator = torch.Generator().manual_seed(options.seed)
    perturbation = directions.perturbation(generator)
    form = "kernel" if plan.form == "kernel" else "parameter"
    choice = Choice(form, momentum=traits.momentum, decay=traits.decay, block=plan.block)
    if plan.form != "probes":
        return exactly(problem, directions, choice, perturbation, checks, progress)
    return by_probes(
        problem,
        directions,
        choice,
        perturbation,
        checks,
        progress,
        rtol=options.rtol,
        most=plan.columns,
        seed=options.seed,
    )


def _result(
    trace: Trace,
    options: Options,
    setup: Setup,
    plan: Plan,
    estimate: Estimate,
    checks: Checks,
    took: float,
) -> Result:
    """Name what was found."""
    problem = setup.problem
    n, m = problem.points.counts
    discrepancies = estimate.discrepancies
    arrays = {"step": Array(("step",), np.array(discrepancies.step, dtype=np.int64))}
    arrays |= _series(estimate.series, "", held=m > 0)
    if estimate.mean_space is not None:
        arrays |= _series(estimate.mean_space, "_probability", held=m > 0)
    arrays["norms_train"] = Array(("step", "train"), estimate.series.train_norms)
    arrays["train"] = Array(("train",), problem.points.examples.numpy())
    if m:
        arrays["norms_test"] = Array(("step", "test"), estimate.series.test_norms)
    arrays |= {name: Array(("step",), values) for name, values in discrepancies.arrays().items()}
    curves = [name for name, array in arrays.items() if array.dims == ("step",) and name != "step"]
    stopped = next((walk.stopped for walk in setup.walks if walk.stopped is not None), None)
    scalars: dict[str, float | int | str | bool | None] = {
        **{name: float(arrays[name].data[-1]) for name in curves},
        "form": plan.form,
        "exact": plan.form != "probes",
        "probes": estimate.probes,
        "passes": estimate.passes,
        "loss": problem.loss.kind,
        "decay": _decay(setup, options),
        "examples_train": n,
        "examples_test": m,
        "steps": discrepancies.step[-1],
        "stopped": stopped,
        **checks.scalars(),
    }
    provenance: dict[str, Any] = {
        "probe": None if setup.probe is None else setup.probe.name,
        "dtype": str(problem.dtype).removeprefix("torch."),
        "loss_factor": problem.loss.factor,
        "loss_reduction": problem.loss.reduction,
        "loss_spread": problem.loss.spread,
        "optimizer": setup.walks[0].optimizer,
        "tolerance_replayed": checks.tolerance.replayed,
        "tolerance_recorded": checks.tolerance.recorded,
        "checked_steps": checks.looked,
        "memory_estimated_mb": plan.memory / 1e6,
        "seconds": took,
        "torch": torch.__version__,
    }
    return Result(
        "effective-params", scalars, arrays, provenance, notes(trace, setup, estimate, scalars, options)
    )


def _series(series: Series, suffix: str, *, held: bool) -> dict[str, Array]:
    """Return p as the result's arrays."""
    found = {f"p_train{suffix}": series.train, f"p_train{suffix}_se": series.train_se}
    if held:
        found |= {f"p_test{suffix}": series.test, f"p_test{suffix}_se": series.test_se}
        found |= {f"gap{suffix}": series.test - series.train, f"gap{suffix}_se": series.gap_se}
    return {name: Array(("step",), values) for name, values in found.items()}


def _decay(setup: Setup, options: Options) -> str:
    return options.decay if setup.traits.decay else "none"
