"""The user's own module in place of a recorded program, for a trace that holds none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor
from tscope_format.errors import UsageError, clean

from tscope.program import Program
from tscope.program.export_tree import leaves
from tscope.program.graph import Graph, Input, Node, Ref

Named = Mapping[str, Tensor]


def user_program(
    spec: str | Callable[[], object],
    parameters: Named,
    buffers: Named,
    inputs: Sequence[Tensor],
    output: str | None = None,
) -> Program:
    """Build the model that `module:factory` makes, and check it against the recorded parameters.

    The module is searched for in the working folder too, as `python -m` would. This runs the user's code.

    Args:
        spec: `module:factory`, or the factory itself.
        parameters: The recorded parameters by name.
        buffers: The recorded buffers by name.
        inputs: The model's inputs, in the dtype of the evaluation, each (example, …).
        output: The path of the followed output among what the module returns ("logits", "0"; "" for a bare
            tensor); None takes the first floating-point tensor that has dimensions.

    Raises:
        UsageError: The factory cannot be found, raises, makes something else than a module, or a module whose
            parameters are not those of the trace.
    """
    factory = _factory(spec) if isinstance(spec, str) else spec
    name = clean(spec if isinstance(spec, str) else getattr(spec, "__name__", "the factory"))
    try:
        module = factory()
    except Exception as error:
        # Whatever the user's code raises is the reason; --debug shows where.
        raise UsageError(f"--model {name} raised {type(error).__name__}: {clean(error)}") from error
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"--model {name} made a {type(module).__name__}; a torch.nn.Module is needed")
    _check_names(name, module, parameters)
    held = [
        Input(kind, key, value.dtype, tuple(value.shape))
        for kind, values in (("parameter", parameters), ("buffer", buffers))
        for key, value in values.items()
    ]
    given = [
        Input("user", f"x{k}", value.dtype, tuple(value.shape), index=k, batch=True)
        for k, value in enumerate(inputs)
    ]
    floating = next(value.dtype for value in parameters.values() if value.is_floating_point())
    call = _call(module.eval(), [entry.name for entry in held], output)
    slots = tuple(Ref(1 + k) for k in range(len(held) + len(given)))
    graph = Graph(
        inputs=(*held, *given),
        nodes=(Node("module", "the module's forward", call, slots, {}),),
        output=1 + len(slots),
        output_path=output or "",
        outputs=(output or "",),
        batch=True,
        rows=None,
        least_rows=1,
        most_rows=None,
        default_dtype=floating,
    )
    return Program(graph, {})


def _call(module: torch.nn.Module, names: Sequence[str], output: str | None) -> Callable[..., Tensor]:
    """Return the module's forward as a function of its named tensors and then its inputs."""

    def call(*tensors: Tensor) -> Tensor:
        held = dict(zip(names, tensors, strict=False))
        returned = torch.func.functional_call(module, held, tensors[len(names) :])
        found = dict(leaves(returned))
        if output is not None and output in found:
            return found[output]
        for value in found.values():
            if value.is_floating_point() and value.dim() > 0:
                return value
        raise UsageError(f"{type(module).__name__} returns no floating-point tensor with dimensions")

    return call


def _check_names(name: str, module: torch.nn.Module, parameters: Named) -> None:
    own = {key: tuple(value.shape) for key, value in module.named_parameters()}
    recorded = {key: tuple(value.shape) for key, value in parameters.items()}
    differ = sorted(key for key in own.keys() | recorded.keys() if own.get(key) != recorded.get(key))
    if differ:
        first = differ[0]
        raise UsageError(
            f"--model {name} has other parameters than the trace, {len(differ)} of them, such as "
            f"{clean(first)}: "
            f"{own.get(first, 'absent')} in the module, {recorded.get(first, 'absent')} in the trace"
        )


def _factory(spec: str) -> Callable[[], object]:
    place, colon, attribute = spec.partition(":")
    if not (place and colon and attribute):
        raise UsageError(f"--model must be module:factory, got {clean(spec)!r}")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found = getattr(import_module(place), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--model {clean(spec)} cannot be found: {clean(error)}") from error
    if not callable(found):
        raise UsageError(
            f"--model {clean(spec)} is not callable; name a function or class that makes the module"
        )
    made: Callable[[], object] = found
    return made
