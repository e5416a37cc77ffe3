"""Actual, telescoped and lazy predictions of a probe set along a run.

    f̃_T = f_0 + Σ_t J_tΔθ_t,   f_lin,t = f_0 + J_0(θ_t − θ_0)

summed here from the projections in the trace, in blocks of rows, so that memory stays bounded and a growing
trace costs only its new rows; or taken from a saved result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tscope_format.errors import clean

from tscope_tui.data.classes import Classes, classes_of

if TYPE_CHECKING:
    from tscope_format import Result, RootReader

    Floats = NDArray[np.float64]

_BLOCK_BYTES = 32 << 20
PARTS = ("output", "jvp", "lazy")


@dataclass(frozen=True)
class Choice:
    """Which predictions to show: those of one example, of one output, or (None) all of them.

    A single prediction is shown as it is. Of several, whose mean would hide that they move apart, the
    distance from the start is shown: the root of the mean square of f − f_0.
    """

    example: int | None = None
    output: int | None = None

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the chosen part of values (step, example, output), as (step, 1 or more, 1 or more)."""
        if self.example is not None:
            values = values[:, self.example : self.example + 1]
        return values if self.output is None else values[:, :, self.output : self.output + 1]

    def __str__(self) -> str:
        example = "all examples" if self.example is None else f"example {self.example}"
        return example if self.output is None else f"{example}, output {self.output}"


@dataclass(frozen=True, eq=False)
class Telescoping:
    """Predictions and errors of the chosen example and output over steps; every array is (step,).

    Attributes:
        source: "recorded", or the saved result it comes from.
        probe: The probe set; cleaned.
        examples: Examples in the probe set.
        outputs: Outputs of an example.
        choice: What the curves show.
        step: The steps of the rows.
        curves: actual, telescoped, lazy: the prediction, or the distance from the start.
        single: Whether `curves` are one prediction.
        errors: telescoped, lazy: mean |f − f̃| over what was chosen.
        residual: ‖Δf − JΔθ‖ over the whole probe set, of the step that ends at each row.
        moved: ‖Δf‖ likewise.
        accuracy: actual, telescoped, lazy, where labels are known.
        layers: Names of the layers; empty without replay.
        contribution: ‖J^(l)Δθ^(l)‖ (step, layer), with replay.
        contribution_step: Its steps.
        own: The same of the chosen example and output alone (step, layer); None where it was not saved.
        stopped: The step from which on values are not finite.
        options: The options of the analysis that gives these numbers.
        contribution_options: The same for `contribution`.
    """

    source: str
    probe: str
    examples: int
    outputs: int
    choice: Choice
    step: Floats
    curves: dict[str, Floats]
    errors: dict[str, Floats]
    residual: Floats
    moved: Floats
    accuracy: dict[str, Floats] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    contribution: Floats | None = None
    contribution_step: Floats | None = None
    own: Floats | None = None
    stopped: int | None = None
    single: bool = False
    options: Mapping[str, object] = field(default_factory=dict)
    contribution_options: Mapping[str, object] = field(default_factory=dict)

    def worst(self, most: int = 32) -> list[int]:
        """Return the steps with the largest residual ‖Δf − JΔθ‖, the worst first."""
        known = np.where(np.isfinite(self.residual), self.residual, -1.0)
        order = np.argsort(-known, kind="stable")[:most]
        return [int(self.step[index]) for index in order if known[index] > 0]

    @property
    def relative_residual(self) -> float:
        """‖Δf − JΔθ‖/‖Δf‖ over the run."""
        moved = float(np.sqrt(np.nansum(np.square(self.moved))))
        return float(np.sqrt(np.nansum(np.square(self.residual)))) / moved if moved > 0 else 0.0

    def with_layers(self, other: Telescoping | None) -> Telescoping:
        """Return this with the layers' contributions of a saved result on the same probe set."""
        if other is None or other.contribution is None or other.probe != self.probe:
            return self
        return replace(
            self,
            layers=other.layers,
            contribution=other.contribution,
            contribution_step=other.contribution_step,
            own=other.own,
            contribution_options=other.contribution_options,
        )


