"""Averages between models and along a run, from the saved results of the metric `weight-averaging`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from tscope_format.errors import clean

from tscope_tui.data.saved import floats, names_of

if TYPE_CHECKING:
    from tscope_format import Result, ResultInfo, RootReader

    Floats = NDArray[np.float64]

METRIC = "weight-averaging"
Set = Literal["test", "train"]
SETS: dict[Set, str] = {"test": "held out", "train": "training"}
FAMILIES = {"run": "run", "tail": "tail", "swa": "SWA", "ema": "EMA", "lawa": "LAWA"}
# What averages need of a trace: an array, what it is, and the option that records it.
_NEEDS = (
    ("program/graph", "the model as data", "record a model that torch.export can export"),
    ("examples/input/0", "the training examples", "record --max-examples N, as many as the run has"),
)


@dataclass(frozen=True, eq=False)
class Average:
    """Averages between models: along α of two, or of the first 1, 2, … of several.

    Attributes:
        id: The result's.
        path: The trace that it is saved in.
        members: The models, each as `run @step`; cleaned.
        traces: The fingerprints of their traces.
        x: α, the first model's weight, or how many models are averaged (point,).
        over: What x is: alpha or models.
        series: By the array's name, each (point,).
        scalars: The numbers of the result, NaN where one is undefined.
        layers: Names of the layers; cleaned.
        barriers: `layer_barrier_…` and `layer_rise_…`, each (base, layer).
        fork: The last step that the models have in common; None where there is none.
        facts: How it was computed, as label and text; cleaned.
        notes: What a reader has to know; cleaned.
        options: The options of the analysis.
    """

    id: str
    path: Path
    members: tuple[str, ...]
    traces: tuple[str, ...]
    x: Floats
    over: str
    series: Mapping[str, Floats]
    scalars: Mapping[str, float]
    layers: tuple[str, ...] = ()
    barriers: Mapping[str, Floats] = field(default_factory=dict)
    fork: int | None = None
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def sets(self) -> tuple[Set, ...]:
        """The examples that it has a loss on."""
        return tuple(name for name in SETS if f"loss_average_{name}" in self.series)

    @property
    def known(self) -> tuple[Set, ...]:
        """The examples that it has outputs of."""
        return tuple(name for name in SETS if f"difference_{name}" in self.series)

    def scalar(self, name: str) -> float:
        """Return a number of the result, NaN where there is none."""
        return self.scalars.get(name, math.nan)

    @property
    def home(self) -> int:
        """The point that is looked at first: the highest barrier of the held-out loss, else the middle."""
        for name in self.sets:
            excess = self.series.get(f"loss_excess_{name}")
            if excess is not None and np.isfinite(excess).any() and np.nanmax(excess) > 0:
                return int(np.nanargmax(excess))
        if self.over == "models":
            return self.x.size - 1
        return int(np.abs(self.x - 0.5).argmin())


@dataclass(frozen=True)
class Candidate:
    """One average along a run, or the run itself.

    Attributes:
        name: What it is, in words; cleaned.
        family: run, tail, swa, ema or lawa.
        loss: By the part of the examples: train, select or test.
        accuracy: Likewise.
        found: The search chose it, of its family.
    """

    name: str
    family: str
    loss: Mapping[str, float]
    accuracy: Mapping[str, float]
    found: bool


@dataclass(frozen=True, eq=False)
class Along:
    """Averages along a run.

    Attributes:
        id: The result's.
        path: The trace that it is saved in.
        step: The steps of the series (step,).
        series: `loss_run_test`, `accuracy_ema_train`, …, each (step,); NaN before an average begins.
        candidates: The run itself, and every average that was tried.
        best: The best of all, in words; cleaned.
        facts: How it was computed, as label and text; cleaned.
        notes: What a reader has to know; cleaned.
        options: The options of the analysis.
    """

    id: str
    path: Path
    step: Floats
    series: Mapping[str, Floats]
    candidates: tuple[Candidate, ...]
    best: str
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def sets(self) -> tuple[Set, ...]:
        """The examples that it has a loss on."""
        return tuple(name for name in SETS if f"loss_run_{name}" in self.series)


def from_result(path: Path, info: ResultInfo, result: Result) -> Average | Along:
    """Return what the view shows of a saved result.

    Raises:
        KeyError: It lacks one of the arrays of the metric.
    """
    options = result.provenance.get("options")
    notes = tuple(clean(note) for note in result.notes)
    known = options if isinstance(options, Mapping) else {}
    if result.scalars.get("form") == "along a run":
        return Along(
            info.id,
            path,
            floats(result, "step"),
            _series(result, "step"),
            _candidates(result),
            clean(result.scalars.get("best") or ""),
            _facts(result),
            notes,
            known,
        )
    over = "alpha" if "alpha" in result.arrays else "models"
    barriers = {
        name: floats(result, name) for name, array in result.arrays.items() if array.dims == ("base", "layer")
    }
    count = next((values.shape[1] for values in barriers.values()), 0)
    fork = result.scalars.get("fork_step")
    members = result.provenance.get("members") or ()
    return Average(
        info.id,
        path,
        tuple(_member(one) for one in members),
        tuple(str(one["trace"]) for one in members),
        floats(result, over),
        over,
        _series(result, over),
        {name: number(value) for name, value in result.scalars.items()},
        names_of(result, "layers", count),
        barriers,
        int(fork) if isinstance(fork, int | float) else None,
        _facts(result),
        notes,
        known,
    )


def lacks_of(root: RootReader) -> tuple[str, ...]:
    """Return what a root lacks for the analysis, each with what would record it."""
    if root.attributes.get("kind") == "trees":
        return ("it holds an ensemble of trees, which has no weights to average",)
    arrays = root.arrays()
    return tuple(f"it lacks {what}: {remedy}" for name, what, remedy in _NEEDS if name not in arrays)


def _member(one: Mapping[str, Any]) -> str:
    """Return a model as it is called: its run, and its step."""
    return f"{clean(one['path']).removesuffix('.zarr')} @{int(one['step']):,}"


def _series(result: Result, over: str) -> dict[str, Floats]:
    """Return the arrays along one dimension, all of its length."""
    return {name: floats(result, name) for name, array in result.arrays.items() if array.dims == (over,)}


def _candidates(result: Result) -> tuple[Candidate, ...]:
    """Return the run itself, and every average that was tried, in the order of the search."""
    parts = [part for part in ("train", "select", "test") if f"loss_run_{part}" in result.scalars]
    names = [clean(name) for name in result.provenance.get("candidates") or ()]
    values = {
        (what, part): floats(result, f"candidate_{what}_{part}")
        for what in ("loss", "accuracy")
        for part in parts
        if f"candidate_{what}_{part}" in result.arrays
    }
    found = [
        Candidate(
            "the run itself",
            "run",
            {part: number(result.scalars.get(f"loss_run_{part}")) for part in parts},
            {
                part: number(result.scalars[f"accuracy_run_{part}"])
                for part in parts
                if f"accuracy_run_{part}" in result.scalars
            },
            False,
        )
    ]
    waiting = set(FAMILIES) - {"run"}
    for place, name in enumerate(names):
        own = {key: float(array[place]) for key, array in values.items()}
        loss = {part: value for (what, part), value in own.items() if what == "loss"}
        accuracy = {part: value for (what, part), value in own.items() if what == "accuracy"}
        family = name.split(" ", 1)[0].lower()
        # The scores of the chosen one of each family are the result's scalars; of equal ones it is the first.
        chosen = family in waiting and all(
            loss[part] == number(result.scalars.get(f"loss_{family}_{part}")) for part in loss
        )
        waiting -= {family} if chosen else set()
        found.append(Candidate(name, family, loss, accuracy, chosen))
    return tuple(found)


def _facts(result: Result) -> tuple[tuple[str, str], ...]:
    """Return how a result was computed, in words."""
    scalars = result.scalars
    held = scalars.get("examples_test") or 0
    probe = f" ({result.provenance.get('probe')})" if held and result.provenance.get("probe") else ""
    lines = [
        ("loss", str(scalars.get("loss") or "?")),
        ("examples", f"{scalars.get('examples_train')} trained, {held} held out{probe}"),
        ("BatchNorm", "statistics computed anew" if scalars.get("recalibrated") else ""),
    ]
    return tuple((clean(label), clean(text)) for label, text in lines if text)


def number(value: object) -> float:
    """Return a scalar of a result as a number, NaN where it is none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
