"""One training forward of a root: its inputs, its output, and the gradient that comes back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Set, Tuple

import torch
from torch import Tensor

from .blocks import Block, Pool
from .memory import address, copy_to, is_real, mover, quiet
from .tree import leaves
from .wire import Blob, dtype_name

if TYPE_CHECKING:
    from .recorder import Recorder

# Of a module that returns many tensors, the first so many are watched for a gradient.
_MOST_OUTPUTS = 16


class Copied:
    """A tensor's values: where they lie, and what they are."""

    __slots__ = ("block", "dtype", "shape", "size")

    def __init__(self, block: Block, dtype: torch.dtype, shape: Tuple[int, ...], size: int) -> None:
        self.block = block
        self.dtype = dtype
        self.shape = shape
        self.size = size

    def blob(self, name: str) -> Blob:
        """Return the values as an array of a frame."""
        return Blob(name, dtype_name(self.dtype), self.shape, self.block, self.size)


def copied(pool: Pool, tensor: Tensor, rows: Optional[int] = None) -> Copied:
    """Copy the tensor, or its first rows, as it is."""
    if rows is not None and rows < tensor.shape[0]:
        with quiet():
            tensor = tensor.detach()[:rows]
    size = tensor.nbytes
    block = pool.take(size)
    place = address(tensor)
    if place:
        mover(size)(block.address, place, size)
    else:
        copy_to(tensor, tensor.dtype, block, 0)
    return Copied(block, tensor.dtype, tensor.shape, size)


