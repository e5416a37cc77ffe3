"""Put a probe set under a trace's model: load, cast, choose the functional, bound the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from tscope_format.errors import AnalysisError, clean

from tscope.program import OutputFunctional, Program, evaluate
from tscope.program.derivatives import chunks
from tscope.replay.evaluation import Evaluation
from tscope.replay.flat import Tensors, tensor
from tscope.replay.memory import examples_that_fit
from tscope.replay.replay import Replay
from tscope.replay.user_model import user_program

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tscope.probes import ProbeSet
    from tscope.trace import Trace


def replay_dtype(trace: Trace, asked: str | None) -> torch.dtype:
    """Return the dtype to replay in: as asked, else float64 for a model trained in it, else float32."""
    trained = "float64" if any(entry.dtype == "float64" for entry in trace.parameters) else "float32"
    return torch.float64 if (asked or trained) == "float64" else torch.float32


def probing(
    trace: Trace,
    probe: ProbeSet,
    *,
    dtype: torch.dtype,
    model: str | Callable[[], object] | None = None,
    output: str | None = None,
    max_bytes: float = 512e6,
) -> tuple[Evaluation, tuple[int, ...], str]:
    """Return the probe set's evaluation, the shape of the model's output on it, and a note on the functional.

    Args:
        trace: The run.
        probe: The probe set.
        dtype: Floating-point tensors are cast to this.
        model: The user's own model instead of the recorded program.
        output: The functional of the output: auto, full, logprob, loss or positions. None takes what the
            recorder followed on this probe set, else auto.
        max_bytes: Bound on the memory of one pass.

    Raises:
        UsageError: The probe set does not fit the model, or the functional the output.
        AnalysisError: The functional is not the recorded one.
    """
    _, theta, buffers = next(Replay(trace, dtype=dtype).rows(0, 1))
    inputs = tuple(_cast(array, dtype) for array in probe.inputs)
    target = None if probe.target is None else _cast(probe.target, dtype)
    program = _program(trace, model, theta, buffers, inputs, dtype)
    shape = (probe.examples, *_first_output(program, theta, buffers, inputs).shape[1:])
    spec = output or recorded_output(probe)
    functional, note = OutputFunctional.choose(spec, shape, inputs, target)

    def run(count: int) -> torch.Tensor:
        return evaluate(
            program, functional.rows(0, count), theta, buffers, [value[:count] for value in inputs]
        )

    chunk = examples_that_fit(run, probe.examples, max_bytes)
    if output is None:
        _check_outputs(trace, probe, functional, run(min(2, probe.examples)).shape[1])
    return Evaluation(program, functional, inputs, chunk), shape, note


def recorded_output(probe: ProbeSet) -> str:
    """Return the functional that was recorded for a probe set, as an option; auto for a new one."""
    kind = str(probe.attributes.get("functional", "auto"))
    positions = probe.attributes.get("index")
    if kind == "index":
        return ",".join(str(position) for position in positions) if positions else "auto"
    return kind


def _program(
    trace: Trace,
    model: str | Callable[[], object] | None,
    theta: Tensors,
    buffers: Tensors,
    inputs: tuple[torch.Tensor, ...],
    dtype: torch.dtype,
) -> Program:
    if model is None:
        return trace.program().to(dtype)
    return user_program(model, theta, buffers, inputs, trace.reader.attributes.get("output_path"))


def _first_output(
    program: Program, theta: Tensors, buffers: Tensors, inputs: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    part = next(chunks(program, OutputFunctional(), inputs, 2))
    with torch.no_grad():
        return program(theta, buffers, part.inputs)


def _cast(array: NDArray[Any], dtype: torch.dtype) -> torch.Tensor:
    value = tensor(array, str(array.dtype))
    return value.to(dtype) if value.is_floating_point() else value


def _check_outputs(trace: Trace, probe: ProbeSet, functional: OutputFunctional, outputs: int) -> None:
    """Refuse to replay another functional than was recorded under the probe set's name."""
    if trace.probes.get(probe.name) is not probe:
        return  # a file that happens to have the name of a recorded probe set
    info = trace.reader.arrays().get(f"probe/{probe.name}/output")
    if info is not None and info.shape[2] != outputs:
        raise AnalysisError(
            f"the recorder followed {info.shape[2]} output(s) of probe set {clean(probe.name)}, but "
            f"{functional.kind} "
            f"gives {outputs}; choose with `--probe-output`"
        )
