"""The training examples in batches as the run took them, for what is a mean over batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from tscope.program import Program
    from tscope.trace import Trace


def batch_size(trace: Trace, program: Program) -> int:
    """Return the size of the run's batches: of its largest, or what the program was fixed to."""
    if not program.batch and program.rows:
        return program.rows
    present = trace.reader.arrays()
    sizes = trace.reader.read("batch/size") if "batch/size" in present else np.zeros(0)
    largest = int(sizes.max()) if sizes.size else 0
    return max(2, min(largest or 128, program.graph.most_rows or largest or 128))


def in_batches(program: Program, inputs: Sequence[Tensor], size: int) -> Iterator[tuple[Tensor, ...]]:
    """Yield the inputs of examples, each (example, …), in their order and in batches of a size.

    A last batch of one example joins the one before; a program of a fixed number of rows leaves out examples
    that do not fill a batch.
    """
    count = len(inputs[0])
    starts = list(range(0, count, size))
    if not program.batch:
        starts = [start for start in starts if start + size <= count]
    elif len(starts) > 1 and count - starts[-1] == 1:
        del starts[-1]
    for place, start in enumerate(starts):
        last = place == len(starts) - 1 and program.batch
        yield tuple(value[start : count if last else start + size] for value in inputs)
