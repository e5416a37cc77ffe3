"""Tangent kernels K_t = J_t J_tᵀ of a recorded run, from the trace to the result.

J_t is ∂f/∂θ at θ_t. Blocks are exact, by layers (math.md §4); `docs/metrics/kernel.md` says how to read them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor
from tscope_format.errors import AnalysisError, clean
from tscope_format.results import Array, Result

from tscope.analyses.effective.plan import seconds
from tscope.analyses.kernel.cost import check_memory, flops, megabytes, memory
from tscope.analyses.kernel.course import Course, Courses, kept_matrices
from tscope.analyses.kernel.notes import notes
from tscope.analyses.kernel.setup import Setup, prepare
from tscope.analyses.kernel.states import KernelState, plain_states, preconditioned_states
from tscope.kernels import Jacobian

if TYPE_CHECKING:
    from tscope.analyses.kernel.options import Options
    from tscope.analyses.metric import Watch
    from tscope.trace import Trace

# Of the intermediate values of one pass over the examples; more brings no speed.
_PASS_BYTES = 256e6


def analyse(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric.

    Raises:
        MissingDataError: The trace lacks what the kernels need.
        AnalysisError: The matrices do not fit, or the run cannot be followed to its preconditioner.
        UsageError: The options do not fit the trace.
    """
    setup = prepare(trace, options)
    check_memory(setup, options.max_memory_mb * 1e6)
    watch.say(_described(trace, setup, options))
    count = min(options.eigenvalues, *(size for size in setup.sizes if size))
    test = None if setup.test is None else Course(setup.test.labels, count)
    courses = Courses(Course(setup.train.labels, count), test)
    steps: list[int] = []
    matrices: dict[int, Tensor] = {}
    plain = True
    for state in _states(trace, setup, options):
        plain = plain and state.preconditioner is None
        step, blocks = int(trace.steps[state.row]), _blocks(setup, state, options)
        finite, matrix = courses.add(step, blocks, keep=state.row in setup.kept)
        if not finite:
            break
        steps.append(step)
        if matrix is not None:
            matrices[step] = matrix
        watch.progress(len(steps), len(setup.rows))
    if not steps:
        raise AnalysisError(
            "the run holds NaN or infinite values from its beginning; there is no kernel to analyse"
        )
    return _result(trace, options, setup, steps, courses, matrices, plain=plain)


def describe(trace: Trace, options: Options) -> str:
    """Return what would be computed and what it costs, in words."""
    setup = prepare(trace, options)
    check_memory(setup, options.max_memory_mb * 1e6)
    return _described(trace, setup, options)


def _described(trace: Trace, setup: Setup, options: Options) -> str:
    parameters = sum(entry.size for entry in trace.parameters)
    took = seconds(flops(setup, parameters, preconditioned=options.preconditioned), setup.dtype)
    held = 0 if setup.test is None else setup.test.count
    span = f"{took:.0f} s" if took < 100 else f"{took / 60:.0f} min"
    return (
        f"exact kernels at {len(setup.rows)} rows, of {setup.train.count} training and {held} held-out "
        f"examples with C = {setup.outputs}: about {span} of arithmetic, {megabytes(memory(setup))}"
    )


def _states(trace: Trace, setup: Setup, options: Options) -> Iterator[KernelState]:
    if options.preconditioned:
        return preconditioned_states(trace, setup.program, setup.rows, setup.dtype)
    return plain_states(trace, setup.rows, setup.dtype)


def _blocks(setup: Setup, state: KernelState, options: Options) -> Iterator[Tensor]:
    """Yield K of training × training, held-out × training and held-out × held-out examples, by layers.

    Each is (layer, row, output, column, output); the last two only where there are held-out examples.

    Raises:
        AnalysisError: Training moves none of the parameters that the model uses.
    """
    wrt = [name for name in setup.program.parameters if name in state.names]
    if not wrt:
        raise AnalysisError("training moves none of the parameters that the model uses: its kernel is zero")
    limit = int(min(_PASS_BYTES, options.max_memory_mb * 1e6))
    jacobian = Jacobian(setup.program, setup.functional, state.theta, state.buffers, wrt=wrt, memory=limit)
    groups, D = list(setup.layers.values()), state.preconditioner
    yield jacobian.blocks(setup.train.inputs, setup.train.inputs, groups, D)
    if setup.test is not None:
        yield jacobian.blocks(setup.test.inputs, setup.train.inputs, groups, D)
        yield jacobian.blocks(setup.test.inputs, setup.test.inputs, groups, D)


def _result(
    trace: Trace,
    options: Options,
    setup: Setup,
    steps: list[int],
    courses: Courses,
    matrices: dict[int, Tensor],
    *,
    plain: bool,
) -> Result:
    """Name what was found."""
    count = len(steps)
    arrays = {"step": Array(("step",), np.array(steps, dtype=np.int64))}
    arrays |= courses.arrays()
    for name, examples in (("train", setup.train), ("test", setup.test)):
        if examples is None:
            continue
        arrays[name] = Array((name,), examples.numbers)
        if examples.labels is not None:
            arrays[f"label_{name}"] = Array((name, "output"), examples.labels.numpy())
    arrays |= kept_matrices(matrices)
    curves = [name for name, array in arrays.items() if array.dims == ("step",) and name != "step"]
    scalars: dict[str, float | int | str | bool | None] = {
        **{name: float(arrays[name].data[-1]) for name in curves},
        "form": "gram",
        "examples_train": setup.train.count,
        "examples_test": 0 if setup.test is None else setup.test.count,
        "outputs": setup.outputs,
        "steps": steps[-1],
        "preconditioned": options.preconditioned,
        "probe": None if setup.probe is None else clean(setup.probe.name),
        "stopped": int(trace.steps[setup.rows[count]]) if count < len(setup.rows) else None,
    }
    provenance = {
        "layers": [clean(name) for name in setup.layers] if len(setup.layers) > 1 else [],
        "functional": setup.functional.kind,
        "positions": list(setup.functional.index),
        "dtype": str(setup.dtype).removeprefix("torch."),
        "unknown_labels": list(setup.unknown),
    }
    found = notes(trace, setup, scalars, plain=plain)
    return Result("kernel", scalars, arrays, provenance, found)