class Recorded:
    """The running sums over a probe set's recorded projections; `advance` reads what is new."""

    def __init__(self, root: RootReader, probe: str, choice: Choice) -> None:
        arrays = root.arrays()
        self._folder, self.probe, self.choice = f"probe/{probe}", probe, choice
        _, self.examples, self.outputs = arrays[f"{self._folder}/output"].shape
        self._choice = Choice(
            None if choice.example is None else min(choice.example, self.examples - 1),
            None if choice.output is None else min(choice.output, self.outputs - 1),
        )
        self._classes = self._labels(root)
        self._first: Floats | None = None
        # f̃ and f at the last row that was read.
        self._sum = self._previous = np.zeros((self.examples, self.outputs))
        self._rows = 0
        self._parts: list[dict[str, Floats]] = []
        self._stopped: int | None = None

    @staticmethod
    def available(root: RootReader, probe: str) -> bool:
        """Return whether projections of a probe set were recorded."""
        arrays = root.arrays()
        names = [f"probe/{probe}/{name}" for name in ("probe_step", *PARTS)]
        return all(name in arrays and arrays[name].shape[0] > 0 for name in names)

    def _labels(self, root: RootReader) -> Classes | None:
        if f"{self._folder}/target" not in root.arrays():
            return None
        kind, _ = functional_of(root, self.probe)
        return classes_of(np.asarray(root.read(f"{self._folder}/target")), self.outputs, kind)

    def advance(self, root: RootReader) -> bool:
        """Read the rows that were committed since; return whether there were any.

        Raises:
            TraceError: They cannot be read.
        """
        arrays = root.arrays()
        rows = min(arrays[f"{self._folder}/{name}"].shape[0] for name in ("probe_step", *PARTS))
        block = max(1, _BLOCK_BYTES // max(1, 12 * self.examples * self.outputs))
        changed = False
        while self._rows < rows and self._stopped is None:
            stop = min(rows, self._rows + block)
            self._parts.append(self._block(root, self._rows, stop))
            self._rows, changed = stop, True
        return changed

    def _block(self, root: RootReader, start: int, stop: int) -> dict[str, Floats]:
        step = np.asarray(root.read(f"{self._folder}/probe_step", start, stop), dtype=np.float64)
        output, jvp, lazy = (
            np.asarray(root.read(f"{self._folder}/{name}", start, stop), dtype=np.float64) for name in PARTS
        )
        finite = (
            np.isfinite(output).all((1, 2)) & np.isfinite(jvp).all((1, 2)) & np.isfinite(lazy).all((1, 2))
        )
        if not finite.all():
            end = int(finite.argmin())
            self._stopped = int(step[end])
            step, output, jvp, lazy = step[:end], output[:end], jvp[:end], lazy[:end]
        if self._first is None:
            self._first = output[0] if len(output) else self._sum
            self._sum, self._previous = self._first, self._first
        telescoped = self._sum + np.cumsum(jvp, axis=0)
        before = np.concatenate([self._previous[None], output])
        if len(output):
            self._sum, self._previous = telescoped[-1], output[-1]
        change = np.diff(before, axis=0)
        series = {"actual": output, "telescoped": telescoped, "lazy": self._first + lazy}
        return {
            "step": step,
            "residual": _norm(change - jvp),
            "moved": _norm(change),
            **_summaries(series, self._first, self._choice, self._classes),
        }

    def result(self) -> Telescoping | None:
        """Return what the rows read so far give; None before the first."""
        if not self._parts:
            return None
        if len(self._parts) > 1:
            self._parts = [
                {key: np.concatenate([part[key] for part in self._parts]) for key in self._parts[0]}
            ]
        shape = (self.examples, self.outputs)
        found = _assemble("recorded", self.probe, shape, self._choice, self._parts[0], stopped=self._stopped)
        return replace(found, options={"probe": self.probe})


def probe_attributes(root: RootReader, probe: str) -> dict[str, Any]:
    """Return what the recorder noted about a probe set, beside its arrays and in the root's attributes."""
    later = root.attributes.get("probes")
    known = later.get(probe) if isinstance(later, Mapping) else None
    return {**root.group_attributes(f"probe/{probe}"), **(known if isinstance(known, Mapping) else {})}


def functional_of(root: RootReader, probe: str) -> tuple[str, dict[str, Any]]:
    """Return which functional of the outputs a probe set follows, and what the recorder noted about it."""
    attributes = probe_attributes(root, probe)
    found = attributes.get("functional")
    kind = found.get("kind") if isinstance(found, Mapping) else found
    return (kind if isinstance(kind, str) else "full"), attributes


def from_result(result: Result, label: str, choice: Choice) -> Telescoping:
    """Return the curves of a saved telescoping result.

    Raises:
        KeyError: It lacks one of the arrays of the metric.
    """
    arrays = {name: np.asarray(result.arrays[name].data) for name in ("actual", "telescoped", "lazy")}
    _, examples, outputs = arrays["actual"].shape
    choice = Choice(
        None if choice.example is None else min(choice.example, examples - 1),
        None if choice.output is None else min(choice.output, outputs - 1),
    )
    change = np.diff(arrays["actual"], axis=0, prepend=arrays["actual"][:1])
    step = np.asarray(result.arrays["step"].data, dtype=np.float64)
    part = {
        "step": step,
        "residual": np.asarray(result.arrays["residual"].data, dtype=np.float64),
        "moved": _norm(change),
        **_summaries(arrays, arrays["actual"][0], choice, None),
    }
    for name in ("actual", "telescoped", "lazy"):
        if f"accuracy_{name}" in result.arrays:
            part[f"accuracy_{name}"] = np.asarray(result.arrays[f"accuracy_{name}"].data, dtype=np.float64)
    probe = clean(result.scalars.get("probe", ""))
    options = result.provenance.get("options")
    telescoping = replace(
        _assemble(label, probe, (examples, outputs), choice, part),
        options=options if isinstance(options, Mapping) else {},
    )
    if "contribution" not in result.arrays:
        return telescoping
    contribution = np.asarray(result.arrays["contribution"].data, dtype=np.float64)
    names = result.provenance.get("layers") or []
    if not isinstance(names, list | tuple) or len(names) != contribution.shape[1]:
        names = [f"layer {index}" for index in range(contribution.shape[1])]
    return replace(
        telescoping,
        layers=tuple(clean(name) for name in names),
        contribution=contribution,
        contribution_step=step,
        own=_own(result, choice),
        contribution_options=telescoping.options,
    )


def _own(result: Result, choice: Choice) -> Floats | None:
    """Return ‖J^(l)Δθ^(l)‖ of the chosen example and output (step, layer), of a result that kept them all."""
    if choice.example is None or "layer_contribution" not in result.arrays:
        return None
    values = np.asarray(result.arrays["layer_contribution"].data[:, :, choice.example], dtype=np.float64)
    if choice.output is not None:
        values = values[:, :, choice.output : choice.output + 1]
    return np.asarray(np.sqrt(np.square(values).sum(-1)))


def _summaries(
    series: dict[str, NDArray[Any]], first: NDArray[Any], choice: Choice, classes: Classes | None
) -> dict[str, Floats]:
    chosen = {name: choice.of(values) for name, values in series.items()}
    start = choice.of(first[None])
    out: dict[str, Floats] = {}
    for name, values in chosen.items():
        if start.size == 1:
            out[f"curve_{name}"] = values[:, 0, 0].astype(np.float64)
        else:
            out[f"curve_{name}"] = np.sqrt(np.square(values - start, dtype=np.float64).mean((1, 2)))
        if name != "actual":
            out[f"error_{name}"] = np.abs(chosen["actual"] - values).mean((1, 2), dtype=np.float64)
        if classes is not None:
            out[f"accuracy_{name}"] = classes.accuracy(series[name])
    return out


def _assemble(
    source: str,
    probe: str,
    shape: tuple[int, int],
    choice: Choice,
    part: dict[str, Floats],
    *,
    stopped: int | None = None,
) -> Telescoping:
    def group(prefix: str) -> dict[str, Floats]:
        return {key.removeprefix(prefix): value for key, value in part.items() if key.startswith(prefix)}

    return Telescoping(
        source,
        clean(probe),
        *shape,
        choice,
        part["step"],
        group("curve_"),
        group("error_"),
        part["residual"],
        part["moved"],
        group("accuracy_"),
        stopped=stopped,
        single=(choice.example is not None or shape[0] == 1) and (choice.output is not None or shape[1] == 1),
    )


def _norm(values: NDArray[Any]) -> Floats:
    return np.asarray(np.sqrt(np.square(values, dtype=np.float64).sum(axis=tuple(range(1, values.ndim)))))


@dataclass(frozen=True)
class Share:
    """A layer's part of what moved the predictions over a range of steps."""

    name: str
    share: float
    values: Floats


def shares(telescoping: Telescoping, low: float, high: float) -> list[Share]:
    """Return each layer's share of Σ_t ‖J^(l)Δθ^(l)‖ over the steps in (low, high], the largest first.

    The residual Σ_t ‖Δf − JΔθ‖ stands last, as a share of the same total, when its steps are the same.
    """
    if telescoping.contribution is None or telescoping.contribution_step is None:
        return []
    inside = (telescoping.contribution_step > low) & (telescoping.contribution_step <= high)
    values = np.nan_to_num(telescoping.contribution[inside])
    total = float(values.sum())
    if total <= 0:
        return []
    parts = [
        Share(name, float(values[:, index].sum()) / total, values[:, index])
        for index, name in enumerate(telescoping.layers)
    ]
    parts.sort(key=lambda part: -part.share)
    rows = (telescoping.step > low) & (telescoping.step <= high)
    if telescoping.step.size == telescoping.contribution_step.size:
        residual = np.nan_to_num(telescoping.residual[rows])
        parts.append(Share("residual", float(residual.sum()) / total, residual))
    return parts
