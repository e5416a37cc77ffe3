"""Run a script as `python script args…` would, then write down the state it leaves behind.

    python dump_state.py OUT.pt SCRIPT [ARG…]

OUT.pt holds a flat dict from names to tensors, bytes and plain values: parameters, buffers, gradients and
training flags of every module the script made, its optimizers' state, the random number generators, and
torch's global settings. The exit code is the script's own. Modules and optimizers are found by their
constructors, since a script's `main()` may keep them to itself; nothing else is touched.
"""

from __future__ import annotations

import random
import runpy
import signal
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def keep_instances(kind: type, kept: list[Any]) -> None:
    """Let every new instance of `kind` be appended to `kept`."""
    construct: Callable[..., None] = kind.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        construct(self, *args, **kwargs)
        kept.append(self)

    kind.__init__ = __init__  # type: ignore[misc]


def outermost(modules: list[torch.nn.Module]) -> list[torch.nn.Module]:
    """The modules that are no other one's child, in the order of their making."""
    inner = {id(child) for module in modules for child in module.modules() if child is not module}
    return [module for module in modules if id(module) not in inner]


def flatten(prefix: str, value: object) -> dict[str, object]:
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list | tuple):
        pairs = enumerate(value)
    else:
        return {prefix: value}
    return {k: v for name, item in pairs for k, v in flatten(f"{prefix}.{name}", item).items()}


def describe_module(prefix: str, module: torch.nn.Module) -> dict[str, object]:
    state: dict[str, object] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        state[f"{prefix}.parameter.{name}"] = parameter.detach()
        state[f"{prefix}.grad.{name}"] = parameter.grad
        state[f"{prefix}.requires_grad.{name}"] = parameter.requires_grad
        state[f"{prefix}.hooks.{name}"] = len(parameter._backward_hooks or ())
    for name, buffer in module.named_buffers(remove_duplicate=False):
        state[f"{prefix}.buffer.{name}"] = buffer.detach()
    for name, child in module.named_modules():
        state[f"{prefix}.training.{name}"] = child.training
        hooks = (child._forward_hooks, child._forward_pre_hooks, child._backward_hooks)
        state[f"{prefix}.hooks.{name}"] = sum(map(len, hooks))
        state[f"{prefix}.attributes.{name}"] = ",".join(vars(child))
    return state


def describe_process() -> dict[str, object]:
    return {
        "rng.torch": torch.get_rng_state(),
        "rng.numpy": repr(np.random.get_state(legacy=False)),
        "rng.python": repr(random.getstate()),
        "torch.threads": torch.get_num_threads(),
        "torch.interop_threads": torch.get_num_interop_threads(),
        "torch.grad_enabled": torch.is_grad_enabled(),
        "torch.default_dtype": str(torch.get_default_dtype()),
        "torch.deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch.mkldnn": torch.backends.mkldnn.enabled,
        "torch.mha_fastpath": torch.backends.mha.get_fastpath_enabled(),
        "torch.sdp": (
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
        ),
        "signal.int": repr(signal.getsignal(signal.SIGINT) is signal.default_int_handler),
        "signal.term": repr(signal.getsignal(signal.SIGTERM)),
        "argv": tuple(sys.argv),
    }


def main() -> None:
    out, script, *args = sys.argv[1:]
    sys.argv = [script, *args]
    modules: list[torch.nn.Module] = []
    optimizers: list[torch.optim.Optimizer] = []
    # A script may leave some generators unseeded; then a draw by someone else must show all the same.
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    keep_instances(torch.nn.Module, modules)
    keep_instances(torch.optim.Optimizer, optimizers)
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        state = describe_process()
        for k, module in enumerate(outermost(modules)):
            state |= describe_module(f"module{k}:{type(module).__name__}", module)
        for k, optimizer in enumerate(optimizers):
            state |= flatten(f"optimizer{k}:{type(optimizer).__name__}", optimizer.state_dict())
        torch.save(state, out)


if __name__ == "__main__":
    main()
