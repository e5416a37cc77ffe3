"""What the recorded identities of training examples may hide: an example is known by its input alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tscope.trace import Trace

# Rows of `batch/example` that are read at a time.
_ROWS = 4096
# The last examples of an epoch may be left out, and come later: fewer than a batch.
_SHARE = 0.1
_AUGMENTED = (
    "if inputs are augmented, each variant counts as an example with a label of its own, and p is not that "
    "of the data set"
)


def identity(trace: Trace) -> list[str]:
    """Return notes on training inputs that may be variants, or copies, of fewer or more examples."""
    stored = trace.reader.arrays()["batch/example"]
    rows, examples = stored.shape[0], len(trace["examples/first_step"])
    visits = np.zeros(examples, dtype=np.int64)
    again = twice = False
    late = largest = 0
    for start in range(1, rows, _ROWS):
        for batch in trace.reader.read("batch/example", start, min(start + _ROWS, rows)):
            numbers, times = np.unique(batch[batch >= 0], return_counts=True)
            new = int((visits[numbers] == 0).sum())
            late += new if again else 0
            again = again or new < len(numbers)
            twice = twice or bool((times > 1).any())
            largest = max(largest, len(numbers))
            visits[numbers] += times
    used = int((visits > 0).sum())
    found = []
    if used and visits.max() == 1 and rows > 2:
        found.append(f"each of the {used} training inputs was used once: {_AUGMENTED}")
    elif late > max(largest, _SHARE * used):
        found.append(
            f"{late} of the {used} training inputs were first used after others had come again, as where "
            f"batches are drawn at random: {_AUGMENTED}"
        )
    if twice:
        found.append(
            f"a batch holds an input more than once: equal inputs count as one of the {used} examples, with "
            "one label"
        )
    return found
