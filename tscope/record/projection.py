"""The process that projects: for each state, the outputs on a probe set and their linear predictions.

A second one sketches the Jacobian: apart, since a sketch may take long, and must not cost any projection.

A process rather than a thread: what it computes must never hold up the recorder, neither by the interpreter's
lock nor, at the lowest priority, by holding anything the recorder waits for. It also keeps torch out of
the recorder. Started by `projector.py` as `python -m tscope.record.projection FD COLUMNS`; with columns, it
sketches.

Frames in: `root` (tables), `program`, `probe`, `state`, `finish`. Frames out: `ready`, `chosen`, `row` or
`sketched`, `failed`, `taken` (one for each `state`), `finished`.
"""

from __future__ import annotations

import gc
import math
import socket
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tscope_format.dtypes import JSON
from tscope_format.errors import TscopeError, clean
from tscope_format.tensors import Tensor

from tscope.program.derivatives import chunks, evaluate, jvp
from tscope.program.functional import OutputFunctional
from tscope.program.program import Program
from tscope.record.backlog import State
from tscope.record.frames import Blob, Frame, read_frame, write_frame
from tscope.record.heap import keep_freed_memory
from tscope.record.linear_map import LinearMap, linear_map
from tscope.record.model import Model, Tensors
from tscope.record.priority import lowest_priority
from tscope.record.sketching import Sketching
from tscope.replay.flat import tensor

WORTHWHILE = 4.0  # seconds spent on J_0, after which it pays to load what turns it into a linear map (2 s)
CHUNK_BYTES = 64 << 20  # of model outputs that are held at once


@dataclass(frozen=True, eq=False)
class Projected:
    """One finished row: output (example, output), and the two predictions of its change."""

    step: int
    output: torch.Tensor
    jvp: torch.Tensor
    lazy: torch.Tensor

    @property
    def arrays(self) -> Tensors:
        """What the row holds, by its names in the trace."""
        return {"output": self.output, "jvp": self.jvp, "lazy": self.lazy}


class Projection:
    """Outputs f_t, J_{t'} (θ_t − θ_t') with t' the state before, and J_0 (θ_t − θ_0), on one probe set.

    One Jacobian-vector product at t' also gives f_t', so a row is finished when its successor arrives: about
    three forward passes a row, and one for the lazy prediction.

    Args:
        name: The probe set's name.
        model: The program and its tables.
        inputs: The probe set, each (example, …).
        functional: What is followed of the model's output.
        chunk: Examples evaluated at once.
        first: The state before training.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        inputs: Sequence[torch.Tensor],
        functional: OutputFunctional,
        chunk: int,
        first: State,
    ) -> None:
        self.name = name
        self._model = model
        self._inputs = inputs
        self._functional = functional
        self._chunk = chunk
        self._origin = model.tensors(first)
        self._previous = self._origin
        self._step = first.step
        self._jvp: torch.Tensor | None = None
        self._lazy: torch.Tensor | None = None
        self._linear: LinearMap | None = None
        self._spent = 0.0

    def advance(self, state: State, *, hurry: bool = False) -> Projected:
        """Take the next state and return the row of the one before it; `hurry`: set nothing up any more."""
        theta, buffer = self._model.tensors(state)
        output, change = self._product(self._previous, theta)
        if self._jvp is None or self._lazy is None:
            self._jvp, self._lazy = torch.zeros_like(output), torch.zeros_like(output)
            lazy = change  # the first interval starts at θ_0
        else:
            lazy = self._from_origin(theta, hurry=hurry)
        row = Projected(self._step, output, self._jvp, self._lazy)
        self._previous, self._step, self._jvp, self._lazy = (theta, buffer), state.step, change, lazy
        return row

    def last(self) -> Projected:
        """Return the row of the last state."""
        output = evaluate(
            self._model.program, self._functional, *self._previous, self._inputs, chunk=self._chunk
        )
        nothing = torch.zeros_like(output)
        return Projected(
            self._step,
            output,
            nothing if self._jvp is None else self._jvp,
            nothing if self._lazy is None else self._lazy,
        )

    def _product(self, at: tuple[Tensors, Tensors], to: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Return f at the state `at`, and its Jacobian there times the way `to` the parameters θ."""
        theta, buffer = at
        program, functional, tangents = self._model.program, self._functional, _difference(to, theta)
        return jvp(program, functional, theta, tangents, buffer, self._inputs, chunk=self._chunk)

    def _from_origin(self, theta: Tensors, *, hurry: bool) -> torch.Tensor:
        """Return J_0 (θ − θ_0)."""
        if self._linear is not None:
            return self._linear(_difference(theta, self._origin[0]))
        started = time.perf_counter()
        product = self._product(self._origin, theta)[1]
        self._spent += time.perf_counter() - started
        if self._spent > WORTHWHILE and not hurry:
            self._spent = -math.inf  # tried once
            self._linear = self._linearised(theta, product)
        return product

    def _linearised(self, theta: Tensors, product: torch.Tensor) -> LinearMap | None:
        """Return J_0 as a linear map if it fits in memory; `product` is J_0 (θ − θ_0), to check it."""
        if self._chunk < len(self._inputs[0]):
            return None
        origin, buffer = self._origin
        tangents = _difference(theta, origin)
        program, functional = self._model.program, self._functional
        return linear_map(program, functional, origin, buffer, self._inputs, tangents, product)


def _difference(theta: Tensors, origin: Tensors) -> Tensors:
    return {name: value - origin[name] for name, value in theta.items()}


