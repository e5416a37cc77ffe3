"""Tangent kernels from recorded sketches: K̂_t = Φ_t Φ_tᵀ of a probe set, where the parameters were not kept.

A sketch's columns are random (math.md §4): K̂ is K on average over their signs, and errs by about 1/√columns.
The error is estimated at every step from the two halves of the columns, and measured where the parameters are
known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tscope_format.errors import AnalysisError, MissingDataError, UsageError, clean
from tscope_format.results import Array, Result

from tscope.analyses.kernel.cost import megabytes, of_matrices
from tscope.analyses.kernel.course import Course, kept_matrices
from tscope.analyses.kernel.notes import sketch_notes
from tscope.analyses.kernel.setup import chosen_labels, drawn, probe_labels
from tscope.analyses.kernel.states import plain_states
from tscope.kernels import Jacobian
from tscope.program import OutputFunctional
from tscope.replay import replay_dtype
from tscope.replay.flat import tensor

if TYPE_CHECKING:
    from tscope.analyses.kernel.options import Options
    from tscope.analyses.kernel.setup import Numbers
    from tscope.analyses.metric import Watch
    from tscope.probes import ProbeSet
    from tscope.trace import Trace

_COMPARED = 4  # exact blocks, at most
_ONLY = "sketches are of a probe set only, not of training examples"


@dataclass(frozen=True, eq=False)
class Sketches:
    """What of a trace's sketches is taken.

    Attributes:
        probe: The probe set they are of.
        steps: Optimizer steps, increasing.
        places: Their rows in `sketch`.
        kept: The steps whose matrix is kept.
        compared: The steps, among `steps`, at which exact blocks are computed.
        numbers: The examples, in the probe set (example,).
        positions: The outputs, in the sketch.
        functional: The same outputs of the model.
        labels: y (example, output) float64; None where they are not known.
        columns: Of a sketch.
    """

    probe: ProbeSet
    steps: list[int]
    places: list[int]
    kept: frozenset[int]
    compared: list[int]
    numbers: Numbers
    positions: list[int]
    functional: OutputFunctional
    labels: Tensor | None
    columns: int

    @property
    def size(self) -> int:
        """The rows of the matrix, m·C."""
        return len(self.numbers) * len(self.positions)

    def read(self, trace: Trace) -> Iterator[Tensor]:
        """Yield Φ (example·output, column) float64 of each step."""
        for place in self.places:
            found = trace.reader.read(f"probe/{self.probe.name}/sketch", place, place + 1)[0]
            chosen = found[self.numbers][:, self.positions].reshape(self.size, -1)
            yield torch.from_numpy(chosen).double()


def prepare(trace: Trace, options: Options) -> Sketches:
    """Open a trace's sketches.

    Raises:
        UsageError: The options do not fit the sketches.
        MissingDataError: No row was sketched.
        AnalysisError: The matrices do not fit in memory.
    """
    for name in ("train", "labels"):
        if getattr(options, name) is not None:
            raise UsageError(f"--{name}: {_ONLY}")
    if options.loss != "auto":
        raise UsageError(f"--loss: {_ONLY}")
    probe = _probe(trace, options.probe)
    known: list[int] = trace.reader.read(f"probe/{probe.name}/sketch_step").tolist()
    if not known:
        raise MissingDataError(f"{clean(trace.path)}: no row of {clean(probe.name)} was sketched in time")
    steps = _steps(known, options)
    kept = frozenset(() if options.matrix is None else _asked(known, options.matrix, "matrix"))
    strange = sorted(kept - set(steps))
    if strange:
        raise UsageError(
            f"--matrix: no kernel is taken at step {strange[0]}; name it in `--at` too, which chooses the "
            "rows"
        )
    shape = trace.reader.arrays()[f"probe/{probe.name}/sketch"].shape
    positions, functional = _outputs(probe, shape[2], options)
    numbers = drawn("test", "probe", probe.examples, options.test, len(positions), options.seed)
    size = math.prod(int(length) for length in probe.attributes["output_shape"][1:])
    labels = chosen_labels(probe_labels(probe, size), numbers, list(_flat(functional, size)), size)
    found = Sketches(
        probe,
        steps,
        [known.index(step) for step in steps],
        kept,
        _compared(trace, steps),
        numbers,
        positions,
        functional,
        labels,
        shape[3],
    )
    _check_memory(found, options.max_memory_mb * 1e6)
    return found


def describe(trace: Trace, options: Options) -> str:
    """Return what would be computed, in words."""
    return _described(prepare(trace, options))


def analyse(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric from sketches.

    Raises:
        UsageError: The options do not fit the sketches.
        MissingDataError: No row was sketched.
        AnalysisError: The matrices do not fit in memory, or the run is not finite from its beginning.
    """
    sketches = prepare(trace, options)
    watch.say(_described(sketches))
    course = Course(sketches.labels, min(options.eigenvalues, sketches.size))
    exact = iter(_exact(trace, sketches, options))
    measured: dict[int, float] = {}
    estimated: list[float] = []
    matrices: dict[int, Tensor] = {}
    m, c = len(sketches.numbers), len(sketches.positions)
    for step, Phi in zip(sketches.steps, sketches.read(trace), strict=True):
        K, error = estimate(Phi)
        if not course.add(step, K.view(1, m, c, m, c)):
            break
        estimated.append(error)
        if step in sketches.compared:
            truth = next(exact, None)  # none where θ itself is not finite
            if truth is not None:
                measured[step] = float((K - truth).norm() / truth.norm())
        if step in sketches.kept:
            matrices[step] = K.view(m, c, m, c).float()
        watch.progress(len(estimated), len(sketches.steps))
    if not estimated:
        raise AnalysisError(
            "the sketches hold NaN or infinite values from their beginning; there is no kernel to analyse"
        )
    return _result(trace, sketches, course, estimated, measured, matrices)


