"""The tangent kernel along a run, from the newest saved result of the metric `kernel`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from tscope_format.errors import clean

from tscope_tui.data.events import Event
from tscope_tui.data.quick_events import jump
from tscope_tui.plot import compact

if TYPE_CHECKING:
    from tscope_format import Result, RootReader

    Floats = NDArray[np.float64]

METRIC = "kernel"

# Entries of matrices that are kept in memory: 128 MB. Of more, evenly spaced ones are kept.
_ENTRIES = 1 << 25
Order = Literal["label", "number", "likeness"]
ORDERS: tuple[Order, ...] = get_args(Order)
# What the analysis needs of a trace: an array, what it is, and the option that records it.
_NEEDS = (
    ("program/graph", "the model as data", "record a model that torch.export can export"),
    ("examples/input/0", "the training examples", "record --max-examples N"),
)


@dataclass(frozen=True, eq=False)
class Matrices:
    """K at some steps, a number for each pair of points: the mean over its outputs, (1/C) Σ_c K_cc.

    Points are ordered by set (training first), and within one by label, so that classes are blocks.

    Attributes:
        step: The steps (matrix,).
        pairs: K (matrix, point, point).
        train: How many of the points are training examples; they come first.
        numbers: Which example of its set each point is (point,).
        label: The label of each point (point,): a class, or the value of one output; NaN where not known.
        order: How the points of a set are ordered.
    """

    step: NDArray[np.int64]
    pairs: NDArray[np.float32]
    train: int
    numbers: NDArray[np.int64]
    label: Floats
    order: Order = "label"

    def at(self, step: float) -> int:
        """Return the last matrix at or before a step, the first when none is."""
        return max(0, int(self.step.searchsorted(step, side="right")) - 1)

    def name(self, point: int) -> str:
        """Return what a point is, in words."""
        part = "train" if point < self.train else "held-out"
        label = "" if math.isnan(self.label[point]) else f" y {compact(float(self.label[point]))}"
        return f"{part} #{int(self.numbers[point])}{label}"

    def rank(self, matrix: int, row: int, column: int) -> float:
        """Return the share of all pairs whose value is not larger than this one."""
        values = self.pairs[matrix]
        return float(np.count_nonzero(values <= values[row, column]) / values.size)

    def point(self, *, train: bool, number: int) -> int | None:
        """Return the point that an example is, None when it is none of them."""
        found = np.flatnonzero(self.numbers == number)
        found = found[(found < self.train) == train]
        return int(found[0]) if found.size else None

    def nearest(self, matrix: int, point: int) -> tuple[NDArray[np.int64], Floats]:
        """Return the other points, and the cosine of each to this one, the nearest first.

        K(x, x')/√(K(x, x) K(x', x')): the angle between their gradients. A point without a gradient has none.
        """
        values = self.pairs[matrix].astype(np.float64)
        size = np.sqrt(np.clip(np.diagonal(values), 0, None))
        scale = size * size[point]
        cosine = np.divide(values[point], scale, out=np.full(len(size), np.nan), where=scale > 0)
        order = np.argsort(-np.nan_to_num(cosine, nan=-np.inf), kind="stable")
        order = order[(order != point) & np.isfinite(cosine[order])]
        return order, cosine[order]


@dataclass(frozen=True, eq=False)
class Kernel:
    """The series of a result.

    Attributes:
        step: The steps of the rows (step,).
        series: By the array's name, each (step,); only those that the result has.
        eigenvalues: The largest of the training examples (step, eigenvalue).
        matrices: The matrices that were kept; None where none were.
        facts: How it was computed, as label and text; cleaned.
        notes: What a reader has to know; cleaned.
        options: The options of the analysis.
        arrays: The names of the result's arrays.
        probe: The probe set that the held-out examples are of; cleaned, empty without.
        layers: The layers' names, cleaned.
        shares: The layers' shares (step, layer) of a quantity of the training examples, by its name.
        own: The examples that the kernel is of: "train"; "test" where it was estimated from sketches.
    """

    step: Floats
    series: Mapping[str, Floats]
    eigenvalues: Floats
    matrices: Matrices | None
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    arrays: frozenset[str] = frozenset()
    probe: str = ""
    layers: tuple[str, ...] = ()
    shares: Mapping[str, Floats] = field(default_factory=dict)
    own: str = "train"

    @property
    def estimated(self) -> bool:
        """Whether it was estimated from sketches of the probe set."""
        return self.own == "test"

    def row(self, step: float) -> int:
        """Return the last row at or before a step, the first when none is."""
        return max(0, int(self.step.searchsorted(step, side="right")) - 1)

    def value(self, name: str, step: float) -> float:
        """Return a series at a step; NaN where the result does not have it."""
        values = self.series.get(name)
        return math.nan if values is None else float(values[self.row(step)])

    def events(self) -> list[Event]:
        """Return where the alignment with the labels jumps, if it does."""
        values = self.series.get(f"alignment_{self.own}")
        found = None if values is None else jump(values)
        if found is None:
            return []
        row, change = found
        return [Event(int(self.step[row]), "K", f"kernel alignment {change:+.2f}", "quick")]


def from_result(result: Result) -> Kernel:
    """Return what the view shows of a saved result.

    Raises:
        KeyError: It lacks one of the arrays of the metric.
    """

    def floats(name: str) -> Floats:
        return np.asarray(result.arrays[name].data, dtype=np.float64)

    step = floats("step")
    series = {
        name: floats(name)
        for name, array in result.arrays.items()
        if array.dims == ("step",) and name != "step"
    }
    own = "test" if result.scalars.get("form") == "sketch" else "train"
    series[f"distance_{own}"]  # without it this is no result of the metric
    options = result.provenance.get("options")
    return Kernel(
        step,
        series,
        floats(f"eigenvalues_{own}"),
        _matrices(result) if "kernel" in result.arrays else None,
        _facts(result),
        tuple(clean(note) for note in result.notes),
        options if isinstance(options, Mapping) else {},
        frozenset(result.arrays),
        clean(result.scalars.get("probe") or ""),
        *_layers(result),
        own,
    )


def _layers(result: Result) -> tuple[tuple[str, ...], dict[str, Floats]]:
    """Return the layers' names, and their shares of each quantity; the trace first."""
    shares = {
        name.removeprefix("share_").removesuffix("_train"): np.asarray(array.data, dtype=np.float64)
        for name, array in result.arrays.items()
        if name.startswith("share_") and name.endswith("_train") and array.dims == ("step", "layer")
    }
    names = result.provenance.get("layers")
    count = next((values.shape[1] for values in shares.values()), 0)
    if not isinstance(names, list | tuple) or len(names) != count:
        names = [f"layer {index}" for index in range(count)]
    ordered = sorted(shares, key=lambda name: name != "trace")
    return tuple(clean(name) for name in names), {name: shares[name] for name in ordered}


@lru_cache(maxsize=1)
def ordered(matrices: Matrices, order: Order) -> Matrices:
    """Return matrices whose points are in another order within each set.

    By likeness: along the leading eigenvector of each set's block of the last matrix, so that points whose
    gradients agree stand together. The last is kept, since it copies the matrices.
    """
    parts = (np.arange(matrices.train), np.arange(matrices.train, len(matrices.numbers)))
    if order == "label":
        keys = [matrices.label[part] for part in parts]
    elif order == "number":
        keys = [matrices.numbers[part].astype(np.float64) for part in parts]
    else:
        keys = [_leading(np.nan_to_num(matrices.pairs[-1][np.ix_(part, part)])) for part in parts]
    index = np.concatenate(
        [part[np.argsort(key, kind="stable")] for part, key in zip(parts, keys, strict=True)]
    )
    return replace(
        matrices,
        pairs=matrices.pairs[:, index][:, :, index],
        numbers=matrices.numbers[index],
        label=matrices.label[index],
        order=order,
    )


def _leading(block: NDArray[np.float32]) -> Floats:
    """Return the leading eigenvector (point,) of a block, by eight steps of the power method."""
    values = block.astype(np.float64)
    vector = values.sum(1) + np.arange(len(values))
    for _ in range(8):
        length = float(np.linalg.norm(vector))
        if not length > 0:
            break
        vector = values @ (vector / length)
    return np.asarray(vector)


def _matrices(result: Result) -> Matrices:
    data = result.arrays["kernel"].data
    points, outputs = data.shape[1:3]
    stride = max(1, math.ceil(len(data) * points * points / _ENTRIES))
    kept = data[::-1][::stride][::-1]  # the last one always
    pairs = np.einsum("micjc->mij", kept) / outputs
    sets = [name for name in ("train", "test") if name in result.arrays]
    numbers = [np.asarray(result.arrays[name].data) for name in sets]
    labels = [_labels(result, name, len(found)) for name, found in zip(sets, numbers, strict=True)]
    orders = [np.argsort(values, kind="stable") for values in labels]
    train = len(numbers[0]) if sets[0] == "train" else 0
    order = np.concatenate([orders[0], *(one + train for one in orders[1:])])
    step = np.asarray(result.arrays["matrix_step"].data, dtype=np.int64)[::-1][::stride][::-1]
    return Matrices(
        step,
        pairs[:, order][:, :, order].astype(np.float32),
        train,
        np.concatenate(numbers)[order].astype(np.int64),
        np.concatenate(labels)[order],
    )


def _labels(result: Result, name: str, count: int) -> Floats:
    """Return one number an example: its class, or its value where there is one output."""
    if f"label_{name}" not in result.arrays:
        return np.full(count, np.nan)
    values = np.asarray(result.arrays[f"label_{name}"].data, dtype=np.float64)
    return values[:, 0] if values.shape[1] == 1 else values.argmax(1).astype(np.float64)


def _facts(result: Result) -> tuple[tuple[str, str], ...]:
    """Return how a result was computed, in words."""
    scalars, provenance = result.scalars, result.provenance
    if scalars.get("form") == "sketch":
        return _facts_of_sketches(result)
    held = f", {scalars.get('examples_test')} held out" if scalars.get("examples_test") else ""
    probe = f" ({scalars.get('probe')})" if held and scalars.get("probe") else ""
    what = "with the optimizer's preconditioner" if scalars.get("preconditioned") else "plain"
    lines = [
        ("kernel", f"exact, {what}"),
        ("examples", f"{scalars.get('examples_train')} trained{held}{probe}"),
        ("outputs", str(scalars.get("outputs") or "")),
        ("precision", str(provenance.get("dtype") or "")),
        ("layers", _shares(result)),
    ]
    return tuple((clean(label), clean(text)) for label, text in lines if text)


def _facts_of_sketches(result: Result) -> tuple[tuple[str, str], ...]:
    """Return how a kernel was estimated, and how far off it is."""
    scalars = result.scalars
    measured, estimated = scalars.get("error_exact_test"), scalars.get("error_test")
    off = [f"{measured:.1%} of ‖K‖ at most, against exact blocks"] if isinstance(measured, float) else []
    off += [f"{estimated:.1%} at the end, from halves"] if isinstance(estimated, float) else []
    lines = [
        ("kernel", f"ESTIMATED from sketches of {scalars.get('columns')} columns"),
        ("error", "; ".join(off)),
        ("examples", f"{scalars.get('examples_test')} of the probe set {scalars.get('probe')}"),
        ("outputs", str(scalars.get("outputs") or "")),
    ]
    return tuple((clean(label), clean(text)) for label, text in lines if text)


def _shares(result: Result) -> str:
    """Return the layers' shares of the trace at the last row, the largest first."""
    names: Any = result.provenance.get("layers")
    if "share_trace_train" not in result.arrays or not isinstance(names, list):
        return ""
    shares = np.nan_to_num(np.asarray(result.arrays["share_trace_train"].data, dtype=np.float64)[-1])
    order = np.argsort(-shares, kind="stable")[:4]
    return ", ".join(f"{names[index]} {shares[index]:.0%}" for index in order if index < len(names))


def lacks_of(root: RootReader) -> tuple[str, ...]:
    """Return what a root lacks for the analysis, each with what would record it."""
    if root.attributes.get("kind") == "trees":
        return ()  # of their leaves it can always be told
    if any(f"probe/{probe}/sketch" in root.arrays() for probe in root.probes):
        return ()
    return lacks_of_exact(root, ", or with --sketch K")


def lacks_of_exact(root: RootReader, instead: str = "") -> tuple[str, ...]:
    """Return what a root lacks for exact kernels, and for what is computed as they are.

    Args:
        root: The root.
        instead: What could be recorded instead of the parameters at every row, as the end of a sentence.
    """
    arrays = root.arrays()
    lacks = [f"it lacks {what}: {remedy}" for name, what, remedy in _NEEDS if name not in arrays]
    if root.attributes.get("updates") == "none":
        lacks.append(f"it lacks the parameters at every row: record without --updates none{instead}")
    return tuple(lacks)
