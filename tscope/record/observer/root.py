"""A root: a module whose parameters are recorded step by step."""

# ruff: noqa: B905 -- zip(strict=) is newer than Python 3.9

from __future__ import annotations

import os
import time
import weakref
from typing import Any, Callable, Dict, List, Optional

import torch

from .batch import Batch
from .blocks import Pool
from .called import Called, Loss, compose
from .driver import Driver, Norms
from .flat import Held, Table, buffer_slots, describe, parameter_slots
from .wire import Frame


class Root:
    """A module that is trained.

    Args:
        number: Its id in the frames.
        module: The module.
        sources: Called modules whose copies from before the first training forward are to be used.
        pool: Memory for copies.

    Attributes:
        theta: Parameters as after the last step; row 0 before the first.
        buffers_held: Buffers as sent last.
        steps: Steps so far.
        path: Path of the output whose gradient arrives, once known.
        manual: No optimizer is involved, as far as is known.
    """

    def __init__(self, number: int, module: torch.nn.Module, sources: List[Called], pool: Pool) -> None:
        self.number = number
        self.reference: Callable[[], Optional[torch.nn.Module]] = weakref.ref(module)
        self.pool = pool
        self.kind = type(module).__qualname__
        self.training = bool(module.training)
        self.parameters = Table(parameter_slots(module))
        self.buffers = Table(buffer_slots(module))
        self.places = frozenset((id(slot.owner), slot.key) for slot in self.parameters.slots)
        self.theta: Held = compose(self.parameters, [(c.parameters, c.theta_0) for c in sources], pool)
        self.buffers_held: Held = compose(self.buffers, [(c.buffers, c.buffer_0) for c in sources], pool)
        self._persistent = _persistent(module)
        self.drivers: List[Driver] = []
        self.called: List[Called] = []
        self.steps = 0
        self.skipped = 0
        self.announced = False
        self.manual = False
        self.path: Optional[str] = None
        self.foreign = False
        self.norms: Optional[Norms] = None
        self.loss: Optional[float] = None
        self.last_driver: Optional[Driver] = None
        self.unsent: Optional[Frame] = None
        self.exported = False
        self.process = os.getpid()

    @property
    def module(self) -> Optional[torch.nn.Module]:
        """The module, while it lives."""
        return self.reference()

    def accepts(self, called: Called) -> bool:
        """Tell whether calling that module is calling this root."""
        return called.reference() is self.reference() or called.places == self.places

    def fits(self, module: torch.nn.Module) -> bool:
        """Tell whether the module's parameters are where they were."""
        return self.places == frozenset((id(slot.owner), slot.key) for slot in parameter_slots(module))

    def adopt(self, called: Called) -> None:
        """Let the called module's batches be this root's."""
        if called not in self.called:
            self.called.append(called)
        called.root = self
        called.trainable = True
        called.drop_parameters()

    def enlist(self, driver: Driver) -> None:
        """Let the optimizer be one of this root's."""
        driver.index = len(self.drivers)
        driver.root = self
        self.drivers.append(driver)
        self.manual = False

    def close(self) -> None:
        """Let go of everything: the module goes on as another root, or not at all."""
        for called in self.called:
            called.drop(list(called.pending))
            called.root = None
        for driver in self.drivers:
            driver.root = None
        self.reference = _nothing
        self.called, self.drivers = [], []

    def announcement(self) -> Frame:
        """Return the `root` frame: the tables, and row 0."""
        parameters = describe(self.parameters.slots)
        for entry, slot in zip(parameters, self.parameters.slots):
            entry["requires_grad"] = bool(slot.tensor().requires_grad)
        buffers = describe(self.buffers.slots)
        for entry, slot in zip(buffers, self.buffers.slots):
            entry["persistent"] = (id(slot.owner), slot.key) in self._persistent
        fields: Dict[str, Any] = {
            "root": self.number,
            "class": self.kind,
            "parameters": parameters,
            "buffers": buffers,
            "training": self.training,
            "time": time.time(),
        }
        blobs = self.parameters.blobs("theta", self.theta) + self.buffers.blobs("buffer", self.buffers_held)
        return Frame("root", fields, blobs)

    def copy_buffers(self) -> bool:
        """Keep a copy of the buffers, if any changed since the last one; tell whether any did."""
        if not self.buffers.slots or self.buffers.equals(self.buffers_held, self.pool):
            return False
        self.buffers_held = self.buffers.copy(self.pool)
        return True

    def take_batches(self) -> List[Batch]:
        """Return the pending batches that got a gradient, of all modules that stand for this root."""
        if len(self.called) == 1:
            return self.called[0].take()
        return [batch for called in self.called for batch in called.take()]

    def take_loss(self, loose: List[Loss]) -> Optional[float]:
        """Return the sum of the losses since the last step, counting each backward call once."""
        losses: List[Loss] = []
        for called in self.called:
            if called.losses:
                losses += called.losses
                called.losses = []
        if not losses:
            losses = loose
        if len(losses) == 1:
            return losses[0].value
        return sum(loss.value for loss in set(losses)) if losses else None


def _nothing() -> None:
    return None


def _persistent(module: torch.nn.Module) -> Any:
    return {
        (id(part._buffers), key)
        for part in torch.nn.Module.modules(module)
        for key in part._buffers
        if key not in part._non_persistent_buffers_set
    }
