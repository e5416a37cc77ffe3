"""Where runs part: the last step at which their parameters are the same, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import torch

from tscope.replay import Replay

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from tscope.replay.flat import Tensors
    from tscope.trace import Trace


def last_common_step(traces: Sequence[Trace], until: int) -> int | None:
    """Return the last step before which, and at which, all runs have the same parameters; None without one.

    Runs are walked side by side from their first row up to the first difference, at steps at which all of
    them have their parameters.

    Args:
        traces: The runs, of the same parameters.
        until: Look no further than this step.
    """
    shared = reduce(np.intersect1d, [_known(trace) for trace in traces])
    shared = shared[shared <= until]
    common = None
    walks = [_thetas(trace, [trace.row(int(step)) for step in shared]) for trace in traces]
    for step, thetas in zip(shared, zip(*walks, strict=True), strict=True):
        if not all(_same(thetas[0], theta) for theta in thetas[1:]):
            break
        common = int(step)
    return common


def _known(trace: Trace) -> NDArray[np.int64]:
    """Return the steps at which a run's parameters are known; a trace without updates has a few."""
    rows = trace.reader.theta_rows
    return trace.steps if rows is None else trace.steps[list(rows)]


def _thetas(trace: Trace, rows: list[int]) -> Iterator[Tensors]:
    for _, theta, _ in Replay(trace).at(rows):
        yield theta


def _same(a: Tensors, b: Tensors) -> bool:
    return all(torch.equal(_bits(value), _bits(b[name])) for name, value in a.items())


def _bits(value: Tensor) -> Tensor:
    """Return the bytes of a tensor: NaN equals itself, and 0 is not −0."""
    return value.contiguous().reshape(-1).view(torch.uint8)