def estimate(Phi: Tensor) -> tuple[Tensor, float]:
    """Return K̂ = Φ Φᵀ, and an estimate of ‖K̂ − K‖_F/‖K‖_F from the two halves of the columns.

    Each half is a sketch of its own: the mean of ‖K̂_1 − K̂_2‖² is four times that of ‖K̂ − K‖², and ‖K̂‖² is
    larger than ‖K‖² by the latter.

    Args:
        Phi: (row, column).
    """
    columns = Phi.shape[1]
    half = columns // 2
    first = Phi[:, :half] @ Phi[:, :half].T
    second = Phi[:, half : 2 * half] @ Phi[:, half : 2 * half].T
    square = float((first - second).square().sum()) * columns / (2 * half)
    K = first.add_(second)
    if columns % 2:
        K += Phi[:, -1:] @ Phi[:, -1:].T
    truth = float(K.square().sum()) - square
    return K, math.sqrt(square / truth) if truth > 0 else math.nan


def _exact(trace: Trace, sketches: Sketches, options: Options) -> Iterator[Tensor]:
    """Yield K (row, column) float64 at the steps that are compared."""
    dtype = replay_dtype(trace, options.dtype)
    program = trace.program().to(dtype)
    arrays = (array[sketches.numbers] for array in sketches.probe.inputs)
    inputs = [tensor(array, str(array.dtype)) for array in arrays]
    inputs = [value.to(dtype) if value.is_floating_point() else value for value in inputs]
    rows = [trace.row(step) for step in sketches.compared]
    for state in plain_states(trace, rows, dtype):
        wrt = [name for name in program.parameters if name in state.names]
        jacobian = Jacobian(program, sketches.functional, state.theta, state.buffers, wrt=wrt)
        yield jacobian.block(inputs, inputs).double().reshape(sketches.size, sketches.size)


def _described(sketches: Sketches) -> str:
    return (
        f"kernels estimated from sketches of {sketches.columns:,} columns at {len(sketches.steps)} steps, of "
        f"{len(sketches.numbers)} examples of {clean(sketches.probe.name)} with C = "
        f"{len(sketches.positions)}; exact ones at {len(sketches.compared)} of them, to tell the error"
    )


def _probe(trace: Trace, asked: str | None) -> ProbeSet:
    """Return the probe set whose sketches are taken: the one asked for, else the first held-out one."""
    arrays = trace.reader.arrays()
    there = [probe for name, probe in trace.probes.items() if f"probe/{name}/sketch" in arrays]
    if asked is None:
        return min(there, key=lambda probe: probe.in_sample)
    found = next((probe for probe in there if probe.name == asked), None)
    if found is None:
        names = ", ".join(clean(probe.name) for probe in there)
        raise UsageError(f"--probe {clean(asked)}: there are sketches of the probe sets {names} only")
    return found


def _steps(known: list[int], options: Options) -> list[int]:
    if options.at is not None:
        return sorted({known[0], *_asked(known, options.at, "at")})
    return sorted({*known[:: options.every or 1], known[-1]})


