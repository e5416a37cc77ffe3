"""Effective parameters of a recorded run [Curth23, Jeffares24], from the trace to the result.

    p(I) = (n/|I|) ‖S_I‖_F² / C,   S_t = ∂f̃_t/∂y

with S the smoother of the telescoping model: what each prediction owes to each training label. The recursion
is math.md §2–3; `docs/metrics/effective-params.md` says how to read it.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tscope_format.errors import AnalysisError
from tscope_format.results import Array, Result

import tscope
from tscope.analyses.effective.columns import FormError
from tscope.analyses.effective.crew import Crew
from tscope.analyses.effective.estimate import FIRST_PROBES, Estimate, Passes, by_probes, exactly
from tscope.analyses.effective.notes import notes
from tscope.analyses.effective.partial import Lease, key_of
from tscope.analyses.effective.plan import Plan, Traits, choose, cost_of_probes, seconds
from tscope.analyses.effective.recursion import Choice
from tscope.analyses.effective.setup import Setup, prepare
from tscope.analyses.effective.worker import Opening

if TYPE_CHECKING:
    from tscope.analyses.effective.checks import Checks
    from tscope.analyses.effective.curve import Series
    from tscope.analyses.effective.options import Options
    from tscope.analyses.metric import Watch
    from tscope.trace import Trace


def analyse(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric.

    Raises:
        MissingDataError: The trace lacks what the recursion needs.
        AnalysisError: The run cannot be followed, the form does not fit, or a validity check fails.
        UsageError: The options do not fit the trace.
    """
    began = time.monotonic()
    # Processes that open a growing trace a moment later would see another run.
    options = replace(options, workers=1) if trace.status == "recording" else options
    setup = prepare(trace, options)
    traits = setup.traits
    while True:
        plan = _plan(setup, traits, options)
        watch.say(_described(setup, plan, options))
        checks = setup.checks()
        try:
            estimate = _estimate(trace, setup, plan, traits, checks, options, watch, began)
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
    return _result(trace, options, setup, plan, estimate, checks, time.monotonic() - began)


def describe(trace: Trace, options: Options) -> str:
    """Return which form would be used and what it costs, in words."""
    setup = prepare(trace, options)
    return _described(setup, _plan(setup, setup.traits, options), options)


def _described(setup: Setup, plan: Plan, options: Options) -> str:
    flops, what = plan.flops, ""
    if plan.form == "probes":
        # How many more are needed is not known before: that follows from the error of the first ones.
        flops = cost_of_probes(plan, FIRST_PROBES, options.workers)
        what = f" for the first {min(FIRST_PROBES, plan.columns)} probes"
    took = seconds(flops, setup.problem.dtype)
    shared = f", shared by {options.workers} processes," if options.workers > 1 else ""
    kept = _smoother_bytes(setup)
    also = f", and {kept / 1e6:.3g} MB for the smoother that is kept" if kept else ""
    return (
        f"{plan}: about {_span(took)} of arithmetic{what}{shared} at {setup.size.steps} steps, "
        f"{setup.size.points} points and {setup.size.parameters:,} parameters, "
        f"{plan.memory / 1e6:.0f} MB{also}"
    )


def _span(took: float) -> str:
    if took < 100:
        return f"{took:.0f} s"
    return f"{took / 60:.0f} min" if took < 6000 else f"{took / 3600:.0f} h"


def _smoother_bytes(setup: Setup) -> float:
    """Return what the smoother at the chosen rows takes: as columns of the basis, and of labels."""
    size = setup.size
    columns = size.directions + setup.directions.examples * size.outputs
    return len(setup.problem.chosen) * size.bytes * size.points * size.outputs * columns


