"""What became of each example of a probe set along a run: its outputs, its loss, how often it was forgotten.

Read from the recorded outputs in blocks of rows, so that a growing trace costs only its new rows. Outputs are
kept at evenly spaced rows, of which every second is given up when memory is full; forgetting is counted over
all rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tscope_format.errors import clean

from tscope_tui.data.classes import Classes, classes_of
from tscope_tui.data.telescoping import functional_of

if TYPE_CHECKING:
    from tscope_format import RootReader

    Floats = NDArray[np.float64]

T = TypeVar("T")

_BLOCK_BYTES = 32 << 20
# Outputs that are kept in memory (32 MB), and the rows that are kept in any case.
_ENTRIES = 1 << 23
_FEWEST = 16
# Things that are remembered of the examples at a time, none larger than a number for each or each row.
_REMEMBERED = 256
# Bytes of inputs among which the rows of an in-sample set are looked for.
_INPUTS = 128 << 20
CROSS_ENTROPY, SQUARED, LOG, OWN = "cross-entropy", "squared error", "−log p", "loss"


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples of a probe set over the kept rows.

    Attributes:
        probe: The probe set; cleaned.
        step: The steps of the kept rows (row,), the last recorded one among them.
        outputs: f (row, example, output).
        measure: What `loss` is; empty where labels are not known.
        classes: How outputs become classes, and the true ones; None without classes.
        target: What outputs are compared with: class numbers (example,), else values (example, output).
        forgotten: How often each example was told right and then wrong (example,); None without classes.
        numbers: Which training example each one is (example,), −1 where it is none; None where not known.
        in_sample: Whether the set is of examples that were trained on.
        known: What was made of it before; it lives no longer than this.
    """

    probe: str
    step: Floats
    outputs: NDArray[np.float32]
    measure: str = ""
    classes: Classes | None = None
    target: Floats | None = None
    forgotten: NDArray[np.int64] | None = None
    numbers: NDArray[np.int64] | None = None
    in_sample: bool = False
    known: dict[object, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many examples there are."""
        return int(self.outputs.shape[1])

    @property
    def width(self) -> int:
        """How many outputs each has."""
        return int(self.outputs.shape[2])

    @property
    def label(self) -> Floats | None:
        """The label of each example as one number (example,): its class, or its only value."""
        if self.classes is not None:
            return self.classes.labels.astype(np.float64)
        if self.target is None or self.target.ndim < 2 or self.target.shape[1] != 1:
            return None
        return self.target[:, 0]

    def row(self, step: float) -> int:
        """Return the last kept row at or before a step, the first when none is."""
        return max(0, int(self.step.searchsorted(step, side="right")) - 1)

    def told(self, row: int) -> Floats | None:
        """Return what was predicted (example,): classes, or the only output; None of several values."""
        if self.classes is not None:
            return self.classes.told(self.outputs[row]).astype(np.float64)
        return self.outputs[row, :, 0].astype(np.float64) if self.width == 1 else None

    def wrong(self, row: int) -> NDArray[np.bool_] | None:
        """Return which examples were told wrong (example,); None without classes."""
        if self.classes is None:
            return None
        return np.asarray(self.classes.told(self.outputs[row]) != self.classes.labels)

    def loss(self, row: int) -> Floats | None:
        """Return the loss of each example (example,); None where labels are not known."""
        return losses(self.outputs[row].astype(np.float64), self.target, self.measure)

    def course(self, example: int) -> Floats | None:
        """Return the loss of an example at the kept rows (row,); remembered, since no cursor moves it."""

        def made() -> Floats | None:
            target = None if self.target is None else self.target[example]
            return losses(self.outputs[:, example].astype(np.float64), target, self.measure)

        return self.once(("course", example), made)

    def once(self, key: object, made: Callable[[], T]) -> T:
        """Return what is made of these examples under a key, now or before.

        A cache of functions would keep old examples, of 32 MB each, as long as a run is followed.
        """
        if key not in self.known:
            if len(self.known) >= _REMEMBERED:
                self.known.clear()
            self.known[key] = made()
        found: T = self.known[key]
        return found


def losses(outputs: Floats, target: Floats | None, measure: str) -> Floats | None:
    """Return the loss (…,) of outputs (…, output); NaN where it is not finite, None without a measure.

    Args:
        outputs: f.
        target: Class numbers (…,) or values (…, output), of a shape that broadcasts.
        measure: Cross-entropy, squared error (the mean over outputs), or how outputs are losses themselves.
    """
    if not measure:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        if measure in (OWN, LOG):
            found = outputs.mean(-1) * (1.0 if measure == OWN else -1.0)
        elif target is None:
            return None
        elif measure == CROSS_ENTROPY:
            highest = outputs.max(-1, keepdims=True)
            total = np.log(np.exp(outputs - highest).sum(-1)) + highest[..., 0]
            at = np.broadcast_to(np.asarray(target, dtype=np.int64), outputs.shape[:-1])[..., None]
            found = total - np.take_along_axis(outputs, at, -1)[..., 0]
        else:
            found = np.square(outputs - target).mean(-1)
    return np.asarray(np.where(np.isfinite(found), found, np.nan))


class Followed:
    """The examples of one probe set of a root; `advance` reads what is new."""

    def __init__(self, root: RootReader, probe: str, shape: tuple[int, int] | None = None) -> None:
        """Prepare for a probe set.

        Args:
            root: The root; of a set that it does not hold only the outputs are known.
            probe: The name of the set.
            shape: Examples and outputs; None takes those of the recorded outputs.
        """
        arrays = root.arrays()
        self.probe = probe
        self._folder = f"probe/{probe}"
        self._count, outputs = shape or arrays[f"{self._folder}/output"].shape[1:]
        kind, attributes = functional_of(root, probe)
        self._in_sample = bool(attributes.get("in_sample"))
        target = None
        if f"{self._folder}/target" in arrays:
            target = np.asarray(root.read(f"{self._folder}/target"))
            target = target if len(target) == self._count else None
        self._classes = classes_of(target, outputs, kind)
        self._target, self._measure = _target(target, outputs, kind, self._classes)
        self._numbers = _numbers(root, probe) if self._in_sample else None
        self._entries = max(1, self._count * outputs)
        self._most = max(_FEWEST, _ENTRIES // self._entries)
        self._rows, self._stride = 0, 1
        # The number, the step and the outputs of each kept row.
        self._kept: list[tuple[int, float, NDArray[np.float32]]] = []
        self._newest: tuple[int, float, NDArray[np.float32]] | None = None
        self._right: NDArray[np.bool_] | None = None
        self._forgotten = np.zeros(self._count, np.int64)
        self._result: Examples | None = None

    @staticmethod
    def available(root: RootReader, probe: str) -> bool:
        """Return whether outputs of a probe set were recorded."""
        arrays = root.arrays()
        names = (f"probe/{probe}/{name}" for name in ("probe_step", "output"))
        return all(name in arrays and arrays[name].shape[0] > 0 for name in names)

    def advance(self, root: RootReader) -> None:
        """Read the rows that were committed since.

        Raises:
            TraceError: They cannot be read.
        """
        arrays = root.arrays()
        rows = min(arrays[f"{self._folder}/{name}"].shape[0] for name in ("probe_step", "output"))
        block = max(1, _BLOCK_BYTES // (8 * self._entries))
        while self._rows < rows:
            stop = min(rows, self._rows + block)
            step = np.asarray(root.read(f"{self._folder}/probe_step", self._rows, stop), dtype=np.float64)
            self.take(step, np.asarray(root.read(f"{self._folder}/output", self._rows, stop)))

    def take(self, step: Floats, output: NDArray[Any]) -> None:
        """Take in rows: their steps (row,) and outputs (row, example, output)."""
        self._count_forgotten(output)
        for number, (at, values) in enumerate(zip(step.tolist(), output, strict=True), self._rows):
            self._keep(number, at, values)
        self._rows += len(step)
        self._result = None

    def _count_forgotten(self, output: NDArray[Any]) -> None:
        if self._classes is None:
            return
        right = self._classes.told(output) == self._classes.labels
        before = right[:1] if self._right is None else self._right[None]
        along = np.concatenate([before, right])
        self._forgotten += (along[:-1] & ~along[1:]).sum(0)
        self._right = along[-1]

    def _keep(self, number: int, step: float, values: NDArray[Any]) -> None:
        self._newest = number, step, values.astype(np.float32)
        if number % self._stride == 0:
            self._kept.append(self._newest)
            if len(self._kept) > self._most:
                self._stride *= 2
                self._kept = [row for row in self._kept if row[0] % self._stride == 0]

    def result(self) -> Examples | None:
        """Return what the rows read so far give; None before the first."""
        if self._newest is None or self._result is not None:
            return self._result
        rows = self._kept if self._kept[-1][0] == self._newest[0] else [*self._kept, self._newest]
        self._result = Examples(
            clean(self.probe),
            np.array([step for _, step, _ in rows]),
            np.stack([values for _, _, values in rows]),
            self._measure,
            self._classes,
            self._target,
            self._forgotten.copy() if self._classes is not None else None,
            self._numbers,
            self._in_sample,
        )
        return self._result


def _target(
    target: NDArray[Any] | None, outputs: int, kind: str, classes: Classes | None
) -> tuple[Floats | None, str]:
    """Return what outputs are compared with, and the measure.

    Class numbers are compared by cross-entropy; labels of the outputs' own shape as values.
    """
    if kind in ("loss", "logprob"):
        return None, OWN if kind == "loss" else LOG
    if target is None or kind != "full" or not target.size:
        return None, ""
    flat = target.reshape(len(target), -1).astype(np.float64)
    if flat.shape[1] == outputs:
        return flat, SQUARED
    return (flat[:, 0], CROSS_ENTROPY) if classes is not None else (None, "")


def _numbers(root: RootReader, probe: str) -> NDArray[np.int64] | None:
    """Return which training example each one of an in-sample set is, by its first input's bytes."""
    names = f"probe/{probe}/input/0", "examples/input/0"
    arrays = root.arrays()
    if any(name not in arrays for name in names):
        return None
    shapes = [arrays[name].shape for name in names]
    size = sum(int(np.prod(shape)) for shape in shapes) * 8
    if shapes[0][1:] != shapes[1][1:] or size > _INPUTS:
        return None
    mine, trained = (np.asarray(root.read(name)) for name in names)
    known = {row.tobytes(): number for number, row in enumerate(trained)}
    return np.array([known.get(row.tobytes(), -1) for row in mine], dtype=np.int64)