def _asked(known: list[int], steps: str, name: str) -> list[int]:
    """Return the steps that were asked for, each of which must have been sketched."""
    found = [known[-1] if step == "last" else int(step) for step in steps.split(",")]
    for step in found:
        if step not in known:
            nearest = min(known, key=lambda other: abs(other - step))
            raise UsageError(f"--{name}: step {step} was not sketched; the nearest that was is {nearest}")
    return found


def _outputs(probe: ProbeSet, recorded: int, options: Options) -> tuple[list[int], OutputFunctional]:
    """Return the positions taken of the outputs that were sketched, and the functional of the same ones."""
    positions = list(range(recorded))
    if options.probe_output not in (None, "full"):
        chosen, _ = OutputFunctional.choose(str(options.probe_output), (1, recorded), [], None)
        positions = list(chosen.index)
    attributes: Mapping[str, Any] = probe.attributes
    index = list(attributes["index"]) if attributes["functional"] == "index" else list(range(recorded))
    if attributes["functional"] == "full" and len(positions) == recorded:
        return positions, OutputFunctional()
    return positions, OutputFunctional("index", tuple(int(index[position]) for position in positions))


def _flat(functional: OutputFunctional, size: int) -> tuple[int, ...]:
    return functional.index if functional.kind == "index" else tuple(range(size))


def _compared(trace: Trace, steps: list[int]) -> list[int]:
    """Return a few of the steps at which the parameters are known, the first and the last among them."""
    rows = trace.reader.theta_rows
    known = steps if rows is None else sorted(set(steps) & {int(trace.steps[row]) for row in rows})
    places = np.unique(np.linspace(0, len(known) - 1, min(_COMPARED, len(known))).round().astype(int))
    return [known[place] for place in places.tolist()]


def _check_memory(sketches: Sketches, limit: float) -> None:
    """Refuse matrices that would not fit.

    Raises:
        AnalysisError: They would not; the message says what does.
    """
    q = sketches.size
    need = (
        of_matrices(0, q, 1, 8) + 2 * 8 * q * q + 12 * q * sketches.columns + 4 * len(sketches.kept) * q * q
    )
    if need > limit:
        raise AnalysisError(
            f"kernels of {q:,} rows (examples times {len(sketches.positions)} outputs) need "
            f"{megabytes(need)} of the {megabytes(limit)} allowed (`--max-memory MB`); take fewer: "
            "`--test N`, `--probe-output 0:4`"
        )


def _result(
    trace: Trace,
    sketches: Sketches,
    course: Course,
    estimated: list[float],
    measured: Mapping[int, float],
    matrices: Mapping[int, Tensor],
) -> Result:
    """Name what was found."""
    count = len(estimated)
    steps = np.array(sketches.steps[:count], dtype=np.int64)
    arrays = {"step": Array(("step",), steps)}
    arrays |= course.arrays("test", count)
    arrays["error_test"] = Array(("step",), np.array(estimated))
    arrays["exact_step"] = Array(("exact_step",), np.array(list(measured), dtype=np.int64))
    arrays["error_exact_test"] = Array(("exact_step",), np.array(list(measured.values())))
    arrays["test"] = Array(("test",), sketches.numbers)
    if sketches.labels is not None:
        arrays["label_test"] = Array(("test", "output"), sketches.labels.numpy())
    arrays |= kept_matrices(matrices)
    curves = [name for name, array in arrays.items() if array.dims == ("step",) and name != "step"]
    scalars: dict[str, float | int | str | bool | None] = {
        **{name: float(arrays[name].data[-1]) for name in curves},
        "error_exact_test": max(measured.values(), default=None),
        "form": "sketch",
        "columns": sketches.columns,
        "examples_train": 0,
        "examples_test": len(sketches.numbers),
        "outputs": len(sketches.positions),
        "steps": int(steps[-1]),
        "preconditioned": False,
        "probe": clean(sketches.probe.name),
        "stopped": sketches.steps[count] if count < len(sketches.steps) else None,
    }
    provenance = {
        "layers": [],
        "functional": sketches.functional.kind,
        "positions": list(sketches.functional.index),
        "dtype": "float32",
        "generator": dict(sketches.probe.attributes["sketch"]),
    }
    return Result("kernel", scalars, arrays, provenance, sketch_notes(trace, sketches, scalars))
