"""What the observer does when gradients are computed, and thrown away."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, List, Optional, Tuple

import torch
from torch import Tensor

from .batch import Batch, copied_output
from .called import Called, Loss
from .driver import active_steps
from .memory import is_real, quiet, scalar
from .root import Root

if TYPE_CHECKING:
    from .recorder import Recorder


class Backwards:
    """Finds losses and output gradients.

    Args:
        recorder: The process's recorder.

    Attributes:
        depth: Active backward calls (reentrant checkpoints call it within itself).
        loose: Losses that reached no output that is watched.
        muted: Further losses do not count until the step ends.
        used: There may be losses or gradients that setting the gradients to zero would take back.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.depth = 0
        self.loose: List[Loss] = []
        self.muted = False
        self.used = False
        self._touched: List[Called] = []
        self._scaling: Optional[float] = None
        # The scaled loss itself may overflow, and its quotient is rounded.
        self._unscaled: Optional[Tuple[weakref.ref[Tensor], float]] = None

    def after_backward(self, tensors: Any, grad_tensors: Any) -> None:
        """Give the loss of a backward call to the modules whose outputs got a gradient in it."""
        touched, self._touched = self._touched, []
        scale, known = self._scaling or 1.0, self._unscaled
        self._scaling = self._unscaled = None
        if grad_tensors is not None or self.muted:
            return
        if type(tensors) is Tensor and tensors.dim() == 0 and is_real(tensors):
            same = known is not None and known[0]() is tensors
            loss = Loss(known[1] if known is not None and same else scalar(tensors) / scale)
        else:
            parts = (tensors,) if isinstance(tensors, Tensor) else tuple(tensors)
            if not parts or not all(isinstance(t, Tensor) and t.numel() == 1 and is_real(t) for t in parts):
                return
            loss = Loss(sum(scalar(t) for t in parts) / scale)
        self.used = True
        for called in touched:
            called.losses.append(loss)
        if not touched:
            self.loose.append(loss)

    def arrived(self, batch: Batch, path: str, gradient: Tensor) -> None:
        """Note the gradient of an output, and copy it if the output was copied."""
        called: Optional[Called] = batch.owner
        if called is None or not is_real(gradient):
            return
        if self.depth and not batch.from_backward:
            # What torch.autograd.grad computed before (a gradient penalty) is not the loss's gradient.
            batch.from_backward = True
            if batch.arrived:
                batch.arrived.clear()
                batch.gradients.clear()
        self.used = True
        if self.depth and called not in self._touched:
            self._touched.append(called)
        batch.scale = self._scaling or 1.0
        batch.arrived[path] = gradient.size(0) if gradient.dim() else -1
        if path not in batch.outputs:
            return
        known = batch.gradients.get(path)
        new = copied_output(self._recorder.pool, gradient)
        if known is None:
            batch.gradients[path] = new
            return
        with quiet():  # several backward calls through the same output add up
            count = known.size // (8 if known.dtype is torch.float64 else 4)
            known.block.tensor(known.dtype, 0, count).add_(new.block.tensor(new.dtype, 0, count))

    def zeroed(self, owner: Any) -> None:
        """A module's or optimizer's gradients are set to zero: what came before does not count any more."""
        if isinstance(owner, torch.nn.Module):
            called = self._recorder.modules.meet(owner)
            root: Optional[Root] = None if called is None else called.root
        else:
            driver = self._recorder.steps.drivers.get(id(owner))
            root = None if driver is None else driver.root
        drivers = self._recorder.steps.drivers.values()
        if any(driver.depth and active_steps(driver.reference()) for driver in drivers):
            # A closure evaluates several times; the loss is the first evaluation's, as `step` returns it.
            if self.loose or (root is not None and any(called.losses for called in root.called)):
                self.muted = True
            return
        self.loose = []
        for called in root.called if root is not None else ():
            called.losses = []
            called.drop([batch for batch in called.pending if batch.from_backward])
        self.settle()

    def settle(self) -> None:
        """See whether anything is left that setting gradients to zero would take back."""
        self.used = bool(self.loose) or self._recorder.modules.pending()

    def scaled(self, scale: float, loss: Any, result: Any) -> None:
        """A gradient scaler multiplied `loss` with `scale`, which gave `result`."""
        self._scaling = scale
        self._unscaled = None
        if isinstance(loss, Tensor) and isinstance(result, Tensor) and loss.numel() == 1 and is_real(loss):
            self._unscaled = (weakref.ref(result), scalar(loss))
