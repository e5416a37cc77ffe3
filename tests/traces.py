"""Traces for tests: a loop trains a module in this process and writes its states to a trace."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tscope_format.rows import Row
from tscope_format.tensors import table
from tscope_format.writer import TraceWriter

from tscope.program import OutputFunctional, Program, evaluate, export, jvp
from tscope.record.backlog import State
from tscope.record.model import Model
from tscope.record.sketching import Sketching


@dataclass
class Probe:
    inputs: tuple[Tensor, ...]
    target: Tensor | None = None
    in_sample: bool = False
    projected: bool = True  # write projections, as the recorder would
    columns: int = 0  # of sketches at every step; 0: none


@dataclass
class Run:
    """What was trained: the path of the trace, and the states as the loop itself saw them."""

    path: Path
    module: nn.Module
    states: list[dict[str, Tensor]] = field(default_factory=list)

    @property
    def thetas(self) -> list[dict[str, Tensor]]:
        names = [name for name, _ in self.module.named_parameters()]
        return [{name: state[name] for name in names} for state in self.states]

    @property
    def buffers(self) -> list[dict[str, Tensor]]:
        names = [name for name, _ in self.module.named_buffers()]
        return [{name: state[name] for name in names} for state in self.states]

    def remember(self) -> None:
        self.states.append({name: value.detach().clone() for name, value in self.module.state_dict().items()})


def train(
    path: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor],
    probes: Mapping[str, Probe] | None = None,
    **write_options: object,
) -> Run:
    """Train on the batches and record every step."""
    run = Run(path, module)
    run.remember()
    example = None
    module.train()
    for x, y in batches:
        example = x if example is None else example
        optimizer.zero_grad()
        loss(module(x), y).backward()
        optimizer.step()
        run.remember()
    write(run, (example,), probes or {}, **write_options)
    return run


def write(
    run: Run,
    example: Sequence[Tensor],
    probes: Mapping[str, Probe],
    *,
    steps: Sequence[int] | None = None,
    program: bool = True,
    updates: bool = True,
) -> None:
    """Write the states of a run as a trace; `steps` are their optimizer steps."""
    steps = range(len(run.states)) if steps is None else steps
    module = run.module
    parameters = table(_entries(module.named_parameters(), module.named_parameters(remove_duplicate=False)))
    buffers = table(_entries(module.named_buffers(), module.named_buffers(remove_duplicate=False)))
    graph, constants = export(module, example, {}, output=None, gradient_path=None) if program else ({}, {})
    writer = TraceWriter.create(run.path, facts={"argv": ["train.py"]})
    root = writer.add_root(
        "model",
        parameters=parameters,
        buffers=buffers,
        groups=1,
        theta=_flats(parameters, run.states[0]),
        buffer=_flats(buffers, run.states[0]),
        time=0.0,
        attributes={},
        updates=updates,
    )
    if program:
        root.set_program(
            json.dumps(graph).encode(), {name: value.numpy() for name, value in constants.items()}
        )
    else:
        root.attributes["program"] = {"reason": "forward branches on data"}
    for row, state in enumerate(run.states[1:], start=1):
        root.append(
            Row(
                step=steps[row],
                time=0.01 * row,
                loss=1.0 / row,
                lr=np.array([0.1]),
                theta=_flats(parameters, state),
                buffer=_flats(buffers, state) if buffers else None,
                grad_norm=np.zeros(len(parameters), np.float32),
                skipped=False,
                foreign=False,
                micro=(),
            )
        )
    for name, probe in probes.items():
        _write_probe(root, name, probe, run, steps, Program.load(graph, constants) if program else None)
    writer.close("complete")


def _write_probe(root, name, probe, run, steps, program) -> None:
    target = None if probe.target is None else probe.target.numpy()
    writer = root.add_probe(
        name,
        inputs=[value.numpy() for value in probe.inputs],
        target=target,
        attributes={},
    )
    root.attributes.setdefault("probes", {})[name] = {"in_sample": probe.in_sample}
    if program is None or not probe.projected:
        return
    thetas, buffers = run.thetas, run.buffers
    shape = program(thetas[0], buffers[0], probe.inputs).shape
    functional, _ = OutputFunctional.choose("auto", shape, probe.inputs, probe.target)
    chunk = len(probe.inputs[0])
    first = evaluate(program, functional, thetas[0], buffers[0], probe.inputs, chunk)
    none = np.zeros(first.shape, np.float32)
    writer.append(steps[0], first.numpy(), none, none)
    for row in range(1, len(thetas)):
        change, since = (
            {n: v - before[n] for n, v in thetas[row].items()} for before in (thetas[row - 1], thetas[0])
        )
        _, first_order = jvp(
            program, functional, thetas[row - 1], change, buffers[row - 1], probe.inputs, chunk
        )
        _, lazy = jvp(program, functional, thetas[0], since, buffers[0], probe.inputs, chunk)
        output = evaluate(program, functional, thetas[row], buffers[row], probe.inputs, chunk)
        writer.append(steps[row], output.numpy(), first_order.numpy(), lazy.numpy())
    if probe.columns:
        parameters = table(_entries(run.module.named_parameters(), ()))
        sketching = Sketching(name, Model(program, parameters, ()), probe.inputs, functional, probe.columns)
        chosen = {"functional": functional.kind, "index": list(functional.index), "output_shape": list(shape)}
        root.attributes["probes"][name].update({**chosen, **sketching.attributes})
        for row, state in enumerate(run.states):
            found = sketching.take(State(steps[row], _flats(parameters, state), {}))
            writer.append_sketch(steps[row], found.float().numpy())


def _entries(named, all_names):
    """Rows of a parameter or buffer table, with the other names of tied tensors."""
    names: dict[int, list[str]] = {}
    for name, tensor in all_names:
        names.setdefault(id(tensor), []).append(name)
    for name, tensor in named:
        tied = tuple(other for other in names.get(id(tensor), ()) if other != name)
        dtype = str(tensor.dtype).removeprefix("torch.")
        yield name, tuple(tensor.shape), dtype, tied, tensor.requires_grad


def _flats(entries, state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    pieces: dict[str, list[Tensor]] = {}
    for entry in entries:
        pieces.setdefault(entry.dtype, []).append(state[entry.name].reshape(-1))
    return {dtype: _bits(torch.cat(parts)) for dtype, parts in pieces.items()}


def _bits(flat: Tensor) -> np.ndarray:
    return flat.view(torch.uint16).numpy() if flat.dtype == torch.bfloat16 else flat.numpy()
