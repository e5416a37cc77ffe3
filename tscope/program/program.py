"""A recorded model that can be evaluated at any parameters, without the code that defined it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from tscope_format.errors import AnalysisError, TraceError, UsageError, clean

from tscope.program.export_shield import ad_friendly
from tscope.program.forward import Bind, Step, forward_steps
from tscope.program.graph import DEVICE, Graph, Input, Node, Ref, parse, references

Array = np.ndarray[Any, Any]


class Program:
    """The model as a pure function (parameters, buffers, inputs) → the selected output (example, …).

    Attributes:
        parameters: names of the parameters it uses, as in the module's own state dict.
        buffers: names of the buffers it uses.
        inputs: how many input tensors a caller must give: one more than the last that is used. They are the
            tensors of the recorded call, in order; those after the last one used may be left out.
        arguments: what is known of each input that is used.
        dtype: the floating dtype everything is evaluated in; None means as recorded.
        batch: whether any number of rows can be evaluated; else exactly `rows` (None: the inputs as they
            were recorded, whose rows are not examples).
        steps: the nodes, ready to be called: a function, how to get its arguments from the slots, and which
            slots are not needed after it.
        forward_steps: the same for dual numbers.
        kernels: a context that chooses among torch's kernels of an operator: those with all derivatives.
        forward_derivatives: False once an operator was found to have no forward derivative.
    """

    def __init__(
        self, graph: Graph, constants: Mapping[str, Tensor], dtype: torch.dtype | None = None
    ) -> None:
        self.graph = graph
        self.constants = dict(constants)
        self.dtype = dtype
        self.parameters = tuple(entry.name for entry in graph.inputs if entry.kind == "parameter")
        self.buffers = tuple(entry.name for entry in graph.inputs if entry.kind == "buffer")
        self.arguments = tuple(entry for entry in graph.inputs if entry.kind == "user")
        self.inputs = max((entry.index + 1 for entry in self.arguments), default=0)
        self.batch = graph.batch
        self.rows = graph.rows
        self.output_path = graph.output_path
        self.forward_derivatives = True
        self.kernels: Callable[[], AbstractContextManager[None]] = ad_friendly
        self.steps = _compile(graph)
        self.forward_steps = forward_steps(graph, self.steps)

    @classmethod
    def load(
        cls, graph: Mapping[str, Any], constants: Mapping[str, np.ndarray[Any, Any] | Tensor]
    ) -> Program:
        """Return the program of a trace's graph (JSON object) and constants.

        Raises:
            TraceError: if the graph is damaged, uses an operator that is not allowed, or lacks a constant.
        """
        checked = parse(graph)
        tensors = {}
        for entry in checked.inputs:
            if entry.kind != "constant":
                continue
            if entry.name not in constants:
                raise TraceError(f"program: the constant {clean(entry.name)!r} is missing from the trace")
            tensors[entry.name] = _constant(entry, constants[entry.name])
        return cls(checked, tensors)

    def to(self, dtype: torch.dtype) -> Program:
        """Return the same program with every floating tensor, constant and cast in `dtype`."""
        if not dtype.is_floating_point:
            raise UsageError(f"a program is evaluated in a floating dtype, not {dtype}")
        nodes = tuple(
            dataclasses.replace(
                node,
                args=tuple(_in_dtype(value, dtype) for value in node.args),
                kwargs={key: _in_dtype(value, dtype) for key, value in node.kwargs.items()},
            )
            for node in self.graph.nodes
        )
        graph = dataclasses.replace(self.graph, nodes=nodes, default_dtype=dtype)
        constants = {name: _cast(tensor, dtype) for name, tensor in self.constants.items()}
        return Program(graph, constants, dtype)

    def as_trained(self) -> Program:
        """Return the same program by the kernels that training used, which round as it did.

        Some of them (oneDNN's) have no forward derivative.
        """
        program = copy.copy(self)
        program.kernels = nullcontext
        return program

    def cast(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return `tensors` in the dtype of the evaluation; those already in it are not copied."""
        return {name: _cast(tensor, self.dtype) for name, tensor in tensors.items()}

    def __call__(
        self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], inputs: Sequence[Tensor]
    ) -> Tensor:
        """Return the selected output (example, …) at the given parameters and buffers.

        Every other name in the mappings is ignored, so whole state dicts can be given.

        Raises:
            UsageError: if an input is missing, or has another shape or kind of dtype than in the run.
            AnalysisError: if a parameter or buffer is missing, or memory runs out.
            TraceError: if an operator fails.
        """
        values = self.slots(parameters, buffers, inputs)
        try:
            self.run(values, self.steps, range(len(self.steps)))
        except NotImplementedError as error:
            raise TraceError(f"program: {clean(error)[:300]}") from error
        output = values[self.graph.output]
        assert isinstance(output, Tensor)  # by the kinds that were checked
        return output

    def run(
        self, values: list[Any], steps: Sequence[Step], positions: Iterable[int], *, keep: bool = False
    ) -> None:
        """Evaluate the nodes at `positions` from the slots' values, in place.

        Values are dropped after their last use unless they are to be kept.

        Raises:
            NotImplementedError: under dual numbers, if an operator has no forward derivative.
            AnalysisError: if memory runs out.
            TraceError: if an operator fails otherwise.
        """
        first = 1 + len(self.graph.inputs)
        position = 0
        with self.settings():
            try:
                for position in positions:
                    function, bind, frees = steps[position]
                    args, kwargs = bind(values)
                    values[first + position] = function(*args, **kwargs)
                    if not keep:
                        for slot in frees:
                            values[slot] = None
            except NotImplementedError:
                raise  # no forward derivative: the caller knows another way
            except (RuntimeError, TypeError, ValueError, IndexError, ZeroDivisionError) as error:
                raise self._failure(position, error) from error

    @contextmanager
    def settings(self) -> Iterator[None]:
        """Set the flags under which the program was exported: the same kernels, and ones with derivatives."""
        default = torch.get_default_dtype()
        with self.kernels():
            torch.set_default_dtype(self.graph.default_dtype)
            try:
                yield
            finally:
                torch.set_default_dtype(default)

    def slots(
        self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], inputs: Sequence[Tensor]
    ) -> list[Any]:
        """Return all slots, filled up to the first node, and checked against what was recorded."""
        if len(inputs) < self.inputs:
            names = ", ".join(clean(entry.name) for entry in self.arguments)
            raise UsageError(f"the model needs {self.inputs} inputs ({names}), got {len(inputs)}")
        tables: dict[str, Mapping[str, Tensor]] = {"parameter": parameters, "buffer": buffers}
        values: list[Any] = [None]
        for entry in self.graph.inputs:
            if entry.kind == "user":
                value = self._input(entry, inputs[entry.index])
            elif entry.kind == "constant":
                value = self.constants[entry.name]
            else:
                table = tables[entry.kind]
                if entry.name not in table:
                    raise AnalysisError(f"the {entry.kind} {clean(entry.name)!r} of the model was not given")
                value = _cast(table[entry.name], self.dtype)
            values.append(value)
        values[DEVICE] = self._device(values)
        for slot, entry in enumerate(self.graph.inputs, 1):
            if entry.kind == "constant":
                values[slot] = values[slot].to(values[DEVICE])
        return values + [None] * len(self.steps)

    def _device(self, values: list[Any]) -> torch.device:
        """Return the device of what the caller gave."""
        for value, entry in zip(values[1:], self.graph.inputs, strict=True):
            if entry.kind != "constant":
                return cast(Tensor, value).device
        return torch.device("cpu")

    def _failure(self, position: int, error: Exception) -> AnalysisError | TraceError:
        node = self.graph.nodes[position]
        lines = str(error).splitlines()
        reason = clean(lines[0] if lines else type(error).__name__)[:300]
        if "allocate" in reason or "out of memory" in reason:
            return AnalysisError(f"not enough memory to evaluate the model ({reason}); use smaller chunks")
        return TraceError(f"program: the node {clean(node.name)!r} ({node.target}) failed: {reason}")

    def _input(self, entry: Input, value: Tensor) -> Tensor:
        free = 1 if entry.batch else 0
        if value.dim() != len(entry.shape) or tuple(value.shape[free:]) != entry.shape[free:]:
            expected = ", ".join(("rows", *map(str, entry.shape[1:])) if free else map(str, entry.shape))
            raise UsageError(
                f"the input {clean(entry.name)!r} has the shape {tuple(value.shape)}, "
                f"the model takes ({expected})"
            )
        if value.is_floating_point() != entry.dtype.is_floating_point:
            raise UsageError(
                f"the input {clean(entry.name)!r} is {_short(value.dtype)}, "
                f"the model takes {_short(entry.dtype)}"
            )
        if not entry.dtype.is_floating_point:
            return value.to(entry.dtype)
        return value.to(self.dtype or entry.dtype)


