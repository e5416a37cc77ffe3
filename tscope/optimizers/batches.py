"""The batches of a run: which examples each step saw, their inputs, outputs and output gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tscope_format.errors import AnalysisError, MissingDataError, clean

from tscope.replay.flat import tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.trace import Trace

_BYTES = 64 << 20  # of outputs and gradients that are read at once
_UNKNOWN = -1
# Values whose squares overflow are beyond what a fit can use, and soon not finite.
_OVERFLOWING = 1e100


@dataclass(frozen=True, eq=False)
class Batch:
    """What one row's step was trained on; the attributes are those of `TrainingStep`.

    `output` and `output_grad` are as recorded: the gradient is that of the scaled loss divided by its scale.
    """

    row: int
    examples: Tensor
    output: Tensor
    output_grad: Tensor
    sizes: tuple[int, ...]
    scales: tuple[float, ...]

    @property
    def finite(self) -> bool:
        """Whether all outputs and gradients are numbers."""
        return bool(torch.isfinite(self.output).all()) and bool(torch.isfinite(self.output_grad).all())


class Batches:
    """Reads the batches of a root.

    Args:
        trace: The run.
        dtype: In which outputs and gradients are given; None: as they were recorded.

    Raises:
        MissingDataError: The trace holds no identities or no output gradients.
    """

    def __init__(self, trace: Trace, dtype: torch.dtype | None = None) -> None:
        present = trace.reader.arrays()
        self._trace = trace
        self._dtype = dtype
        if "batch/size" not in present:
            raise MissingDataError(
                f"{clean(trace.path)}: no batch was recorded; the gradients must come from calls of the "
                "model, with its output in the loss"
            )
        if "batch/output_grad" not in present or "batch/output" not in present:
            raise MissingDataError(
                f"{clean(trace.path)}: the gradients at the model's output were not recorded; record again "
                "with `tscope record --outputs all`"
            )
        if "examples/input/0" not in present:
            raise MissingDataError(
                f"{clean(trace.path)}: no training example was identified: the model's first input must have "
                "a row for each, as many as its output, and `--max-examples` of `tscope record` not be 0"
            )
        self._losses = trace.reader.read("loss")
        self._has_losses = bool(np.isfinite(self._losses).any())
        self.outputs = present["batch/output"].shape[2]
        self.gradient_dtype = present["batch/output_grad"].dtype
        self.examples = present["examples/hash"].shape[0]

    def rows(self, start: int, stop: int, *, known: bool = False) -> Iterator[Batch]:
        """Yield the batches of the rows start … stop − 1.

        Args:
            start: The first row.
            stop: The row after the last.
            known: Pass over rows without a batch. The last row of a run recorded with `--every` has none.

        Raises:
            MissingDataError: A row has none, or its examples or gradients were not recorded.
        """
        reader = self._trace.reader
        slots = reader.arrays()["batch/output"].shape[1]
        block = max(1, _BYTES // max(1, 8 * slots * self.outputs))
        for first in range(start, stop, block):
            last = min(first + block, stop)
            arrays = {
                name: reader.read(f"batch/{name}", first, last)
                for name in ("size", "scale", "example", "output", "output_grad")
            }
            for row in range(first, last):
                if known and not arrays["size"][row - first].any():
                    continue
                yield self._batch(row, {name: values[row - first] for name, values in arrays.items()})

    def _batch(self, row: int, arrays: dict[str, NDArray[Any]]) -> Batch:
        step = int(self._trace.steps[row])
        sizes = [int(size) for size in arrays["size"] if size > 0]
        if not sizes:
            raise MissingDataError(
                f"step {step}: no batch was recorded, so its gradient is not known; it must come from a call "
                "of the model, with its output in the loss"
            )
        count = sum(sizes)
        examples = arrays["example"][:count]
        if (examples == _UNKNOWN).any():
            raise MissingDataError(
                f"step {step}: not all examples of the batch were identified: more than `tscope record "
                "--max-examples` were seen (data augmented anew at every step are new examples each time), "
                "or the inputs changed their type"
            )
        scales = [float(scale) for scale in arrays["scale"][: len(sizes)]]
        output, gradient = arrays["output"][:count], arrays["output_grad"][:count]
        for name, values in (("output", output), ("gradient at the output", gradient)):
            missing = np.isnan(values).all(axis=1)
            # Where the run diverged, the loss is NaN too, and the outputs are NaN with reason.
            diverged = self._has_losses and not np.isfinite(self._losses[row])
            if len(values) < count or (missing.any() and not diverged):
                raise MissingDataError(
                    f"step {step}: the {name} was not recorded for {int(missing.sum()) or count} of {count} "
                    "examples; record again with `tscope record --outputs all`"
                )
        factor = torch.repeat_interleave(torch.tensor(scales, dtype=torch.float64), torch.tensor(sizes))
        unscaled = self._tensor(gradient)
        if set(scales) != {1.0}:
            unscaled = unscaled / factor[:, None].to(unscaled.dtype)
        return Batch(
            row,
            torch.from_numpy(np.array(examples, dtype=np.int64)),
            self._tensor(output),
            unscaled,
            tuple(sizes),
            tuple(scales),
        )

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        found = torch.from_numpy(np.array(values, order="C"))
        return found if self._dtype is None else found.to(self._dtype)


def counted(trace: Trace, batches: Batches) -> Iterator[Batch]:
    """Yield the batches of the steps that counted, up to where the run diverged."""
    skipped = trace.reader.read("skipped")
    known = bool(trace.reader.read("batch/size")[1:].any())
    for batch in batches.rows(1, trace.rows, known=known):
        if skipped[batch.row]:
            continue
        if not batch.finite or float(batch.output.abs().max()) > _OVERFLOWING:
            return
        yield batch


class ExampleInputs:
    """The inputs of the training examples, by their number.

    Args:
        trace: The run.

    All of them are read at once: every step needs some.
    """

    def __init__(self, trace: Trace) -> None:
        present = trace.reader.arrays()
        self._inputs: list[Tensor] = []
        self._shapes: list[NDArray[Any]] = []
        while (array := f"examples/input/{len(self._inputs)}") in present:
            self._inputs.append(tensor(trace.reader.read(array), present[array].dtype))
            self._shapes.append(trace.reader.read(f"examples/shape/{len(self._shapes)}"))

    @property
    def count(self) -> int:
        """The number of examples."""
        return len(self._inputs[0])

    def take(self, examples: Tensor) -> tuple[Tensor, ...]:
        """Return each of the inputs (slot, …) of the examples (slot,), without padding.

        Raises:
            AnalysisError: They are not of one shape, so that they cannot have been one batch.
        """
        taken = []
        for values, shapes in zip(self._inputs, self._shapes, strict=True):
            mine = shapes[examples.numpy()]
            if len(mine) and (mine != mine[0]).any():
                found = sorted({tuple(map(int, shape)) for shape in mine})[:3]
                raise AnalysisError(
                    f"examples of the shapes {found} were trained on in one step; micro-batches of "
                    "different lengths cannot be replayed together"
                )
            part = values[examples]
            for axis, length in enumerate(mine[0] if len(mine) else (), start=1):
                part = part.narrow(axis, 0, int(length))
            taken.append(part)
        return tuple(taken)
