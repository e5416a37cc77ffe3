"""What lets a module be run without a trace of it: kernels, flags, buffers and random states.

torch and the standard library only, and Python 3.9 syntax: copied into the user's environment with `export`.
"""

# ruff: noqa: B905 -- zip(strict=) is newer than Python 3.9

from __future__ import annotations

import contextlib
import random
import sys
from typing import Any, Callable, Dict, Iterator, List

import torch
from torch import Tensor


@contextlib.contextmanager
def ad_friendly() -> Iterator[None]:
    """Use only kernels that have forward and double-backward derivatives; restore the flags after.

    Attention by its mathematics rather than the fused kernels, no MultiheadAttention fast path, no mkldnn
    (its LSTM has no forward derivative).
    """
    cuda: Any = torch.backends.cuda
    mha: Any = torch.backends.mha
    core: Any = torch._C  # torch.backends.mkldnn.flags() also writes an Intel GPU flag, with a warning
    flags = [
        (cuda.enable_flash_sdp, cuda.flash_sdp_enabled(), False),
        (cuda.enable_mem_efficient_sdp, cuda.mem_efficient_sdp_enabled(), False),
        (cuda.enable_math_sdp, cuda.math_sdp_enabled(), True),
        (mha.set_fastpath_enabled, mha.get_fastpath_enabled(), False),
        (core._set_mkldnn_enabled, core._get_mkldnn_enabled(), False),
    ]
    if hasattr(cuda, "enable_cudnn_sdp"):  # since torch 2.5
        flags.append((cuda.enable_cudnn_sdp, cuda.cudnn_sdp_enabled(), False))
    for switch, _, wanted in flags:
        switch(wanted)
    try:
        yield
    finally:
        for switch, before, _ in flags:
            switch(before)


@contextlib.contextmanager
def untouched(module: torch.nn.Module) -> Iterator[None]:
    """Put the module in eval mode, and undo every trace of having run it.

    Flags are set through `__dict__`, since users override `train()`. Buffers are copies while it lasts, so
    that what forward counts or accumulates is not seen; attributes, hooks and random states come back.
    """
    tables = ("_parameters", "_buffers", "_modules")
    modules = list(module.modules())
    saved = [(m, dict(m.__dict__), [dict(m.__dict__[table]) for table in tables]) for m in modules]
    randoms = _random_states()
    copies: Dict[int, Tensor] = {}
    for part in modules:
        part.__dict__["training"] = False
        part.__dict__["_compiled_call_impl"] = None  # set by module.compile(): trace the eager forward
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = copies.setdefault(id(buffer), buffer.detach().clone())
    try:
        yield
    finally:
        for part, attributes, held in saved:
            part.__dict__.clear()
            part.__dict__.update(attributes)
            for table, content in zip(tables, held):
                part.__dict__[table].clear()
                part.__dict__[table].update(content)
        for restore in randoms:
            restore()


def _random_states() -> List[Callable[[], Any]]:
    """Return what puts back the present state of each random generator in use."""
    state, python = torch.get_rng_state(), random.getstate()
    restore: List[Callable[[], Any]] = [lambda: torch.set_rng_state(state), lambda: random.setstate(python)]
    gpu: Any = torch.cuda
    if gpu.is_available() and gpu.is_initialized():
        cuda = gpu.get_rng_state_all()
        restore.append(lambda: gpu.set_rng_state_all(cuda))
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        arrays = numpy.random.get_state()
        restore.append(lambda: numpy.random.set_state(arrays))
    return restore