def _compile(graph: Graph) -> tuple[Step, ...]:
    """Return the nodes as a flat list of calls, with each value dropped after its last use."""
    last: dict[int, int] = {}
    for position, node in enumerate(graph.nodes):
        for slot in references((node.args, node.kwargs)):
            last[slot] = position
    kept = {0, graph.output}
    freed: dict[int, list[int]] = {}
    for slot, position in last.items():
        if slot not in kept:
            freed.setdefault(position, []).append(slot)
    return tuple(
        (node.function, _bind(node), tuple(freed.get(position, ())))
        for position, node in enumerate(graph.nodes)
    )


def _bind(node: Node) -> Bind:
    """Return what fills a node's references. Most nodes have them at the top level only, which is quick."""
    args, kwargs = node.args, node.kwargs
    nested = any(not isinstance(value, Ref) and any(True for _ in references(value)) for value in args)
    if nested or any(True for _ in references(kwargs)):
        return lambda values: (_fill(args, values), _fill(kwargs, values))
    template = list(args)
    places = [(place, value.slot) for place, value in enumerate(args) if isinstance(value, Ref)]

    def bind(values: list[Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        filled = template.copy()
        for place, slot in places:
            filled[place] = values[slot]
        return filled, kwargs

    return bind


def _fill(value: Any, values: list[Any]) -> Any:
    if isinstance(value, Ref):
        return values[value.slot]
    if isinstance(value, (list, tuple)):
        return [_fill(part, values) for part in value]
    if isinstance(value, dict):
        return {key: _fill(part, values) for key, part in value.items()}
    if isinstance(value, slice):
        return slice(*(_fill(part, values) for part in (value.start, value.stop, value.step)))
    return value


def _in_dtype(value: Any, dtype: torch.dtype) -> Any:
    """Return an argument with its floating and complex dtypes replaced."""
    if isinstance(value, torch.dtype):
        if value.is_floating_point:
            return dtype
        return dtype.to_complex() if value.is_complex else value
    if isinstance(value, list):
        return [_in_dtype(part, dtype) for part in value]
    return value


def _cast(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype is None:
        return tensor
    if tensor.is_floating_point():
        return tensor.to(dtype)
    return tensor.to(dtype.to_complex()) if tensor.is_complex() else tensor


def _constant(entry: Input, value: Array | Tensor) -> Tensor:
    if isinstance(value, Tensor):
        tensor = value.detach()
    else:
        array = np.ascontiguousarray(value).reshape(value.shape)
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    if entry.dtype == torch.bfloat16 and tensor.dtype in (torch.uint16, torch.int16):
        tensor = tensor.view(torch.bfloat16)  # the format holds bfloat16 as its bits
    if tensor.dtype != entry.dtype or tuple(tensor.shape) != entry.shape:
        raise TraceError(
            f"program: the constant {clean(entry.name)!r} is {_short(tensor.dtype)} {tuple(tensor.shape)}, "
            f"the graph says {_short(entry.dtype)} {entry.shape}; the trace is damaged or was altered"
        )
    return tensor


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
