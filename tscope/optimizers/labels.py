"""Labels of the training examples from a file, found by the examples' inputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tscope_format.errors import MissingDataError, UsageError, clean

from tscope.probes import read_probe_file
from tscope.record.examples import row_hashes

if TYPE_CHECKING:
    from tscope.trace import Trace


def read_labels(trace: Trace, path: str | Path) -> Tensor:
    """Return the labels of a trace's training examples (example, …), in the order of `examples/`.

    Args:
        trace: The run.
        path: An `.npz` with the inputs as the model got them (`x`, or `x0`, `x1`, …), in any order, and `y`.

    Raises:
        UsageError: The file cannot be read, has no `y`, lacks a training example, or has two labels for one.
        MissingDataError: The trace has no training examples.
    """
    if "examples/hash" not in trace.reader.arrays():
        raise MissingDataError(
            f"{clean(trace.path)}: no training example was identified, so none has a label"
        )
    found = read_probe_file(path, trace.input_specs)
    if found.target is None:
        raise UsageError(f"{clean(path)} holds no labels; add them as an array y with a row for each of x")
    target = np.ascontiguousarray(found.target)
    places: dict[bytes, int] = {}
    for place, digest in enumerate(row_hashes(found.inputs)):
        known = places.setdefault(digest, place)
        if not np.array_equal(target[known], target[place]):
            raise UsageError(
                f"{clean(path)}: the rows {known} and {place} have the same inputs and different labels; an "
                "example is known by its inputs, and can have one label only"
            )
    wanted = [bytes(row) for row in trace.reader.read("examples/hash")]
    missing = [number for number, digest in enumerate(wanted) if digest not in places]
    if missing:
        raise UsageError(
            f"{clean(path)} lacks {len(missing)} of {len(wanted)} training examples, the first being example "
            f"{missing[0]}; its x must hold the inputs bit for bit as the model got them"
        )
    return torch.from_numpy(target[[places[digest] for digest in wanted]])
