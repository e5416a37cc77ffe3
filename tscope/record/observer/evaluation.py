"""Evaluation forwards: the recorder looks among them for rows that training never uses.

Only a bounded sample is sent. Which rows are held out only shows later, and a script may evaluate on its
training data first: so after the first rows, further evaluations are sampled ever more thinly, at other
places in each round, and a batch that was sent is not sent again.
"""

from __future__ import annotations

import ctypes
from typing import Any, List, Optional, Set, Tuple

from torch import Tensor

from .batch import Copied, Inputs
from .memory import is_flat

# In all, as multiples of the first rows.
_MOST_ROWS = 16
_MOST_BYTES = 64 << 20
_SIGNATURE = 4096


class Evaluation:
    """A copied evaluation forward: its first rows, and its outputs by path."""

    __slots__ = ("called", "inputs", "mode", "outputs", "rows", "size", "step")

    def __init__(
        self, mode: str, size: int, rows: int, inputs: List[Tuple[int, Copied]], step: int, called: Any
    ) -> None:
        self.called = called
        self.mode = mode
        self.size = size
        self.rows = rows
        self.inputs = inputs
        self.outputs: List[Tuple[str, Copied]] = []
        self.step = step


class Budget:
    """How many rows of the evaluations of one module may still be sent.

    Args:
        rows: Rows that are sent without any thinning.
    """

    def __init__(self, rows: int) -> None:
        self._first = rows
        self._rows = 0
        self._bytes = 0
        self._seen: Set[Tuple[int, int]] = set()
        self._round = 0
        self._position = 0

    def trained(self) -> None:
        """Note a training forward: the next evaluation begins another round."""
        if self._position:
            self._round += 1
            self._position = 0

    def rows(self, inputs: Inputs) -> int:
        """Return how many rows of this forward to send; 0: none of it."""
        if not inputs.size or self._rows >= _MOST_ROWS * self._first or self._bytes >= _MOST_BYTES:
            return 0
        place = self._position + self._round
        self._position += 1
        if self._rows < self._first:
            most = self._first
        elif place & (place - 1) == 0:
            most = max(self._first // 2, 1)
        else:
            return 0
        return min(most, inputs.size, self._affordable(inputs))

    def spend(self, inputs: Inputs, rows: int) -> bool:
        """Count rows that are about to be sent; False if this batch was sent before."""
        signature = _signature(inputs.tensors[0][1])
        if signature is not None and signature in self._seen:
            return False
        if signature is not None:
            self._seen.add(signature)
        self._rows += rows
        self._bytes += rows * _row_bytes(inputs)
        return True

    def late(self, rows: int, inputs: List[Tuple[int, Copied]]) -> bool:
        """Count a forward that was copied before it turned out to be an evaluation; False: not to be sent."""
        if self._rows >= _MOST_ROWS * self._first or self._bytes >= _MOST_BYTES:
            return False
        self._rows += rows
        self._bytes += sum(copied.size for _, copied in inputs)
        return True

    def _affordable(self, inputs: Inputs) -> int:
        return (_MOST_BYTES - self._bytes) // max(_row_bytes(inputs), 1)


def _row_bytes(inputs: Inputs) -> int:
    return sum(t.numel() * t.element_size() // int(t.shape[0]) for _, t in inputs.tensors)


def _signature(tensor: Tensor) -> Optional[Tuple[int, int]]:
    """Return something that tells batches apart: their size and the start of their bytes."""
    if not is_flat(tensor):
        return None
    size = min(tensor.numel() * tensor.element_size(), _SIGNATURE)
    return int(tensor.shape[0]), hash(ctypes.string_at(tensor.data_ptr(), size))
