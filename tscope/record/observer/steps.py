"""What the observer does when an optimizer steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Optional, Set

import torch
from torch import Tensor

from .choice import choose
from .driver import Driver, active_steps, gradient_norms
from .flat import StructureChangedError
from .memory import scalar
from .root import Root

if TYPE_CHECKING:
    from .recorder import Recorder


class Steps:
    """Knows the optimizers, and finds the roots they train.

    Args:
        recorder: The process's recorder.

    Attributes:
        drivers: The optimizers by identity.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.drivers: Dict[int, Driver] = {}

    def enter_step(self, optimizer: torch.optim.Optimizer, closure: bool) -> None:
        """`step` begins, perhaps called by a subclass's `step`, or again after one that raised."""
        driver = self._meet_optimizer(optimizer)
        if driver.depth:
            driver.depth = min(driver.depth, active_steps(optimizer) - 1)
        driver.depth += 1
        if driver.depth == 1:
            self._before_step(optimizer, driver, closure)

    def leave_step(self, optimizer: torch.optim.Optimizer, closure: bool) -> None:
        """`step` ends."""
        driver = self._meet_optimizer(optimizer)
        driver.depth -= 1
        if driver.depth == 0:
            driver.steps += 1
            self._after_step(optimizer, driver, closure, skipped=False)

    def count_steps(self, optimizer: torch.optim.Optimizer) -> Optional[int]:
        """Return how often the optimizer stepped; None when that is not watched any more."""
        if (
            "optimizer step begin" in self._recorder.faults.disabled
            or "optimizer step end" in self._recorder.faults.disabled
        ):
            return None
        return self._meet_optimizer(optimizer).steps

    def left_out(self, optimizer: torch.optim.Optimizer, before: int) -> None:
        """A gradient scaler is done: if it found an overflow, it did not let the optimizer step."""
        driver = self._meet_optimizer(optimizer)
        if driver.steps == before:
            self._before_step(optimizer, driver, closure=False)
            self._after_step(optimizer, driver, closure=False, skipped=True)

    def _meet_optimizer(self, optimizer: torch.optim.Optimizer) -> Driver:
        """Return the optimizer's driver, new if it is."""
        driver = self.drivers.get(id(optimizer))
        if driver is None or driver.reference() is not optimizer:
            driver = self.drivers[id(optimizer)] = Driver(optimizer)
        return driver

    def _before_step(self, optimizer: torch.optim.Optimizer, driver: Driver, closure: bool) -> None:
        """An optimizer is about to step: the gradients are what it will use, θ is what it starts from."""
        recorder = self._recorder
        if recorder.dead:
            recorder.forwards.bury()
        if driver.root is None:
            self._assign(optimizer, driver)
        root: Optional[Root] = driver.root
        if root is None:
            return
        try:
            # Accumulated over the steps of one row.
            if root.steps > 0 and not root.parameters.equals(root.theta, recorder.pool):
                root.foreign = True
            root.norms = None
            if not closure and (root.steps + 1) % recorder.options.every == 0:
                root.norms = gradient_norms(root.parameters)
        except StructureChangedError as error:
            self._restructured(root, error)
            self._before_step(optimizer, driver, closure)

    def _after_step(
        self, optimizer: torch.optim.Optimizer, driver: Driver, closure: bool, skipped: bool
    ) -> None:
        """An optimizer stepped, or would have, had a scaler not found an overflow."""
        recorder = self._recorder
        backwards = recorder.backwards
        backwards.muted = False
        root: Optional[Root] = driver.root
        if root is None:
            return
        if closure and (root.steps + 1) % recorder.options.every == 0:
            root.norms = gradient_norms(root.parameters)
        loss = root.take_loss(backwards.loose)
        if backwards.loose:
            backwards.loose = []
        if loss is None and root.last_driver is not None and root.last_driver is not driver:
            loss = root.loss  # two optimizers share one backward
        root.loss = loss
        root.last_driver = driver
        found = getattr(optimizer, "found_inf", None)
        if isinstance(found, Tensor) and scalar(found):
            skipped = True
        recorder.rows.step(root, driver, optimizer, skipped)
        backwards.settle()

    def _assign(self, optimizer: torch.optim.Optimizer, driver: Driver) -> None:
        known = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for root in self._recorder.roots:
            if root.module is not None and known <= {id(slot.tensor()) for slot in root.parameters.slots}:
                root.enlist(driver)
                return
        module = choose(optimizer, self._recorder.modules.all())
        if module is None:
            kind = type(optimizer).__qualname__
            self._recorder.faults.note("optimizer", "no module holds the parameters of {}".format(kind))
            return
        chosen = self.root(module, manual=False)
        if chosen is not None:
            chosen.enlist(driver)
            self._note_left_out(optimizer, known, chosen)

    def _note_left_out(self, optimizer: torch.optim.Optimizer, known: Set[int], root: Root) -> None:
        """Say so if the optimizer trains more than the root: the predictions move with that, too."""
        outside = len(known - {id(slot.tensor()) for slot in root.parameters.slots})
        if outside:
            text = "{} of the {} tensors of {} are outside of {}, and not recorded; one module must hold all"
            kind = type(optimizer).__qualname__
            self._recorder.faults.note("optimizer", text.format(outside, len(known), kind, root.kind))

    def root(self, module: Optional[torch.nn.Module], manual: bool) -> Optional[Root]:
        """Return the root of this module, new if it is."""
        if module is None:
            return None
        for root in self._recorder.roots:
            if root.module is module and not root.fits(module):
                self._restructured(root, StructureChangedError("other parameters took the place of its own"))
            elif root.module is module:
                root.manual = root.manual and manual
                return root
        everyone = self._recorder.modules.all()
        root = Root(len(self._recorder.roots), module, everyone, self._recorder.pool)
        root.manual = manual
        self._recorder.roots.append(root)
        for called in everyone:
            if root.accepts(called):
                root.adopt(called)
            elif not manual:
                called.drop_parameters()
        return root

    def _restructured(self, root: Root, error: StructureChangedError) -> None:
        """Close a root whose tensors changed shape; its module begins a new one."""
        text = "{}: {}; a new root begins".format(root.kind, error)
        self._recorder.faults.tell("parameters", text, failed=False)
        self._recorder.modules.forget(root.called)
        root.close()
