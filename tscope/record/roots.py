"""One recorded root module: its frames, as they come, into its group of the trace."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tscope_format.batch import Micro
from tscope_format.dtypes import JSON
from tscope_format.errors import clean
from tscope_format.rows import Row
from tscope_format.tensors import table

from tscope.record.backlog import State
from tscope.record.examples import Examples, row_hashes
from tscope.record.followers import Followers
from tscope.record.frames import Blob, Frame, FrameError
from tscope.record.known_rows import KnownRows
from tscope.record.optimizers import Optimizers
from tscope.record.outcome import counted
from tscope.record.probe_choice import ProbeChoice
from tscope.record.probe_source import ProbeArrays
from tscope.record.scale import points

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tscope_format.probe import ProbeWriter
    from tscope_format.root_writer import RootWriter
    from tscope_format.tensors import Tensor
    from tscope_format.writer import TraceWriter

Say = Callable[[str], None]


class Root:
    """Takes the frames of one root.

    Nothing is written before the first step: a model that is only evaluated leaves no trace.

    Args:
        name: Its group in the trace.
        frame: The `root` frame.
        writer: Makes the trace when it is needed.
        followers: Get every state.
        choice: Decides on the probe sets.
        updates: Whether the parameters are kept at every row.
        max_examples: Number of different input rows to identify.
        say: Tells the person something, once.
    """

    def __init__(
        self,
        name: str,
        frame: Frame,
        *,
        writer: Callable[[], TraceWriter],
        followers: Followers,
        choice: ProbeChoice,
        updates: bool,
        max_examples: int,
        say: Say,
    ) -> None:
        self.name = name
        self.steps = 0
        self.rows = 0
        self.first_time = frame.number("time")
        self.last_time = self.first_time
        self.hook_ns = 0
        self.wait_ns = 0
        self.projected = 0
        self._sketches: dict[str, int] = {}  # rows of each probe set
        self.probes: dict[str, ProbeWriter] = {}
        self._frame = frame
        self._make_writer = writer
        self._followers = followers
        self._updates = updates
        self._choice = choice
        self._say = say
        self._parameters = _table(frame, "parameters")
        self._buffers = _table(frame, "buffers")
        self._optimizers = Optimizers()
        self._examples = Examples(max_examples)
        self._known_rows = KnownRows()
        self._buffer = {dtype: flat.copy() for dtype, flat in frame.flats("buffer").items()}
        self._writer: RootWriter | None = None
        self._program: Frame | None = None
        self._inputs: tuple[tuple[str, tuple[int, ...]], ...] | None = None

    @property
    def exported(self) -> bool:
        """Whether the model as data has come."""
        return self._program is not None and self._program.flag("ok")

    @property
    def sketched(self) -> int:
        """Rows that were sketched, of the probe set that was followed last."""
        return self._sketches.get([*self.probes][-1], 0) if self.probes else 0

    def unsketched(self, every: int) -> int:
        """Return how many rows should have been sketched, and were not in time."""
        return max(0, points(self.steps, every) - self.sketched)

    def optimizer(self, frame: Frame) -> None:
        """Take in what is said of an optimizer."""
        self._optimizers.announce(frame)
        if self._writer is not None:
            self._writer.attributes.update(self._optimizers.attributes())
        if self._optimizers.dropped_changes == 1:
            self._say(f"{self.name}: hyper-parameters change all the time; further changes are not listed")

    def step(self, frame: Frame) -> None:
        """Append a row."""
        step = frame.integer("step")
        if step <= self.steps:
            raise FrameError(f"{self.name}: step {step} comes after step {self.steps}")
        writer = self._started()  # first: row 0 holds the buffers as they were before this step
        buffer = frame.flats("buffer")
        if buffer:
            # Copied: a projection may wait for long, and would keep the whole frame in memory.
            self._buffer = {**self._buffer, **{dtype: flat.copy() for dtype, flat in buffer.items()}}
        theta = frame.flats("theta")
        rates = self._optimizers.rates(frame)
        micro = [self._micro(writer, frame, position, step) for position in range(len(frame.items("micro")))]
        norms = frame.blobs.get("grad_norm")
        row = Row(
            step=step,
            time=frame.number("time"),
            loss=frame.number("loss", missing=np.nan),
            lr=rates,
            theta=theta,
            buffer=buffer or None,
            grad_norm=np.full(len(self._parameters), np.nan, np.float32) if norms is None else norms.array,
            skipped=frame.flag("skipped"),
            foreign=frame.flag("foreign"),
            micro=micro,
        )
        writer.append(row)
        self.steps, self.last_time = step, row.time
        self.rows += 1
        self.hook_ns, self.wait_ns = frame.integer("hook_ns"), frame.integer("wait_ns")
        self._followers.add(self.name, State(step, theta, self._buffer))

    def state(self, frame: Frame) -> None:
        """Append the optimizer's state at an anchor."""
        if not self._updates:
            return  # a trace without updates has no anchors
        states: dict[str, dict[str, NDArray[Any]]] = {}
        for name, blob in frame.blobs.items():
            prefix, _, rest = name.partition(":")
            key, _, dtype = rest.rpartition(":")
            if prefix == "state":
                states.setdefault(key, {})[dtype] = blob.array.reshape(-1)
        attributes = {name: frame.fields[name] for name in ("scalars", "lacking") if name in frame.fields}
        self._started().append_anchor_state(frame.integer("step"), states, attributes)

    def evaluated(self, frame: Frame) -> None:
        """Take in rows that the model was evaluated on."""
        inputs = _inputs(frame, "input:")
        if inputs and not self._choice.settled and _same_length(inputs):
            hashes = row_hashes([blob.array for blob in inputs])
            self._choice.evaluated(inputs, hashes, self._examples)

    def program(self, frame: Frame) -> None:
        """Take in the model as data, or the reason why there is none."""
        if self._program is None:
            self._program = frame
            if self._writer is not None:
                self._write_program(self._writer, frame)

    def decide(self, *, ended: bool = False) -> None:
        """Begin to follow a probe set if one is settled on; called now and then."""
        if self._writer is None:
            return
        probe = self._choice.decide(ended=ended)
        if probe is None:
            return
        problem = self._misfit(probe)
        if problem is not None:
            what = self._followers.what
            self._say(f"there will be no {what}, since the probe set does not fit the model: {problem}")
            self._followers.stop(self.name)
            return
        self.probes[probe.name] = self._writer.add_probe(
            probe.name,
            inputs=[blob.array for blob in probe.inputs],
            target=None if probe.target is None else probe.target.array,
            attributes={},
            dtypes=[blob.dtype for blob in probe.inputs],
        )
        self._label(probe.name, {**probe.attributes, "rows_in_training": 0})
        self._followers.set_probe(self.name, probe, final=self._choice.settled)
        if probe.name == "train" and self._choice.unlike:
            self._say(
                f"{self.name}: the rows it was evaluated on have other inputs than those of training (their "
                "number, dtype or shape), so training rows are followed; give others with --probe"
            )

    def projection(self, frame: Frame) -> None:
        """Take in what the projecting or the sketching process says."""
        if frame.kind == "failed":
            reason = clean(frame.text("reason"))
            what = frame.text("what")
            self._say(f"{self.name}: no further {what}: {reason}")
            if self._writer is not None:
                self._writer.attributes[f"{what}_failed"] = reason
            return
        probe = self.probes[frame.text("probe")]
        if frame.kind == "chosen":
            self._label(frame.text("probe"), frame.mapping("attributes"))
            return
        if frame.kind == "sketched":
            probe.append_sketch(frame.integer("step"), frame.blobs["sketch"].array)
            self._sketches[frame.text("probe")] = self._sketches.get(frame.text("probe"), 0) + 1
            return
        arrays = [frame.blobs[name].array for name in ("output", "jvp", "lazy")]
        probe.append(frame.integer("step"), *arrays)
        self.projected += 1

    def _label(self, probe: str, labels: Mapping[str, JSON]) -> None:
        """Add to what the trace says of a probe set."""
        if self._writer is not None:
            probes = self._writer.attributes.setdefault("probes", {})
            probes.setdefault(probe, {}).update(labels)

    def close(self) -> None:
        """Say what is only known at the end."""
        if self._choice.in_training and "heldout" in self.probes:
            self._say(
                f"{self._choice.in_training} of the rows taken as held out were trained on later: the probe "
                "set `heldout` is labelled in-sample"
            )

    def _started(self) -> RootWriter:
        if self._writer is not None:
            return self._writer
        frame = self._frame
        theta = frame.flats("theta")
        self._writer = self._make_writer().add_root(
            self.name,
            parameters=self._parameters,
            buffers=self._buffers,
            groups=max(1, self._optimizers.groups),
            theta=theta,
            buffer=self._buffer,
            time=self.first_time,
            attributes={
                "class": frame.text("class"),
                "transient_buffers": _transient(frame),
                **self._optimizers.attributes(),
            },
            updates=self._updates,
        )
        first = State(0, theta, self._buffer)
        self._followers.add_root(
            self.name, self._parameters, self._buffers, first, late=not self._choice.settled
        )
        if not self._choice.follows:
            self._followers.stop(self.name)
        if self._program is not None:
            self._write_program(self._writer, self._program)
        return self._writer

    def _micro(self, writer: RootWriter, frame: Frame, position: int, step: int) -> Micro:
        entry = frame.items("micro")[position]
        if not isinstance(entry, dict) or not isinstance(entry.get("size"), int):
            raise FrameError("a `step` frame must give the size of each micro-batch")
        size, scale = entry["size"], entry.get("scale")
        inputs = _inputs(frame, f"input:{position}:")
        identified = entry.get("inputs") and inputs and all(len(blob.array) == size for blob in inputs)
        output, gradient = (frame.blobs.get(f"{name}:{position}") for name in ("output", "output_grad"))
        return Micro(
            size=size,
            scale=float(scale) if isinstance(scale, int | float) else 1.0,
            examples=self._identify(writer, inputs, step) if identified else None,
            output=None if output is None else output.array,
            output_grad=None if gradient is None else gradient.array,
        )

    def _identify(self, writer: RootWriter, inputs: Sequence[Blob], step: int) -> NDArray[np.int64]:
        hashes = self._known_rows.hashes([blob.array for blob in inputs])
        contaminated = self._choice.in_training
        self._choice.trained(inputs, hashes)
        if self._choice.in_training != contaminated:
            labels = {"rows_in_training": self._choice.in_training, "in_sample": True, "kind": "mixed"}
            self._label("heldout", labels)
        if self._inputs is None:
            self._inputs = tuple((blob.dtype, blob.array.shape[1:]) for blob in inputs)
        before = self._examples.overflowed, self._examples.changed_kind
        numbers, new = self._examples.identify(inputs, hashes)
        if new is not None:
            writer.add_examples(new.inputs, new.hashes, step, dtypes=new.dtypes)
        if self._examples.overflowed and not before[0]:
            known = len(self._examples)
            self._say(f"more than {known} different training rows: further ones are not identified")
        if self._examples.changed_kind and not before[1]:
            self._say("the inputs changed their type or dimensions: such rows are not identified")
        return numbers

    def _write_program(self, writer: RootWriter, frame: Frame) -> None:
        path = frame.fields.get("output_path")
        if not frame.flag("ok"):
            reason = clean(frame.fields.get("reason", "no reason given"))
            writer.attributes["program"] = {"ok": False, "reason": reason}
            what = self._followers.what
            self._say(f"{self.name}: the model could not be exported, so there are no {what}: {reason}")
            self._followers.stop(self.name)
            return
        graph = frame.mapping("graph")
        start = "constant:"
        constants = {name[len(start) :]: blob for name, blob in frame.blobs.items() if name.startswith(start)}
        writer.set_program(json.dumps(graph).encode(), {name: blob.array for name, blob in constants.items()})
        writer.attributes["program"] = {"ok": True}
        writer.attributes["output_path"] = path if isinstance(path, str) else ""
        self._followers.set_program(self.name, graph, constants)

    def _misfit(self, probe: ProbeArrays) -> str | None:
        """Return how the inputs of a probe set differ from those that the model was trained on."""
        if self._inputs is None:
            return None
        if len(probe.inputs) != len(self._inputs):
            inputs = counted(len(probe.inputs), "input")
            return f"it has {inputs}, the model was trained on {len(self._inputs)}"
        for position, (blob, (dtype, shape)) in enumerate(zip(probe.inputs, self._inputs, strict=True)):
            if blob.dtype != dtype:
                return (
                    f"input {position} is {blob.dtype}, the model was trained on {dtype}; convert it with "
                    f".astype({dtype!r})"
                )
            if blob.array.shape[1:] != shape:
                got = list(blob.array.shape[1:])
                return f"rows of input {position} have shape {got}, the model was trained on {list(shape)}"
        return None


