"""Reading tensors without the run noticing: plain copies of memory where possible, else torch in quiet."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

# PyDLL keeps the interpreter lock: giving it away for a copy of microseconds lets the sender thread in, and
# waiting to get it back costs more than the copy. CDLL gives it away, for what takes a millisecond.
_held = ctypes.PyDLL(None)
_free = ctypes.CDLL(None)
LONG = 8 << 20


def _function(library: ctypes.CDLL, name: str, result: Any) -> Any:
    function = getattr(library, name)
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    function.restype = result
    return function


_move_held = _function(_held, "memmove", None)
_move_free = _function(_free, "memmove", None)
_compare_held = _function(_held, "memcmp", ctypes.c_int)
_compare_free = _function(_free, "memcmp", ctypes.c_int)

_no_function: Any = torch._C.DisableTorchFunction
_no_autocast: Any = torch._C._DisableAutocast

_dispatch_modes = torch._C._len_torch_dispatch_stack
_function_modes = torch._C._len_torch_function_stack

float_at = ctypes.c_float.from_address
double_at = ctypes.c_double.from_address


def mover(size: int) -> Any:
    """Return memmove(to, from, size) for copies of this size."""
    return _move_held if size < LONG else _move_free


def comparer(size: int) -> Any:
    """Return memcmp(a, b, size) for comparisons of this size."""
    return _compare_held if size < LONG else _compare_free


def is_real(tensor: Tensor) -> bool:
    """Tell whether the tensor has values of its own: it is not fake, distributed, sparse or on meta."""
    kind = type(tensor)
    plain = kind is Tensor or kind is torch.nn.Parameter
    if not plain and kind.__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return False
    return tensor.layout is torch.strided and not tensor.is_meta and not tensor.is_quantized


def address(tensor: Tensor) -> int:
    """Return where the values of a plain tensor lie in their order; 0 if it is not as plain as that."""
    plain = (
        type(tensor) is Tensor
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and tensor.is_contiguous()
        and not tensor.is_neg()
        and not tensor.is_conj()
        and not tensor.is_quantized
    )
    return tensor.data_ptr() if plain else 0


def undisturbed() -> bool:
    """Tell whether an operation on plain tensors would do what it does outside of all the user's modes."""
    return _dispatch_modes() == 0 and _function_modes() == 0


def is_flat(tensor: Tensor) -> bool:
    """Tell whether the tensor's values lie in this process's memory in their order, as they are."""
    return tensor.is_cpu and tensor.is_contiguous() and not tensor.is_neg() and not tensor.is_conj()


class quiet:
    """Run torch operations outside the user's modes and graph; nothing random may be done inside."""

    __slots__ = ("_autocast", "_function", "_gradients", "_modes")

    def __enter__(self) -> None:
        self._modes: Any = None
        if _dispatch_modes() > 0:
            from torch.utils._python_dispatch import _disable_current_modes

            self._modes = _disable_current_modes()
            self._modes.__enter__()
        self._gradients = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)
        self._function = _no_function()
        self._function.__enter__()
        self._autocast = _no_autocast()
        self._autocast.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._autocast.__exit__(*error)
        self._function.__exit__(*error)
        torch._C._set_grad_enabled(self._gradients)
        if self._modes is not None:
            self._modes.__exit__(*error)


def copy_to(tensor: Tensor, dtype: torch.dtype, block: Any, start: int) -> None:
    """Copy the tensor's values, as `dtype` and in their logical order, to byte `start` of the block."""
    if tensor.dtype is dtype and is_flat(tensor):
        size = tensor.numel() * tensor.element_size()
        mover(size)(block.address + start, tensor.data_ptr(), size)
        return
    count = tensor.numel()
    if count:
        with quiet():
            block.tensor(dtype, start, count).view(tensor.shape).copy_(tensor.detach())


def scalar(tensor: Tensor) -> float:
    """Return the value of a tensor with one element."""
    if tensor.is_cpu:
        if tensor.dtype is torch.float32:
            return float_at(tensor.data_ptr()).value
        if tensor.dtype is torch.float64:
            return double_at(tensor.data_ptr()).value
    with quiet():
        return float(tensor.detach().item())
