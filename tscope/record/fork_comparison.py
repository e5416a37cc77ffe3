"""Where two recorded runs part: in their parameters, bit for bit, and in the examples of their batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tscope.averaging import last_common_step

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tscope_format import RootReader

    from tscope.trace import Trace

_ROWS = 4096  # of batches compared at once


@dataclass(frozen=True)
class Parting:
    """Where two runs part.

    Attributes:
        same_until: The last step at which all parameters are the same; None: they differ from the start.
        end: The last step that both runs have.
        batches_from: The first step after the fork whose batch holds other examples, or in another order;
            None where there is none.
        batches: Number of batches after the fork that could be compared.
    """

    same_until: int | None
    end: int
    batches_from: int | None
    batches: int


def parting(base: Trace, fork: Trace, step: int) -> Parting:
    """Compare the run `fork` with the run `base` that it parts from after `step`.

    Both are read once up to where their parameters differ, and their batches up to where they do.
    """
    shared = np.intersect1d(base.steps, fork.steps)
    end = int(shared[-1])
    same = last_common_step([base, fork], end)
    first, compared = _batches(base, fork, shared[shared > step])
    return Parting(same, end, first, compared)


def _batches(base: Trace, fork: Trace, steps: NDArray[np.int64]) -> tuple[int | None, int]:
    """Return the first step with another batch, and how many batches could be compared up to there.

    A run counts its examples in the order in which they come, so that the same number is another example in
    another run: hashes are compared.
    """
    readers = base.reader, fork.reader
    if not all({"batch/example", "examples/hash"} <= reader.arrays().keys() for reader in readers):
        return None, 0
    known = _numbered(*(reader.read("examples/hash") for reader in readers))
    compared = 0
    for start in range(0, len(steps), _ROWS):
        part = steps[start : start + _ROWS]
        ours, theirs = (
            _examples(trace.reader, np.searchsorted(trace.steps, part), numbers)
            for trace, numbers in zip((base, fork), known, strict=True)
        )
        slots = max(1, ours.shape[1], theirs.shape[1])
        ours, theirs = (
            np.pad(rows, ((0, 0), (0, slots - rows.shape[1])), constant_values=-1) for rows in (ours, theirs)
        )
        usable = (ours.max(axis=1) >= 0) & (theirs.max(axis=1) >= 0)
        differ = np.flatnonzero(usable & (ours != theirs).any(axis=1))
        if len(differ):
            return int(part[differ[0]]), compared + int(usable[: differ[0] + 1].sum())
        compared += int(usable.sum())
    return None, compared


def _numbered(*hashes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], ...]:
    """Return numbers (example,) for the hashes (example, 16) of each run: the same for the same example."""
    rows = [np.ascontiguousarray(table).view(f"V{table.shape[1]}").reshape(-1) for table in hashes]
    seen: dict[bytes, int] = {}
    return tuple(
        np.array([seen.setdefault(row.tobytes(), len(seen)) for row in table], np.int64) for table in rows
    )


def _examples(reader: RootReader, rows: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers of the examples in the batches of some rows (row, slot), −1 where there is none."""
    first, last = int(rows[0]), int(rows[-1])
    slots = reader.read("batch/example", first, last + 1)[rows - first].astype(np.int64)
    table = np.append(numbers, -1)  # the last one is that of −1
    found: NDArray[np.int64] = table[slots]
    return found
