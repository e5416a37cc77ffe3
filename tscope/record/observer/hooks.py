"""Where the observer is called from: a few functions of torch, replaced by ones that call them."""

from __future__ import annotations

import atexit
import functools
import os
import sys
import threading
import time
from typing import Any, Callable, Dict, List, Tuple

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from .faults import Faults
from .memory import is_real, scalar
from .options import Options
from .recorder import Recorder

_clock = time.perf_counter_ns


class _Local(threading.local):
    depth = 0


class Hooks:
    """The hooks of one process.

    Args:
        recorder: What they call.
        faults: What counts their exceptions.
    """

    def __init__(self, recorder: Recorder, faults: Faults) -> None:
        self.recorder = recorder
        self.faults = faults
        self._replaced: List[Tuple[Any, str, Any, Any]] = []
        self._handles: List[Any] = []

    def install(self) -> None:
        """Begin to observe."""
        self._replace(torch.nn.Module, "__call__", self._call)
        self._replace(torch.autograd, "backward", self._backward)
        self._replace(torch.optim.Optimizer, "zero_grad", self._zero_grad)
        self._replace(torch.nn.Module, "zero_grad", self._zero_grad)
        if self.recorder.fork is not None and self.recorder.fork.step == 0:
            self._replace(torch.optim.Optimizer, "__init__", self._optimizer)
        scaler = _scaler_class()
        if scaler is not None:
            self._replace(scaler, "scale", self._scaler_scale)
            self._replace(scaler, "step", self._scaler_step)
        self._handles = [
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]

    def remove(self) -> None:
        """Leave torch as it was, except where someone else replaced a function after us."""
        for owner, name, mine, original in self._replaced:
            if owner.__dict__.get(name) is mine:
                setattr(owner, name, original)
        for handle in self._handles:
            handle.remove()
        self._replaced, self._handles = [], []

    def _replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        original = getattr(owner, name)
        mine = functools.wraps(original)(make(original))
        self._replaced.append((owner, name, mine, original))
        setattr(owner, name, mine)

    def _guarded(self, where: str, action: Callable[..., Any], *args: Any) -> Any:
        """Do something of ours, whatever happens in it."""
        recorder = self.recorder
        if not recorder.active or where in self.faults.disabled:
            return None
        began = _clock()
        recorder.calls += 1
        try:
            with recorder.lock:
                return action(*args)
        except Exception as error:
            self.faults.caught(where, error)
            return None
        finally:
            recorder.hook_ns += _clock() - began

    def _call(self, original: Any) -> Any:
        local = _Local()
        compiling = torch.compiler.is_compiling
        recorder, guarded = self.recorder, self._guarded

        def __call__(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            if compiling() or local.depth or not recorder.active:
                return original(self, *args, **kwargs)
            local.depth = 1
            try:
                token = guarded("forward", recorder.forwards.before_forward, self, args, kwargs)
                result = original(self, *args, **kwargs)
            finally:
                local.depth = 0
            if token is not None:
                guarded("forward output", recorder.forwards.after_forward, token, result)
            return result

        return __call__

    def _backward(self, original: Any) -> Any:
        compiling = torch.compiler.is_compiling
        recorder, guarded = self.recorder, self._guarded
        backwards = recorder.backwards

        def backward(tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any) -> Any:
            if compiling():
                return original(tensors, grad_tensors, *args, **kwargs)
            if not recorder.active:
                self.remove()  # here no one iterates over torch's hooks
                return original(tensors, grad_tensors, *args, **kwargs)
            backwards.depth += 1
            try:
                return original(tensors, grad_tensors, *args, **kwargs)
            finally:
                backwards.depth -= 1
                if backwards.depth == 0:
                    guarded("backward", backwards.after_backward, tensors, grad_tensors)

        return backward

    def _zero_grad(self, original: Any) -> Any:
        compiling = torch.compiler.is_compiling
        recorder, guarded = self.recorder, self._guarded
        backwards = recorder.backwards

        def zero_grad(self: Any, *args: Any, **kwargs: Any) -> Any:
            # Mostly there is nothing to take back, since the optimizer's step took it.
            if not compiling() and recorder.active and backwards.used:
                guarded("zero_grad", backwards.zeroed, self)
            return original(self, *args, **kwargs)

        return zero_grad

    def _optimizer(self, original: Any) -> Any:
        recorder, guarded = self.recorder, self._guarded

        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            if recorder.fork is not None:
                guarded("fork", recorder.fork.optimizer_made)

        return __init__

    def _scaler_scale(self, original: Any) -> Any:
        recorder, guarded = self.recorder, self._guarded

        def scale(self: Any, outputs: Any) -> Any:
            result = original(self, outputs)
            guarded("GradScaler.scale", _note_scale, recorder, self, outputs, result)
            return result

        return scale

    def _scaler_step(self, original: Any) -> Any:
        recorder, guarded = self.recorder, self._guarded

        def step(self: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            before = guarded("GradScaler.step", recorder.steps.count_steps, optimizer)
            result = original(self, optimizer, *args, **kwargs)
            if before is not None:
                guarded("GradScaler.step", recorder.steps.left_out, optimizer, before)
            return result

        return step

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Dict[str, Any]) -> None:
        if not torch.compiler.is_compiling():
            closure = (len(args) > 1 or bool(kwargs)) and _closure(args, kwargs)
            self._guarded("optimizer step begin", self.recorder.steps.enter_step, optimizer, closure)

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Dict[str, Any]) -> None:
        if not torch.compiler.is_compiling():
            closure = (len(args) > 1 or bool(kwargs)) and _closure(args, kwargs)
            self._guarded("optimizer step end", self.recorder.steps.leave_step, optimizer, closure)


def _closure(args: Any, kwargs: Dict[str, Any]) -> bool:
    # torch gives the hooks the arguments of `step` with the optimizer among them.
    return (len(args) > 1 and args[1] is not None) or kwargs.get("closure") is not None


def _note_scale(recorder: Recorder, scaler: Any, outputs: Any, result: Any) -> None:
    scale = getattr(scaler, "_scale", None)
    if isinstance(scale, torch.Tensor) and is_real(scale):
        recorder.backwards.scaled(scalar(scale), outputs, result)


def _scaler_class() -> Any:
    amp = getattr(torch, "amp", None)
    found = getattr(amp, "GradScaler", None)  # since torch 2.3; before, CUDA's own was the base
    if found is None:
        from torch.cuda.amp.grad_scaler import GradScaler

        found = GradScaler
    return found


def start() -> Hooks:
    """Begin to observe this process."""
    faults = Faults()
    recorder = Recorder(Options.from_environment(), faults)
    faults.report = recorder.report
    hooks = Hooks(recorder, faults)
    hooks.install()

    def finish() -> None:
        hooks._guarded("exit", recorder.finish)
        # Only if that failed is there anything left to do: what was said of it may still wait to be sent.
        hooks._guarded("last frames", recorder.drain)

    def forked() -> None:
        recorder.forked()
        if not recorder.active:
            hooks.remove()

    def connected() -> None:
        process = sys.modules.get("multiprocessing.process")
        if process is not None and process.parent_process() is not None:
            # Children of multiprocessing end by os._exit, after their finalizers and without atexit.
            from multiprocessing.util import Finalize

            Finalize(None, finish, exitpriority=0)

    recorder.connected = connected
    atexit.register(finish)
    os.register_at_fork(after_in_child=forked)
    return hooks