def _table(frame: Frame, name: str) -> tuple[Tensor, ...]:
    try:
        return table([_described(entry) for entry in frame.items(name)])
    except (KeyError, TypeError, AttributeError) as error:
        raise FrameError(f"a `root` frame must give name, shape and dtype of all {name}") from error


def _described(entry: JSON) -> tuple[str, Sequence[int], str, Sequence[str], bool]:
    tied, grad = entry.get("tied", ()), entry.get("requires_grad", False)
    return entry["name"], entry["shape"], entry["dtype"], tied, grad


def _transient(frame: Frame) -> list[JSON]:
    """Return the names of the buffers that a state dict leaves out."""
    return [entry["name"] for entry in frame.items("buffers") if entry.get("persistent") is False]


def _inputs(frame: Frame, prefix: str) -> list[Blob]:
    """Return the arrays `<prefix>0`, `<prefix>1`, … of a frame."""
    found = {name: blob for name, blob in frame.blobs.items() if name.startswith(prefix)}
    try:
        return [found[name] for name in sorted(found, key=lambda name: int(name[len(prefix) :]))]
    except ValueError as error:
        raise FrameError(f"a `{frame.kind}` frame has an input without a number") from error


def _same_length(inputs: Sequence[Blob]) -> bool:
    return len({blob.array.shape[:1] for blob in inputs}) == 1 and inputs[0].array.ndim > 0
