"""How far the gradients of a recorded network's outputs move, from the trace to the result.

∇_l f_t(x) are the C rows of J_t^(l)(x) = ∂f(x)/∂θ^(l) at θ_t. `docs/metrics/gradients.md` says how to read
it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from tscope_format.errors import AnalysisError, clean
from tscope_format.results import Array, Result

from tscope.analyses.effective.plan import seconds
from tscope.analyses.gradients.change import Sums, compare
from tscope.analyses.gradients.rows import Plan, plan_for
from tscope.analyses.gradients.statistics import Settled, settle
from tscope.analyses.kernel.cost import megabytes
from tscope.analyses.kernel.states import KernelState, plain_states
from tscope.analyses.standing import standing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.analyses.gradients.options import Options
    from tscope.analyses.kernel.setup import Examples
    from tscope.analyses.metric import Watch
    from tscope.trace import Trace

    Values = NDArray[np.float64]

# Of the intermediate values of one pass over the examples; more brings no speed.
_PASS_BYTES = 256e6


def analyse(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric.

    Raises:
        MissingDataError: The trace lacks what the gradients need.
        AnalysisError: They do not fit in memory, or the run is not finite from its beginning.
        UsageError: The options do not fit the trace.
    """
    began = time.monotonic()
    plan = plan_for(trace, options)
    setup = plan.setup
    watch.say(_described(plan))
    own = [_own(state) for state in plain_states(trace, plan.rows, setup.dtype)]
    settled = settle(trace, setup, options, own)
    states = settled.states
    total = setup.train.count + (0 if setup.test is None else setup.test.count)
    sums: dict[str, Sums] = {}
    done = 0
    for name, examples in _sets(plan):
        for count, found in compare(plan, states, examples, int(min(_PASS_BYTES, plan.memory))):
            sums[name] = found
            watch.progress(done + count, total)
        done += examples.count
    rows = _finite(plan, states, sums)
    arrays, scalars = _series(trace, plan, rows, sums, options.stable)
    stopped = None if len(rows) == len(plan.rows) else int(trace.steps[plan.rows[len(rows)]])
    provenance = {
        "layers": [clean(name) for name in plan.layers],
        "functional": setup.functional.kind,
        "positions": list(setup.functional.index),
        "dtype": str(setup.dtype).removeprefix("torch."),
        "examples_at_once": plan.together,
        "seconds": time.monotonic() - began,
        "torch": torch.__version__,
    }
    scalars |= {
        "stable": options.stable,
        "examples_train": setup.train.count,
        "examples_test": 0 if setup.test is None else setup.test.count,
        "outputs": setup.outputs,
        "steps": int(trace.steps[rows[-1]]),
        "probe": None if setup.probe is None else clean(setup.probe.name),
        "recalibrated": settled.examples is not None,
        "stopped": stopped,
    }
    return Result("gradients", scalars, arrays, provenance, _notes(trace, plan, settled, stopped))


def describe(trace: Trace, options: Options) -> str:
    """Return what would be computed and what it costs, in words."""
    return _described(plan_for(trace, options))


def _described(plan: Plan) -> str:
    setup = plan.setup
    held = 0 if setup.test is None else setup.test.count
    parameters = sum(
        math.prod(entry.shape) for entry in setup.program.graph.inputs if entry.name in set(plan.names)
    )
    # C backward passes, the products that gradients are, their squares, and those of differences.
    each = setup.outputs * parameters * (8.0 + 4 * len(plan.since))
    took = seconds(len(plan.rows) * (setup.train.count + held) * each, setup.dtype)
    span = f"{took:.0f} s" if took < 100 else f"{took / 60:.0f} min"
    return (
        f"gradients at {len(plan.rows)} rows against {len(plan.since)} of them, of {setup.train.count} "
        f"training and {held} held-out examples with C = {setup.outputs}: about {span} of arithmetic, "
        f"{megabytes(plan.memory)}"
    )


def _sets(plan: Plan) -> list[tuple[str, Examples]]:
    test = plan.setup.test
    return [("train", plan.setup.train), *([] if test is None else [("test", test)])]


def _own(state: KernelState) -> KernelState:
    """Return a state that does not hold the block of rows it was read with."""
    theta = {name: value.clone() for name, value in state.theta.items()}
    buffers = {name: value.clone() for name, value in state.buffers.items()}
    return KernelState(state.row, theta, buffers, state.names)


