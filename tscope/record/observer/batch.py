"""One training forward of a root: its inputs, its output, and the gradient that comes back."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch import Tensor

from .blocks import Block, Pool
from .memory import copy_to, is_real, quiet
from .tree import leaves
from .wire import Blob, dtype_name

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
        """Return the values as an array of a frame, which takes its own share in the block."""
        return Blob(name, dtype_name(self.dtype), self.shape, self.block.keep(), 0, self.size)


def copied(pool: Pool, tensor: Tensor, rows: Optional[int] = None) -> Copied:
    """Copy the tensor, or its first rows, as it is."""
    if rows is not None and rows < tensor.shape[0]:
        with quiet():
            tensor = tensor.detach()[:rows]
    size = tensor.numel() * tensor.element_size()
    block = pool.take(size)
    copy_to(tensor, tensor.dtype, block, 0)
    return Copied(block, tensor.dtype, tuple(tensor.shape), size)


def copied_output(pool: Pool, tensor: Tensor, rows: Optional[int] = None) -> Copied:
    """Copy the tensor as float32, flattened to (row, output)."""
    if rows is not None and rows < tensor.shape[0]:
        with quiet():
            tensor = tensor.detach()[:rows]
    count = tensor.numel()
    block = pool.take(4 * count)
    copy_to(tensor, torch.float32, block, 0)
    length = int(tensor.shape[0])
    return Copied(block, torch.float32, (length, count // length if length else 0), 4 * count)


class Inputs:
    """The tensors a module was called with whose rows are the examples.

    Attributes:
        size: The number of rows; None when there is no tensor with a dimension.
        tensors: `(index, tensor)`, the index counting all tensors among the arguments in their order.
    """

    __slots__ = ("size", "tensors")

    def __init__(self, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
        self.size: Optional[int] = None
        self.tensors: List[Tuple[int, Tensor]] = []
        index = 0
        for value in (*args, *kwargs.values()) if kwargs else args:
            for _, tensor in (("", value),) if type(value) is Tensor else leaves(value):
                if tensor.dim() and is_real(tensor):
                    if self.size is None:
                        self.size = int(tensor.shape[0])
                    if tensor.shape[0] == self.size:
                        self.tensors.append((index, tensor))
                index += 1

    def copy(self, pool: Pool, rows: Optional[int] = None) -> List[Tuple[int, Copied]]:
        """Copy them, or their first rows."""
        return [(index, copied(pool, tensor, rows)) for index, tensor in self.tensors]


class Batch:
    """A training forward, pending until an optimizer step takes it.

    Attributes:
        size: Rows of the batch.
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

    def path(self, wanted: Optional[str]) -> Optional[str]:
        """Return the path of the output to record: the wanted one, else the first whose gradient arrived.

        An output whose leading dimension is that of the inputs goes before others.
        """
        if wanted is not None:
            return wanted if wanted in self.watched or wanted in self.outputs else None
        arrived = [path for path in self.watched if path in self.arrived]
        leading = [path for path in arrived if self.arrived[path] == self.size]
        return next(iter(leading or [p for p in arrived if self.arrived[p] >= 0]), None)

    def forget(self) -> None:
        """Give the memory back; the batch is not taken by any step."""
        for _, tensor in self.inputs:
            tensor.block.release()
        for held in (self.outputs, self.gradients):
            for tensor in held.values():
                tensor.block.release()
        self.inputs, self.outputs, self.gradients, self.call = [], {}, {}, None


class Arrival:
    """Called by autograd with the gradient of one output. Only the graph holds it: it dies with the graph."""

    __slots__ = ("_batch", "_died", "_number", "_path", "_then")

    def __init__(self, batch: Batch, path: str, number: int, watcher: Watcher) -> None:
        self._batch = batch
        self._path = path
        self._number = number
        self._then, self._died = watcher

    def __call__(self, gradients: Tuple[Optional[Tensor], ...]) -> None:
        """Pass the gradient on; nothing is returned, so that autograd goes on with its own."""
        gradient = gradients[self._number]
        if gradient is not None:
            self._then(self._batch, self._path, gradient)

    def __del__(self) -> None:
        self._batch.alive -= 1
        if self._batch.alive == 0:
            self._died(self._batch)


# What to do with the gradient that arrives at a path, and with a batch whose graph is gone.
Watcher = Tuple[Callable[[Batch, str, Tensor], None], Callable[[Batch], None]]


def watch(batch: Batch, result: Any, watcher: Watcher) -> List[Tuple[str, Tensor]]:
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
        node.register_prehook(Arrival(batch, path, tensor.output_nr, watcher))
        found.append((path, tensor))
        if len(found) >= _MOST_OUTPUTS:
            break
    batch.watched = tuple([path for path, _ in found])
    return found