def _plan(setup: Setup, traits: Traits, options: Options) -> Plan:
    """Return the form and its cost.

    Raises:
        AnalysisError: It does not fit.
    """
    limit, kept = setup.problem.memory, _smoother_bytes(setup)
    if kept > limit:
        raise AnalysisError(
            f"the smoother at {len(setup.problem.chosen)} steps takes {kept / 1e6:.3g} MB of the "
            f"{limit / 1e6:.3g} MB allowed (`--max-memory MB`); keep it at fewer steps (`--smoother`), or "
            "with fewer held-out examples (`--test N`)"
        )

    def chosen(form: str) -> Plan:
        frozen, workers = setup.problem.frozen, options.workers
        return choose(form, setup.size, traits, frozen=frozen, limit=limit - kept, workers=workers)

    plan = chosen(options.form)
    return chosen("parameter") if plan.form == "probes" and setup.problem.chosen else plan


def _estimate(
    trace: Trace,
    setup: Setup,
    plan: Plan,
    traits: Traits,
    checks: Checks,
    options: Options,
    watch: Watch,
    began: float,
) -> Estimate:
    """Walk the run by the plan."""
    generator = torch.Generator().manual_seed(options.seed)
    perturbation = setup.directions.perturbation(generator)
    form = "kernel" if plan.form == "kernel" else "parameter"
    choice = Choice(form, momentum=traits.momentum, decay=traits.decay, block=plan.block)
    opening = Opening(str(trace.path), trace.name, options)
    with (
        Lease(trace.path, "effective-params", _key(trace, setup, plan, choice, options), watch.say) as lease,
        Crew(opening, options.workers - 1, watch.say) as crew,
    ):
        passes = Passes(setup, choice, perturbation, checks, crew, lease.place, began, watch)
        if plan.form == "probes":
            return by_probes(passes, rtol=options.rtol, most=plan.columns, seed=options.seed)
        return exactly(passes, plan.columns)


def _key(trace: Trace, setup: Setup, plan: Plan, choice: Choice, options: Options) -> str:
    """Return the key of partial results: of all that the figures depend on."""
    parts = {
        "trace": trace.fingerprint,
        "root": trace.name,
        "rows": trace.rows,
        "options": asdict(options),
        "plan": asdict(plan),
        "choice": asdict(choice),
        "threads": torch.get_num_threads(),
        "versions": [tscope.__version__, torch.__version__, np.__version__],
    }
    problem = setup.problem
    inputs = {f"{k}/{j}": v for k, group in enumerate(problem.points.groups()) for j, v in enumerate(group)}
    return key_of(parts, {**inputs, "labels": problem.labels, "examples": problem.points.examples})


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
    arrays |= _smoother(setup, estimate)
    curves = [name for name, array in arrays.items() if array.dims == ("step",) and name != "step"]
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
        "stopped": estimate.stopped,
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
        "workers": options.workers,
        "torch": torch.__version__,
    }
    return Result(
        "effective-params", scalars, arrays, provenance, notes(trace, setup, estimate, scalars, options)
    )


def _smoother(setup: Setup, estimate: Estimate) -> dict[str, Array]:
    """Return S at the chosen rows, of the training and of the held-out examples."""
    if not estimate.smoother:
        return {}
    problem = setup.problem
    n, m = problem.points.counts
    S = torch.stack([setup.directions.labelled(found) for found in estimate.smoother]).numpy()
    places = [index for index, row in enumerate(problem.rows) if row in problem.chosen]
    steps = [estimate.discrepancies.step[index] for index in places[: len(S)]]
    found = {"smoother_step": Array(("smoother_step",), np.array(steps, dtype=np.int64))}
    for part, rows in (("train", S[:, :n]), ("test", S[:, n:])):
        if part == "train" or m:
            dims = ("smoother_step", part, "output", "label", "label_output")
            found[f"smoother_{part}"] = Array(dims, rows)
    return found


def _series(series: Series, suffix: str, *, held: bool) -> dict[str, Array]:
    """Return p as the result's arrays."""
    found = {f"p_train{suffix}": series.train, f"p_train{suffix}_se": series.train_se}
    if held:
        found |= {f"p_test{suffix}": series.test, f"p_test{suffix}_se": series.test_se}
        found |= {f"gap{suffix}": series.test - series.train, f"gap{suffix}_se": series.gap_se}
    return {name: Array(("step",), values) for name, values in found.items()}


def _decay(setup: Setup, options: Options) -> str:
    return options.decay if setup.traits.decay else "none"
