"""Frames of a root's rows: its announcement, its steps, its optimizers' state, its evaluations."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Dict, List, Optional

import torch

from .batch import Batch
from .called import Called
from .driver import Driver, Norms
from .flat import Held
from .root import Root
from .wire import Frame, dtype_name

if TYPE_CHECKING:
    from .fork_point import ForkPoint
    from .recorder import Recorder


class Row(Frame):
    """A `step` frame. The step only notes what there is; the sender's thread makes arrays of it.

    Args:
        root: The root whose row it is.
        fields: What is known of the step.
        theta: The parameters.
        buffers: The buffers if they changed.
        norms: The gradients' norms.
        batches: The batches of the step, which nobody changes any more.
        wanted: Path of the output to record, if the user named one.
    """

    __slots__ = ("_batches", "_norms", "_path", "_root", "_wanted", "buffers", "theta")

    def __init__(
        self,
        root: Root,
        fields: Dict[str, Any],
        theta: Held,
        buffers: Optional[Held],
        norms: Optional[Norms],
        batches: List[Batch],
        wanted: Optional[str],
    ) -> None:
        self.kind = "step"
        self.fields = fields
        self.theta = theta
        self.buffers = buffers
        self._root = root
        self._path = root.path
        self._norms = norms
        self._batches = batches
        self._wanted = wanted
        self.size = 1024 + root.parameters.size
        if buffers is not None:
            self.size += root.buffers.size
        for batch in batches:
            self.size += batch.bytes

    def pieces(self) -> List[Any]:
        """Return the bytes to send, in order."""
        self.build()
        return super().pieces()

    def build(self) -> None:
        """Make arrays of what was noted."""
        root = self._root
        self.blobs = root.parameters.blobs("theta", self.theta)
        if self.buffers is not None:
            self.blobs += root.buffers.blobs("buffer", self.buffers)
        if self._norms is not None:
            self.blobs.append(self._norms.blob(root.pool))
        self.fields["micro"] = [self._micro(number, batch) for number, batch in enumerate(self._batches)]

    def _micro(self, number: int, batch: Batch) -> Dict[str, Any]:
        """Describe a batch, and append its arrays."""
        path = self._path if self._path in batch.arrived else batch.path(self._wanted)
        length = batch.arrived.get(path, -1) if path is not None else -1
        # Rows of the input are only examples if the output has one row for each.
        inputs = [(index, copied) for index, copied in batch.inputs if copied.shape[0] == length]
        self.blobs += [copied.blob("input:{}:{}".format(number, index)) for index, copied in inputs]
        output = batch.outputs.get(path) if path is not None else None
        gradient = batch.gradients.get(path) if path is not None else None
        if output is not None and gradient is not None:
            self.blobs.append(output.blob("output:{}".format(number)))
            self.blobs.append(gradient.blob("output_grad:{}".format(number)))
        described = {
            "size": length if length >= 0 else (batch.size or 0),
            "scale": batch.scale,
            "inputs": bool(inputs),
            "input_dtypes": [dtype_name(copied.dtype) for _, copied in inputs],
        }
        batch.forget()
        return described


class Rows:
    """Builds frames and hands them to the recorder's connection."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def step(self, root: Root, driver: Driver, optimizer: torch.optim.Optimizer, skipped: bool) -> None:
        """An optimizer's step."""
        if not root.announced:
            self._announce(root)
        if driver.changed(optimizer):
            self._recorder.send(driver.announcement(optimizer, root.parameters, root.number, root.steps))
        root.steps += 1
        root.skipped += skipped
        self._row(root, driver.index, skipped)
        if root.steps % (self._recorder.options.anchor * self._recorder.options.every) == 0:
            for other in root.drivers:
                self._recorder.faults.aside("optimizer state", self._state, root, other)

    def _state(self, root: Root, driver: Driver) -> None:
        optimizer = driver.reference()
        if optimizer is not None:
            pool = self._recorder.pool
            self._recorder.send(driver.state(optimizer, root.parameters, root.number, root.steps, pool))

    def manual(self, root: Root) -> None:
        """A step without an optimizer, seen after the fact."""
        if not root.announced:
            self._announce(root)
        root.loss = root.take_loss([])
        root.norms, root.foreign = None, False
        root.steps += 1
        self._row(root, None, False)

    def last(self, root: Root) -> None:
        """At the end: an update that no forward followed, and the last row of `--every`."""
        pending = root.manual and root.module is not None and any(c.arrived() for c in root.called)
        if pending and not root.parameters.equals(root.theta, self._recorder.pool):
            self.manual(root)
        if root.unsent is not None:
            row, root.unsent = root.unsent, None
            self._recorder.send(row)

    def evaluations(self, root: Root, called: Called) -> None:
        """The evaluations that wait in a called module."""
        waiting, called.evaluations = called.evaluations, []
        for evaluation in waiting:
            blobs = [copied.blob("input:{}".format(index)) for index, copied in evaluation.inputs]
            outputs = dict(evaluation.outputs)
            path = self._recorder.options.output or root.path
            chosen = outputs.get(path) if path is not None else next(iter(outputs.values()), None)
            if chosen is not None:
                blobs.append(chosen.blob("output"))
            fields = {"root": root.number, "step": evaluation.step, "mode": evaluation.mode}
            self._recorder.send(Frame("eval", fields, blobs))

    def _announce(self, root: Root) -> None:
        root.announced = True
        self._recorder.send(root.announcement())

    def _row(self, root: Root, optimizer: Optional[int], skipped: bool) -> None:
        recorder = self._recorder
        options = recorder.options
        root.theta = root.parameters.copy(recorder.pool)
        changed = root.copy_buffers()
        batches = root.take_batches()
        if root.path is None:
            root.path = next((p for p in (b.path(options.output) for b in batches) if p is not None), None)
        for called in root.called:
            if called.leading is None:
                called.learn(batches, root.path)
        wait = recorder.sender.wait_ns if recorder.sender is not None else 0
        fields: Dict[str, Any] = {
            "root": root.number,
            "optimizer": optimizer,
            "step": root.steps,
            "time": time.time(),
            "loss": root.loss,
            "lr": [driver.last_rates for driver in root.drivers],
            "skipped": skipped,
            "foreign": root.foreign,
            "hook_ns": recorder.hook_ns - wait,
            "wait_ns": wait,
        }
        call = None
        if not root.exported:
            call = next((batch.call for batch in batches if batch.call is not None), None)
        if root.steps % options.every == 0:
            held = root.buffers_held if changed else None
            row = Row(root, fields, root.theta, held, root.norms, batches, options.output)
            root.norms, root.unsent, root.foreign = None, None, False
            recorder.send(row)
        else:
            for batch in batches:
                batch.forget()
            root.unsent = Row(root, fields, root.theta, root.buffers_held, None, [], options.output)
        for called in root.called:
            if called.evaluations:
                recorder.faults.aside("evaluation", self.evaluations, root, called)
        if call is not None:
            root.exported = True
            recorder.export(root, call)
        recorder.exporter.poll()
        if recorder.fork is not None:
            recorder.faults.aside("fork", self._fork, recorder.fork, root)

    def _fork(self, fork: ForkPoint, root: Root) -> None:
        told = fork.stepped(root.number, root.steps)
        if told is not None:
            self._recorder.send(told)