class Projections:
    """All projections of one recording, or all sketches, driven by frames.

    Args:
        connection: The recorder's end.
        columns: Of the sketches; 0: project.
    """

    def __init__(self, connection: socket.socket, columns: int = 0) -> None:
        self._connection = connection
        self._columns = columns
        self._tables: dict[str, tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = {}
        self._models: dict[str, Model] = {}
        self._waiting: dict[str, Frame] = {}
        self._running: dict[str, Projection | Sketching] = {}

    def take(self, frame: Frame) -> None:
        """Act on one frame; what goes wrong with a root is reported, and ends its projections only."""
        root, started = frame.text("root"), time.perf_counter()
        try:
            if frame.kind == "root":
                self._tables[root] = (_table(frame, "parameters"), _table(frame, "buffers"))
            elif frame.kind == "program":
                constants = {name: blob.array for name, blob in frame.blobs.items()}
                program = Program.load(frame.mapping("graph"), constants)
                self._models[root] = Model(program, *self._tables[root])
            elif frame.kind == "probe":
                self._waiting[root] = frame
                self._running.pop(root, None)
            elif frame.kind == "state":
                self._advance(root, _state(frame), hurry=frame.flag("hurry"))
            elif frame.kind == "finish":
                self._finish(root)
        except Exception as error:  # the boundary of a root: any failure of its model ends up here
            self._waiting.pop(root, None)
            self._running.pop(root, None)
            reason = (
                clean(error) if isinstance(error, TscopeError) else f"{type(error).__name__}: {clean(error)}"
            )
            what = "sketches" if self._columns else "projections"
            fields = {"root": root, "what": what, "reason": reason[:500]}
            write_frame(self._connection, "failed", fields)
        # Whatever became of it: the recorder sends the next state when this one is done with.
        if frame.kind == "state":
            seconds = time.perf_counter() - started
            write_frame(self._connection, "taken", {"root": root, "seconds": seconds})
        elif frame.kind == "finish":
            write_frame(self._connection, "finished", {"root": root, "final": frame.flag("final")})

    def _advance(self, root: str, state: State, *, hurry: bool) -> None:
        waiting = self._waiting.pop(root, None)
        if waiting is not None:
            self._running[root] = self._begin(root, waiting, state)
        running = self._running.get(root)
        if isinstance(running, Sketching):
            self._send(root, running.name, "sketched", state.step, {"sketch": running.take(state)})
        elif running is not None and waiting is None:
            self._send_row(root, running.name, running.advance(state, hurry=hurry))

    def _finish(self, root: str) -> None:
        running = self._running.pop(root, None)
        if isinstance(running, Projection):
            self._send_row(root, running.name, running.last())

    def _begin(self, root: str, frame: Frame, first: State) -> Projection | Sketching:
        model = self._models[root]
        blobs = [blob for name, blob in frame.blobs.items() if name.startswith("input:")]
        inputs = [tensor(blob.array, blob.dtype) for blob in blobs]
        target = frame.blobs.get("target")
        labels = None if target is None else tensor(target.array, target.dtype)
        examples = len(inputs[0])
        theta, buffer = model.tensors(first)
        few = next(chunks(model.program, OutputFunctional(), inputs, 2))
        with torch.no_grad():
            output = model.program(theta, buffer, few.inputs)
        shape = (examples, *output.shape[1:])
        functional, note = OutputFunctional.choose(frame.text("functional"), shape, inputs, labels)
        name = frame.text("probe")
        attributes: dict[str, JSON] = {
            "functional": functional.kind,
            "functional_note": note,
            "index": list(functional.index),
            "output_shape": list(shape),
        }
        if self._columns:
            sketching = Sketching(name, model, inputs, functional, self._columns)
            self._choose(root, name, {**attributes, **sketching.attributes})
            return sketching
        self._choose(root, name, attributes)
        bytes_each = max(1, output[:1].numel() * output.element_size())
        chunk = max(1, min(examples, CHUNK_BYTES // bytes_each))
        return Projection(name, model, inputs, functional, chunk, first)

    def _choose(self, root: str, probe: str, attributes: Mapping[str, JSON]) -> None:
        fields = {"root": root, "probe": probe, "attributes": dict(attributes)}
        write_frame(self._connection, "chosen", fields)

    def _send_row(self, root: str, probe: str, row: Projected) -> None:
        self._send(root, probe, "row", row.step, row.arrays)

    def _send(self, root: str, probe: str, kind: str, step: int, arrays: Tensors) -> None:
        blobs = {name: Blob(_float32(array), "float32") for name, array in arrays.items()}
        write_frame(self._connection, kind, {"root": root, "probe": probe, "step": step}, blobs)


def _float32(array: torch.Tensor) -> Any:
    return array.detach().to(torch.float32).contiguous().numpy()


def _state(frame: Frame) -> State:
    return State(frame.integer("step"), frame.flats("theta"), frame.flats("buffer"))


def _table(frame: Frame, name: str) -> tuple[Tensor, ...]:
    return tuple(Tensor.from_json(entry) for entry in frame.items(name))


def main() -> None:
    """Project until the recorder closes its end."""
    lowest_priority()
    keep_freed_memory()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of torch's own making; failures are reported as such
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        try:
            write_frame(connection, "ready", {})
            projections = Projections(connection, columns=int(sys.argv[2]))
            while (frame := read_frame(connection.recv_into)) is not None:
                projections.take(frame)
        except OSError:
            return  # the recorder is gone


if __name__ == "__main__":
    main()