def _finite(plan: Plan, states: Sequence[KernelState], sums: dict[str, Sums]) -> list[int]:
    """Return the rows up to the first with a gradient that is not finite.

    Raises:
        AnalysisError: There are not two.
    """
    finite = [state.row for state in states]
    for found in sums.values():
        good = [bool(np.isfinite(row).all()) for row in found.square]
        finite = finite[: good.index(False)] if False in good[: len(finite)] else finite
    if not finite or finite[-1] <= plan.since[0]:
        raise AnalysisError(
            "the run holds NaN or infinite values, or gradients, before any step that the first of `--since` "
            "could be compared with"
        )
    return finite


def _series(
    trace: Trace, plan: Plan, rows: list[int], sums: dict[str, Sums], stable: float
) -> tuple[dict[str, Array], dict[str, float | int | str | bool | None]]:
    """Name what was found."""
    since = [row for row in plan.since if row in rows]
    starts = [rows.index(row) for row in since]
    arrays = {
        "since": Array(("since",), trace.steps[since]),
        "step": Array(("step",), trace.steps[rows]),
    }
    scalars: dict[str, float | int | str | bool | None] = {}
    for name, found in sums.items():
        kept = Sums(
            found.square[: len(rows)],
            found.apart[: len(since), : len(rows)],
            found.examples,
        )
        change, cosine = kept.change(starts)
        largest = _largest(change)
        for kind, values in (("change", change), ("cosine", cosine)):
            arrays[f"{kind}_{name}"] = Array(("since", "step"), values[..., -1])
            arrays[f"{kind}_layer_{name}"] = Array(("since", "step", "layer"), values[..., :-1])
            arrays[f"{kind}_end_{name}"] = Array(("since",), values[:, -1, -1])
            arrays[f"{kind}_end_layer_{name}"] = Array(("since", "layer"), values[:, -1, :-1])
        arrays[f"change_max_{name}"] = Array(("since",), largest[:, -1])
        arrays[f"change_max_layer_{name}"] = Array(("since", "layer"), largest[:, :-1])
        arrays[f"size_{name}"] = Array(("step", "layer"), kept.square / found.examples)
        steps = _stabilised(trace.steps[since].astype(np.float64), largest, starts, len(rows), stable)
        arrays[f"stabilised_layer_{name}"] = Array(("layer",), steps[:-1])
        scalars[f"stabilised_{name}"] = None if math.isnan(steps[-1]) else int(steps[-1])
        scalars[f"change_{name}"] = float(change[0, -1, -1])
        scalars[f"cosine_{name}"] = float(cosine[0, -1, -1])
    for name, examples in _sets(plan):
        arrays[name] = Array((name,), examples.numbers)
    return arrays, scalars


def _largest(change: Values) -> Values:
    """Return the largest change of any row from t' on (since, layer); NaN where it is not defined."""
    found = np.full((change.shape[0], change.shape[2]), np.nan)
    known = np.isfinite(change).any(1)
    found[known] = np.nanmax(np.where(np.isfinite(change), change, -np.inf), 1)[known]
    return found


def _stabilised(
    since: Values, largest: Values, starts: list[int], rows: int, stable: float
) -> NDArray[np.float64]:
    """Return the first t' from which on nothing changes by more than `stable` (layer,); NaN if none is.

    The last row has none after it, so it says nothing.
    """
    steps = np.full(largest.shape[1], np.nan)
    for place in reversed(range(len(since))):
        if starts[place] < rows - 1:
            steps[largest[place] <= stable] = since[place]
    return steps


def _notes(trace: Trace, plan: Plan, settled: Settled, stopped: int | None) -> tuple[str, ...]:
    found = []
    probe = plan.setup.probe
    if probe is None:
        found.append("no held-out examples: give some with `--probe FILE.npz`")
    elif probe.in_sample:
        found.append(f"probe set {clean(probe.name)} is in-sample: its examples were trained on")
    if settled.examples is not None:
        found.append(
            f"BatchNorm's statistics of every row are those of {settled.examples} training examples in "
            f"batches of {settled.batch} (`--no-recalibrate`: the recorded ones)"
        )
    elif trace.reader.buffers_move:
        found.append("gradients are those of the model in evaluation mode, with the buffers of each row")
    if stopped is not None:
        found.append(f"the run or its gradients are not finite at step {stopped}; figures end before")
    return (*found, *standing(trace))