def copied_output(pool: Pool, tensor: Tensor, rows: Optional[int] = None) -> Copied:
    """Copy the tensor as float32 (float64 stays what it is), flattened to (row, output)."""
    if rows is not None and rows < tensor.shape[0]:
        with quiet():
            tensor = tensor.detach()[:rows]
    count = tensor.numel()
    dtype, width = (torch.float64, 8) if tensor.dtype is torch.float64 else (torch.float32, 4)
    size = width * count
    block = pool.take(size)
    place = address(tensor) if tensor.dtype is dtype else 0
    if place:
        mover(size)(block.address, place, size)
    else:
        copy_to(tensor, dtype, block, 0)
    length = tensor.size(0)
    return Copied(block, dtype, (length, count // length if length else 0), size)


class Inputs:
    """The tensors a module was called with whose rows are the examples.

    Args:
        args: Its arguments.
        kwargs: Its arguments by name.
        leading: Index of a tensor whose rows are the examples, if that is known; else all tensors are taken,
            until a gradient arrives at an output that has as many rows.

    Attributes:
        size: The number of rows; None when there is no tensor with a dimension.
        tensors: `(index, tensor)`, the index counting all tensors among the arguments in their order.
    """

    __slots__ = ("size", "tensors")

    def __init__(self, args: Tuple[Any, ...], kwargs: Dict[str, Any], leading: Optional[int]) -> None:
        self.size: Optional[int] = None
        self.tensors: List[Tuple[int, Tensor]] = []
        if len(args) == 1 and not kwargs and type(args[0]) is Tensor:
            tensor = args[0]
            if tensor.dim() and is_real(tensor):
                self.size = tensor.size(0)
                self.tensors.append((0, tensor))
            return
        index = 0
        for value in (*args, *kwargs.values()) if kwargs else args:
            for _, tensor in (("", value),) if type(value) is Tensor else leaves(value):
                if tensor.dim() and is_real(tensor):
                    if self.size is None or index == leading:
                        self.size = tensor.size(0)
                    self.tensors.append((index, tensor))
                index += 1
        if leading is not None:
            self.tensors = [(index, tensor) for index, tensor in self.tensors if tensor.size(0) == self.size]

    def copy(self, pool: Pool, rows: Optional[int] = None) -> List[Tuple[int, Copied]]:
        """Copy them, or their first rows."""
        return [(index, copied(pool, tensor, rows)) for index, tensor in self.tensors]


class Batch:
    """A training forward, pending until an optimizer step takes it.

    Attributes:
        size: Rows of the batch.
        bytes: Size of the copies of inputs and outputs.
        inputs: Copies of the input tensors.
        outputs: Copies of outputs by path, only those within the budget.
        gradients: Copies of ∂L/∂output by path.
        arrived: Paths at which a gradient arrived, in their order in the output.
        scale: What a gradient scaler multiplied the loss with.
        eval_mode: The module was in evaluation mode.
        alive: Hooks that the graph still holds; at 0 no gradient can arrive any more.
        mine: Inputs and outputs are copied, not only the arrival of gradients noted.
        call: What the module was called with, for the export.
    """

    __slots__ = (
        "alive",
        "arrived",
        "bytes",
        "call",
        "eval_mode",
        "from_backward",
        "gradients",
        "inputs",
        "mine",
        "outputs",
        "owner",
        "scale",
        "size",
        "watched",
    )

    def __init__(self, owner: Any, size: Optional[int]) -> None:
        self.owner = owner
        self.size = size
        self.bytes = 0
        self.inputs: List[Tuple[int, Copied]] = []
        self.outputs: Dict[str, Copied] = {}
        self.gradients: Dict[str, Copied] = {}
        self.watched: Tuple[str, ...] = ()
        self.arrived: Dict[str, int] = {}
        self.from_backward = False
        self.scale = 1.0
        self.eval_mode = False
        self.mine = False
        self.call: Optional[Tuple[Any, Any]] = None
        self.alive = 0

    def lengths(self) -> Set[Optional[int]]:
        """Return the numbers of rows that the inputs have: one, once it is known which are examples."""
        return {copied.shape[0] for _, copied in self.inputs} or {self.size}

    def path(self, wanted: Optional[str]) -> Optional[str]:
        """Return the path of the output to record: the wanted one, else the first whose gradient arrived.

        An output whose leading dimension is that of the inputs goes before others.
        """
        if wanted is not None:
            return wanted if wanted in self.watched or wanted in self.outputs else None
        arrived = [path for path in self.watched if path in self.arrived]
        lengths = self.lengths()
        leading = [path for path in arrived if self.arrived[path] in lengths]
        return next(iter(leading or [p for p in arrived if self.arrived[p] >= 0]), None)

    def forget(self) -> None:
        """Let go of the arrays: the graph may hold the batch itself for long."""
        self.inputs, self.outputs, self.gradients, self.call = [], {}, {}, None


class Arrival:
    """Called by autograd with the gradient of one output. Only the graph holds it: it dies with the graph."""

    __slots__ = ("_batch", "_path", "_recorder")

    def __init__(self, batch: Batch, path: str, recorder: Recorder) -> None:
        self._batch = batch
        self._path = path
        self._recorder = recorder

    def __call__(self, gradient: Optional[Tensor]) -> None:
        """Note the gradient; nothing is returned, so that autograd goes on with its own."""
        recorder = self._recorder
        if gradient is None or not recorder.active or "output gradient" in recorder.faults.disabled:
            return
        began = time.perf_counter_ns()
        try:
            with recorder.lock:
                recorder.backwards.arrived(self._batch, self._path, gradient)
        except Exception as error:
            recorder.faults.caught("output gradient", error)
        recorder.hook_ns += time.perf_counter_ns() - began

    def __del__(self) -> None:
        # At any time and in any thread, even in the sender's.
        self._batch.alive -= 1
        if self._batch.alive == 0:
            self._recorder.dead.append(self._batch)


# Tensor.register_hook tells the graph's node of the dict of hooks that the tensor has got. A tensor of our
# own brings one to the node instead: the user's stays as it is, in half the time of Node.register_prehook.
_carrier = torch.empty(0)


def _attach(tensor: Tensor, node: Any, arrival: Arrival) -> None:
    number = tensor.output_nr
    if number == 0:  # the carrier's
        _carrier._backward_hooks = {0: arrival}
        node._register_hook_dict(_carrier)
        _carrier._backward_hooks = None
    else:
        node.register_prehook(lambda gradients: arrival(gradients[number]))


def watch(batch: Batch, result: Any, recorder: Recorder) -> List[Tuple[str, Tensor]]:
    """Ask autograd to tell when gradients of the outputs arrive, and when none can arrive any more.

    The hook sits on the graph's node and not on the tensor, which stays as the user knows it.

    Returns:
        The watched outputs by path.
    """
    listed = [("", result)] if type(result) is Tensor else leaves(result)
    found: List[Tuple[str, Tensor]] = []
    for path, tensor in listed:
        node = tensor.grad_fn
        if node is None or not tensor.is_floating_point() or not is_real(tensor):
            continue
        batch.alive += 1
        _attach(tensor, node, Arrival(batch, path, recorder))
        found.append((path, tensor))
        if len(found) >= _MOST_OUTPUTS:
            break
    batch.watched = tuple([path for path, _ in found])
    return found
