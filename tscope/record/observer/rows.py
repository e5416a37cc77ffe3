"""Frames of a root's rows: its announcement, its steps, its optimizers' state, its evaluations."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Dict, List, Optional

import torch

from .batch import Batch
from .called import Called
from .driver import Driver
from .root import Root
from .wire import Blob, Frame, dtype_name

if TYPE_CHECKING:
    from .recorder import Recorder


class Rows:
    """Builds frames and hands them to the recorder's connection."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def step(self, root: Root, driver: Driver, optimizer: torch.optim.Optimizer, skipped: bool) -> None:
        """An optimizer's step."""
        self._announce(root)
        if driver.changed(optimizer):
            self._recorder.send(driver.announcement(optimizer, root.parameters, root.number, root.steps))
        driver.last_rates = driver.rates(optimizer)
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
            fields, root.unsent = root.unsent, None
            blobs = root.parameters.blobs("theta", root.theta) + root.buffers.blobs(
                "buffer", root.buffers_held
            )
            self._recorder.send(Frame("step", fields, blobs))

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
            evaluation.forget()

    def _announce(self, root: Root) -> None:
        if not root.announced:
            root.announced = True
            self._recorder.send(root.announcement())

    def _row(self, root: Root, optimizer: Optional[int], skipped: bool) -> None:
        recorder = self._recorder
        options = recorder.options
        root.set_theta(root.parameters.copy(recorder.pool))
        changed = root.changed_buffers()
        batches = root.take_batches()
        if root.path is None:
            root.path = next((p for p in (b.path(options.output) for b in batches) if p is not None), None)
        wait = recorder.sender.wait_ns if recorder.sender is not None else 0
        fields: Dict[str, Any] = {
            "root": root.number,
            "optimizer": optimizer,
            "step": root.steps,
            "time": time.time(),
            "loss": root.loss,
            "lr": [driver.last_rates for driver in root.drivers],
            "micro": [],
            "skipped": skipped,
            "foreign": root.foreign,
            "hook_ns": recorder.hook_ns - wait,
            "wait_ns": wait,
        }
        if root.steps % options.every == 0:
            blobs = root.parameters.blobs("theta", root.theta) + changed
            if root.norms is not None:
                count = len(root.parameters.slots)
                blobs.append(Blob("grad_norm", "float32", (count,), root.norms, 0, 4 * count))
                root.norms = None
            fields["micro"] = self._micro(root, batches, blobs)
            root.unsent, root.foreign = None, False
            recorder.send(Frame("step", fields, blobs))
        else:
            for blob in changed:
                blob.block.release()
            root.unsent = fields
        call = next((batch.call for batch in batches if batch.call is not None), None)
        for batch in batches:
            batch.forget()
        for called in root.called:
            if called.evaluations:
                recorder.faults.aside("evaluation", self.evaluations, root, called)
        if call is not None and not root.exported:
            root.exported = True
            recorder.export(root, call)
        recorder.exporter.poll()

    def _micro(self, root: Root, batches: List[Batch], blobs: List[Blob]) -> List[Dict[str, Any]]:
        """Describe the batches, and append their arrays to `blobs`."""
        listed: List[Dict[str, Any]] = []
        for number, batch in enumerate(batches):
            path = root.path if root.path in batch.arrived else batch.path(self._recorder.options.output)
            length = batch.arrived.get(path, -1) if path is not None else -1
            # Rows of the input are only examples if the output has one row for each.
            known = length >= 0 and length == batch.size and bool(batch.inputs)
            if known:
                blobs += [copied.blob("input:{}:{}".format(number, index)) for index, copied in batch.inputs]
            output = batch.outputs.get(path) if path is not None else None
            gradient = batch.gradients.get(path) if path is not None else None
            if output is not None and gradient is not None:
                blobs.append(output.blob("output:{}".format(number)))
                blobs.append(gradient.blob("output_grad:{}".format(number)))
            listed.append(
                {
                    "size": length if length >= 0 else (batch.size or 0),
                    "scale": batch.scale,
                    "inputs": known,
                    "input_dtypes": [dtype_name(copied.dtype) for _, copied in batch.inputs] if known else [],
                }
            )
        return listed
