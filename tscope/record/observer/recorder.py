"""The observer's state, and what it does at each event of the run."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections import deque
from typing import Any, Deque, Dict, List, Optional, Tuple

import torch
from torch import Tensor

from .batch import Batch, Inputs, Watcher, copied_output, watch
from .blocks import Pool
from .called import Called, Loss, unwrapped
from .choice import choose
from .driver import Driver, gradient_norms
from .evaluation import Budget, Evaluation
from .exporter import Exporter
from .faults import Faults
from .flat import StructureChangedError
from .memory import is_real, quiet, scalar
from .options import Options
from .root import Root
from .rows import Rows
from .sender import Sender
from .tree import leaves
from .wire import Frame

_MOST_EVALUATED_OUTPUTS = 4
_MOST_EVALUATED_BYTES = 4 << 20


class Recorder:
    """Follows one process.

    Args:
        options: What to record.
        faults: Where exceptions are counted.

    Attributes:
        active: Whether there is anything left to do; hooks pass everything through when not.
        lock: Held while the state changes: a script may train in several threads.
        sender: The connection, made when the first root is found.
        hook_ns: Time spent in the hooks.
        calls: Number of hook calls.
        depth: Active backward calls.
    """

    def __init__(self, options: Options, faults: Faults) -> None:
        self.options = options
        self.faults = faults
        self.active = True
        self.lock = threading.RLock()
        self.pool = Pool()
        self.sender: Optional[Sender] = None
        self.hook_ns = 0
        self.calls = 0
        self.roots: List[Root] = []
        self.rows = Rows(self)
        self.exporter = Exporter(self)
        self._called: Dict[int, Tuple[Any, Optional[Called]]] = {}
        self._drivers: Dict[int, Driver] = {}
        # Graphs die at any time and in any thread, even in the sender's: their batches are only noted here.
        self._dead: Deque[Batch] = deque()
        self._watcher: Watcher = (self._arrival, self._dead.append)
        self._loose: List[Loss] = []
        self.depth = 0
        self._touched: List[Called] = []
        self._backward_value: Optional[float] = None
        self._scaling: Optional[float] = None
        self._scale = 1.0
        self._muted = False

    # ---- forwards -------------------------------------------------------------------------------------

    def before_forward(self, module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        """Look at a call by the script itself; returns what `after_forward` needs, or None."""
        if (
            torch._C._functorch.peek_interpreter_stack() is not None
            or torch._C._get_tracing_state() is not None
            or torch._C._current_graph_task_id() != -1  # a checkpoint computes its block again
        ):
            return None
        called = self._meet(module)
        if called is None:
            return None
        self._bury()
        if not torch.is_grad_enabled():
            return self._evaluate(called, "no_grad" if module.training else "eval", args, kwargs)
        if called.ignored:
            return None
        called.budget.trained()
        if called.root is None or called.root.manual:
            self._compare(called)
        if called.buffer_0 is None and called.root is None:
            called.buffer_0 = called.buffers.copy(self.pool)
        inputs = Inputs(args, kwargs)
        batch = Batch(called, inputs.size)
        batch.eval_mode = not module.training
        root = called.root
        if root is None or (root.steps + 1) % self.options.every == 0:
            batch.mine = True
            batch.inputs = inputs.copy(self.pool)
        if root is None or not root.exported:
            batch.call = (args, kwargs)
        return batch

    def after_forward(self, token: Any, result: Any) -> None:
        """Look at what the call returned."""
        if isinstance(token, Evaluation):
            self._evaluated(token, result)
            return
        batch: Batch = token
        called: Called = batch.owner
        watched = watch(batch, result, self._watcher)
        if not watched:
            batch.owner = None
            if batch.eval_mode and batch.inputs:
                self._late_evaluation(called, batch, result)
            batch.forget()
            return
        called.untaken += 1
        called.pending.append(batch)
        if not batch.mine or self.options.outputs == 0:
            return
        wanted = self.options.output or (called.root.path if called.root is not None else None)
        for path, tensor in watched:
            if wanted is not None and path != wanted:
                continue
            if tensor.dim() and (tensor.shape[0] == batch.size or wanted is not None):
                # The output now, its gradient later.
                if self._affordable(called, 8 * tensor.numel()):
                    batch.outputs[path] = copied_output(self.pool, tensor)

    def _meet(self, module: torch.nn.Module) -> Optional[Called]:
        known = self._called.get(id(module))
        if known is not None:
            return known[1]
        inner = unwrapped(module)
        called: Optional[Called] = None
        if inner is not module:
            called = self._meet(inner)
        else:
            parameters = list(torch.nn.Module.parameters(module))
            if any(torch.nn.parameter.is_lazy(p) for p in parameters) or not all(
                isinstance(p, torch.nn.Parameter) for p in parameters
            ):
                return (
                    None  # not built yet, or called with other parameters in their place: ask again next time
                )
            if parameters:
                called = Called(module, self._forgetter(id(module)), Budget(self.options.eval_rows))
        gone = called.reference if called is not None and inner is module else None
        reference = gone or weakref.ref(module, self._forgetter(id(module)))
        self._called[id(module)] = (reference, called)
        if called is not None and called.root is None:
            for root in self.roots:
                if root.accepts(called):
                    root.adopt(called)
        return called

    def _forgetter(self, number: int) -> Any:
        table = self._called

        def forget(reference: Any) -> None:
            known = table.get(number)
            if known is not None and known[0] is reference:
                del table[number]

        return forget

    def _bury(self) -> None:
        while self._dead:
            batch = self._dead.popleft()
            called = batch.owner
            if called is None or batch.arrived:
                continue
            if batch.eval_mode and batch.inputs:
                self._late_evaluation(called, batch, None)
            called.drop([batch])

    def _affordable(self, called: Called, size: int) -> bool:
        limit = self.options.outputs
        if limit < 0:
            return True
        used = sum(8 * t.size // 4 for b in called.pending for t in b.outputs.values())
        if used + size <= limit:
            return True
        if "outputs" not in self.faults.disabled:
            self.faults.disabled["outputs"] = 0
            text = "outputs and their gradients of {} bytes a step are over the limit of {}".format(
                used + size, limit
            )
            self.faults.tell("outputs", text)
        return False

    def _compare(self, called: Called) -> None:
        """See whether the script changed the parameters itself since the last training forward."""
        if called.root is not None:
            if called.arrived() and not called.root.parameters.equals(called.root.theta, self.pool):
                self.rows.manual(called.root)
            return
        if called.theta_0 is not None:
            if called.parameters.equals(called.theta_0, self.pool):
                return
            if called.arrived():
                root = self._root(called.module, manual=True)
                if root is not None:
                    self.rows.manual(root)
                return
            called.drop_parameters()
            called.buffer_0 = None
        if not any(not root.manual for root in self.roots):
            called.theta_0 = called.parameters.copy(self.pool)

    # ---- evaluations ----------------------------------------------------------------------------------

    def _evaluate(self, called: Called, mode: str, args: Any, kwargs: Any) -> Optional[Evaluation]:
        inputs = Inputs(args, kwargs)
        rows = called.budget.rows(inputs)
        if not rows or not called.budget.spend(inputs, rows):
            return None
        step = called.root.steps if called.root is not None else 0
        return Evaluation(mode, inputs.size or 0, rows, inputs.copy(self.pool, rows), step, called)

    def _evaluated(self, evaluation: Evaluation, result: Any) -> None:
        called: Called = evaluation.called
        if self.options.outputs != 0:
            for path, tensor in leaves(result):
                fits = tensor.is_floating_point() and tensor.dim() and tensor.shape[0] == evaluation.size
                if fits and is_real(tensor) and len(evaluation.outputs) < _MOST_EVALUATED_OUTPUTS:
                    if tensor.numel() // evaluation.size * evaluation.rows * 4 <= _MOST_EVALUATED_BYTES:
                        evaluation.outputs.append((path, copied_output(self.pool, tensor, evaluation.rows)))
        self._keep_evaluation(called, evaluation)

    def _late_evaluation(self, called: Called, batch: Batch, result: Any) -> None:
        """A forward in evaluation mode that kept a graph for nothing: an evaluation all the same."""
        size = batch.size or 0
        evaluation = Evaluation(
            "eval", size, size, batch.inputs, called.root.steps if called.root else 0, called
        )
        evaluation.outputs = list(batch.outputs.items())
        if called.budget.late(size, batch.inputs):
            batch.inputs, batch.outputs = [], {}
            self._keep_evaluation(called, evaluation)

    def _keep_evaluation(self, called: Called, evaluation: Evaluation) -> None:
        called.evaluations.append(evaluation)
        if called.root is not None and called.root.announced:
            self.rows.evaluations(called.root, called)

    # ---- backwards ------------------------------------------------------------------------------------

    def before_backward(self, tensors: Any, grad_tensors: Any) -> None:
        """Note the loss of a backward call."""
        self._touched = []
        self._backward_value = None
        self._scale = self._scaling or 1.0
        if grad_tensors is None:
            if type(tensors) is Tensor and tensors.dim() == 0 and is_real(tensors):
                self._backward_value = scalar(tensors)
                return
            parts = (tensors,) if isinstance(tensors, Tensor) else tuple(tensors)
            if parts and all(isinstance(t, Tensor) and t.numel() == 1 and is_real(t) for t in parts):
                self._backward_value = sum(scalar(t) for t in parts)

    def after_backward(self) -> None:
        """Give the loss to the modules whose outputs got a gradient in it."""
        self._scaling = None
        value = self._backward_value
        if value is None or self._muted:
            return
        loss = Loss(value / self._scale)
        for called in self._touched:
            if loss not in called.losses:
                called.losses.append(loss)
        if not self._touched:
            self._loose.append(loss)

    def _arrival(self, batch: Batch, path: str, gradient: Tensor) -> None:
        """A gradient arrived at an output."""
        if "output gradient" in self.faults.disabled or not self.active:
            return
        began = time.perf_counter_ns()
        try:
            with self.lock:
                self.arrived(batch, path, gradient)
        except Exception as error:
            self.faults.caught("output gradient", error)
        self.hook_ns += time.perf_counter_ns() - began

    def arrived(self, batch: Batch, path: str, gradient: Tensor) -> None:
        """Note the gradient of an output, and copy it if the output was copied."""
        called: Optional[Called] = batch.owner
        if called is None or not is_real(gradient):
            return
        if self.depth and not batch.from_backward:
            # What torch.autograd.grad computed before (a gradient penalty) is not the loss's gradient.
            batch.from_backward = True
            batch.arrived.clear()
            for tensor in batch.gradients.values():
                tensor.block.release()
            batch.gradients.clear()
        if called not in self._touched:
            self._touched.append(called)
        batch.scale = self._scale
        batch.arrived[path] = int(gradient.shape[0]) if gradient.dim() else -1
        if path not in batch.outputs:
            return
        known = batch.gradients.get(path)
        new = copied_output(self.pool, gradient)
        if known is None:
            batch.gradients[path] = new
            return
        with quiet():  # several backward calls through the same output add up
            count = known.size // 4
            known.block.tensor(torch.float32, 0, count).add_(new.block.tensor(torch.float32, 0, count))
        new.block.release()

    def zeroed(self, owner: Any) -> None:
        """A module's or optimizer's gradients are set to zero: what came before does not count any more."""
        if isinstance(owner, torch.nn.Module):
            called = self._meet(owner)
            root: Optional[Root] = None if called is None else called.root
        else:
            driver = self._drivers.get(id(owner))
            root = None if driver is None else driver.root
        if any([driver.depth and _active_steps(driver.reference()) for driver in self._drivers.values()]):
            # A closure evaluates several times; the loss is that of the first evaluation, as `step` returns it.
            if self._loose or (root is not None and any(called.losses for called in root.called)):
                self._muted = True
            return
        self._loose = []
        for called in root.called if root is not None else ():
            called.losses = []
            called.drop([batch for batch in called.pending if batch.arrived])

    def scaled(self, scale: float) -> None:
        """A gradient scaler multiplied a loss with `scale`."""
        self._scaling = scale

    # ---- optimizers -----------------------------------------------------------------------------------

    def enter_step(self, optimizer: torch.optim.Optimizer, closure: bool) -> None:
        """`step` begins, perhaps called by a subclass's `step`, or again after one that raised."""
        driver = self._meet_optimizer(optimizer)
        if driver.depth:
            driver.depth = min(driver.depth, _active_steps(optimizer) - 1)
        driver.depth += 1
        if driver.depth == 1:
            self.before_step(optimizer, closure)

    def leave_step(self, optimizer: torch.optim.Optimizer, closure: bool) -> None:
        """`step` ends."""
        driver = self._meet_optimizer(optimizer)
        driver.depth -= 1
        if driver.depth == 0:
            driver.steps += 1
            self.after_step(optimizer, closure, skipped=False)

    def count_steps(self, optimizer: torch.optim.Optimizer) -> Optional[int]:
        """Return how often the optimizer stepped; None when that is not watched any more."""
        if "optimizer step begin" in self.faults.disabled or "optimizer step end" in self.faults.disabled:
            return None
        return self._meet_optimizer(optimizer).steps

    def left_out(self, optimizer: torch.optim.Optimizer, before: int) -> None:
        """A gradient scaler is done: if it found an overflow, it did not let the optimizer step."""
        if self._meet_optimizer(optimizer).steps == before:
            self.before_step(optimizer, closure=False)
            self.after_step(optimizer, closure=False, skipped=True)

    def _meet_optimizer(self, optimizer: torch.optim.Optimizer) -> Driver:
        """Return the optimizer's driver, new if it is."""
        driver = self._drivers.get(id(optimizer))
        if driver is None or driver.reference() is not optimizer:
            driver = self._drivers[id(optimizer)] = Driver(optimizer)
        return driver

    def before_step(self, optimizer: torch.optim.Optimizer, closure: bool) -> None:
        """An optimizer is about to step: the gradients are what it will use, θ is what it starts from."""
        self._bury()
        driver = self._meet_optimizer(optimizer)
        if driver.root is None:
            self._assign(optimizer, driver)
        root: Optional[Root] = driver.root
        if root is None:
            return
        try:
            # Accumulated over the steps of one row.
            if root.steps > 0 and not root.parameters.equals(root.theta, self.pool):
                root.foreign = True
            root.norms = None
            if not closure and (root.steps + 1) % self.options.every == 0:
                root.norms = gradient_norms(root.parameters, self.pool)
        except StructureChangedError as error:
            self._restructured(root, error)
            self.before_step(optimizer, closure)

    def after_step(self, optimizer: torch.optim.Optimizer, closure: bool, skipped: bool) -> None:
        """An optimizer stepped, or would have, had a scaler not found an overflow."""
        driver = self._drivers[id(optimizer)]
        self._muted = False
        root: Optional[Root] = driver.root
        if root is None:
            return
        if closure and (root.steps + 1) % self.options.every == 0:
            root.norms = gradient_norms(root.parameters, self.pool)
        loss = root.take_loss(self._loose)
        self._loose = []
        if loss is None and root.last_driver is not None and root.last_driver is not driver:
            loss = root.loss  # two optimizers share one backward
        root.loss = loss
        root.last_driver = driver
        found = getattr(optimizer, "found_inf", None)
        if isinstance(found, Tensor) and scalar(found):
            skipped = True
        self.rows.step(root, driver, optimizer, skipped)

    def _assign(self, optimizer: torch.optim.Optimizer, driver: Driver) -> None:
        known = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for root in self.roots:
            if root.module is not None and known <= {id(slot.tensor()) for slot in root.parameters.slots}:
                root.enlist(driver)
                return
        module = choose(optimizer, [c for _, c in self._called.values() if c is not None])
        if module is None:
            if "optimizer" not in self.faults.disabled:
                self.faults.disabled["optimizer"] = 0
                self.faults.tell(
                    "optimizer", "no module holds the parameters of " + type(optimizer).__qualname__
                )
            return
        chosen = self._root(module, manual=False)
        if chosen is not None:
            chosen.enlist(driver)

    def _root(self, module: Optional[torch.nn.Module], manual: bool) -> Optional[Root]:
        if module is None:
            return None
        for root in self.roots:
            if root.module is module:
                root.manual = root.manual and manual
                return root
        everyone = list({id(c): c for _, c in self._called.values() if c is not None}.values())
        root = Root(len(self.roots), module, everyone, self.pool)
        root.manual = manual
        self.roots.append(root)
        for called in everyone:
            if root.accepts(called):
                root.adopt(called)
            elif not manual:
                called.drop_parameters()
        return root

    def _restructured(self, root: Root, error: StructureChangedError) -> None:
        """Close a root whose tensors changed shape; its module begins a new one."""
        self.faults.tell("parameters", "{}: {}; a new root begins".format(root.kind, error))
        root.close()
        for number, (reference, called) in list(self._called.items()):
            if called in root.called:
                del self._called[number]

    # ---- the connection -------------------------------------------------------------------------------

    def send(self, frame: Frame) -> None:
        """Queue a frame; the first one makes the connection."""
        if self.sender is None:
            self.sender = Sender(self.options.socket, self.options.queue_bytes, self._unsendable)
            self.sender.put(Frame("hello", _hello()))
        self.sender.put(frame)
        if self.sender.gone:
            self.active = False
            self.faults.tell("the connection to the recorder", "it is gone, and recording ends here")

    def export(self, root: Root, call: Tuple[Any, Any]) -> None:
        """Send the module as data; `call` is what it was called with."""
        if "export" not in self.faults.disabled:
            try:
                self.exporter.begin(root, call)
            except Exception as error:
                self.faults.caught("export", error)

    def report(self, where: str, text: str) -> bool:
        """Tell the recorder about a fault; False if it cannot be told."""
        if self.sender is None or self.sender.gone:
            return False
        self.sender.put(Frame("report", {"where": where, "error": text, "pid": os.getpid()}))
        return True

    def _unsendable(self, frame: Frame, error: Exception) -> None:
        self.faults.caught("frame " + frame.kind, error)

    def forked(self) -> None:
        """In a forked child: workers must not record. One forked before anything was recorded may train."""
        self.lock = threading.RLock()
        self.pool = Pool()
        if self.sender is not None or self.roots:
            self.active = False
        if self.sender is not None:
            self.sender.forked()

    def finish(self) -> None:
        """The process ends: send what is left, and wait until the recorder has it."""
        if self.sender is None or self.sender.gone:
            self.active = False
            return
        for root in self.roots:
            self.rows.last(root)
        self.exporter.finish()
        steps = {str(root.number): {"steps": root.steps, "skipped": root.skipped} for root in self.roots}
        wait = self.sender.wait_ns
        fields = {"roots": steps, "hook_ns": self.hook_ns - wait, "wait_ns": wait, "calls": self.calls}
        self.active = False
        self.sender.put(Frame("bye", fields))
        self.sender.drain()


def _active_steps(optimizer: Optional[torch.optim.Optimizer]) -> int:
    """Return how many calls of the optimizer's hooked `step` are on the stack."""
    count = 0
    frame = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "wrapper" and code.co_filename.endswith("optimizer.py"):
            count += frame.f_locals.get("self") is optimizer
        frame = frame.f_back  # type: ignore[assignment]
    return count


def _hello() -> Dict[str, Any]:
    return {
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "argv": [str(part) for part in sys.argv],
        "executable": sys.executable,
        "cwd": os.getcwd(),
        "python": sys.version.split()[0],
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "rank": os.environ.get("RANK"),
    }
