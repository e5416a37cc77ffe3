"""Effective parameters along a run, from the newest saved result of the metric `effective-params`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from tscope_format.errors import clean

from tscope_tui.data.events import Event
from tscope_tui.data.quick_events import peak
from tscope_tui.plot import compact

if TYPE_CHECKING:
    from tscope_format import Result, RootReader

    Floats = NDArray[np.float64]

METRIC = "effective-params"
Part = Literal["train", "test"]
PARTS: tuple[Part, ...] = get_args(Part)

# ‖s(x)‖² that are kept in memory: 64 MB. Of more, evenly spaced rows are kept.
_NORMS = 1 << 24
_CHECKS = ("adapter_residual", "kernel_residual", "loss_residual", "label_residual", "determinism_residual")
# What the recursion needs of a trace: an array, what it is, and the option that records it.
_NEEDS = (
    ("program/graph", "the model as data", "record a model that torch.export can export"),
    ("batch/example", "the training examples", "record --max-examples N, as many as the run has"),
    ("batch/output_grad", "outputs and output gradients of the batches", "record --outputs all"),
)


@dataclass(frozen=True, eq=False)
class Effective:
    """Effective parameters over the kept rows of a result.

    Attributes:
        step: The steps of the rows (step,).
        p: p of the training and of the held-out examples, each (step,); no "test" without held-out examples.
        error: Their standard errors, each (step,); 0 where p is exact.
        gap_error: That of the gap (step,); 0 where it is exact, or not known.
        norms: ‖s(x)‖² of each example (row, example), at the rows in `norm_rows`.
        norm_rows: Indices into `step`, ascending.
        examples: Which training example (train,) each column of `norms["train"]` is.
        facts: How it was computed, as label and text; cleaned.
        notes: What a reader has to know; cleaned.
        options: The options of the analysis.
        probe: The probe set that the held-out examples are of; cleaned, empty without.
    """

    step: Floats
    p: Mapping[Part, Floats]
    error: Mapping[Part, Floats]
    gap_error: Floats
    norms: Mapping[Part, NDArray[np.float32]]
    norm_rows: NDArray[np.int64]
    examples: NDArray[np.int64]
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    probe: str = ""

    @property
    def gap(self) -> Floats | None:
        """p_test − p_train (step,); None without held-out examples."""
        return self.p["test"] - self.p["train"] if "test" in self.p else None

    def bars(self, part: Part) -> Floats | None:
        """Return the standard errors of a part (step,); None where all of it is exact."""
        return self.error[part] if (self.error[part] > 0).any() else None

    @property
    def gap_bars(self) -> Floats | None:
        """The standard errors of the gap (step,), of the same probes on both; None where it is exact."""
        return self.gap_error if (self.gap_error > 0).any() else None

    def row(self, step: float) -> int:
        """Return the last row at or before a step, the first when none is."""
        return max(0, int(self.step.searchsorted(step, side="right")) - 1)

    def spread(self, step: float) -> tuple[int, dict[Part, NDArray[np.float32]]]:
        """Return ‖s(x)‖² of each example at the last kept row at or before a step, and that row's step."""
        if not self.norm_rows.size:
            return 0, {}
        at = max(0, int(self.norm_rows.searchsorted(self.row(step), side="right")) - 1)
        return int(self.step[self.norm_rows[at]]), {part: values[at] for part, values in self.norms.items()}

    def events(self) -> list[Event]:
        """Return the peaks of p_train and p_test."""
        found = []
        for part, values in self.p.items():
            at = peak(values, self.error[part])
            if at is not None:
                text = f"p_{part} peaks at {compact(float(values[at]))}"
                found.append(Event(int(self.step[at]), "p", text, "quick"))
        return found


def from_result(result: Result) -> Effective:
    """Return the curves of a saved result.

    Raises:
        KeyError: It lacks one of the arrays of the metric.
    """

    def floats(name: str) -> Floats:
        return np.asarray(result.arrays[name].data, dtype=np.float64)

    step = floats("step")
    parts = [part for part in PARTS if part == "train" or f"p_{part}" in result.arrays]

    def error(name: str) -> Floats:
        found = floats(name) if name in result.arrays else np.zeros(step.size)
        return np.where(np.isfinite(found), found, 0.0)

    measured = [part for part in parts if f"norms_{part}" in result.arrays]
    points = sum(result.arrays[f"norms_{part}"].data.shape[1] for part in measured)
    stride = max(1, math.ceil(step.size * points / _NORMS))
    rows = np.arange(0, step.size if measured else 0, stride)
    norms = {
        part: np.asarray(result.arrays[f"norms_{part}"].data[::stride], dtype=np.float32) for part in measured
    }
    count = norms["train"].shape[1] if "train" in norms else 0
    examples = np.asarray(result.arrays["train"].data) if "train" in result.arrays else np.arange(count)
    options = result.provenance.get("options")
    return Effective(
        step,
        {part: floats(f"p_{part}") for part in parts},
        {part: error(f"p_{part}_se") for part in parts},
        error("gap_se"),
        norms,
        rows,
        examples.astype(np.int64),
        _facts(result),
        tuple(clean(note) for note in result.notes),
        options if isinstance(options, Mapping) else {},
        clean(result.provenance.get("probe") or ""),
    )


def _facts(result: Result) -> tuple[tuple[str, str], ...]:
    """Return how a result was computed, in words."""
    scalars = result.scalars

    def number(name: str) -> str:
        value = scalars.get(name)
        return compact(value, 3) if isinstance(value, int | float) and math.isfinite(value) else ""

    exact = "exact" if scalars.get("exact") else f"{number('probes')} probes"
    held = f", {number('examples_test')} held out" if scalars.get("examples_test") else ""
    probe = result.provenance.get("probe")
    lines = [
        ("form", f"{scalars.get('form', '?')} ({exact})"),
        ("examples", f"{number('examples_train')} trained{held}" + (f" ({probe})" if held and probe else "")),
        ("loss", str(scalars.get("loss") or "")),
        ("decay", str(scalars.get("decay") or "")),
        ("apart", _apart(scalars)),
    ]
    lines += [
        (f"p_{part} μ", f"{number(f'p_{part}_probability')} (of probabilities)")
        for part in PARTS
        if number(f"p_{part}_probability")
    ]
    measured = [f"{name.removesuffix('_residual')} {number(name)}" for name in _CHECKS if number(name)]
    lines.append(("residuals", ", ".join(measured)))
    return tuple((clean(label), clean(text)) for label, text in lines if text)


def _apart(scalars: Mapping[str, Any]) -> str:
    """Return how far the model that p describes is from the network."""
    apart, scale = (scalars.get(name) for name in ("discrepancy_telescoped", "prediction_scale"))
    if not isinstance(apart, int | float) or not isinstance(scale, int | float) or not scale > 0:
        return ""
    return f"model and network {compact(apart / scale * 100, 2)}% at the end"


def lacks_of(root: RootReader) -> tuple[str, ...]:
    """Return what a root lacks for the analysis, each with what would record it."""
    arrays = root.arrays()
    if root.attributes.get("kind") == "trees":
        return ()  # of their leaves it can always be told
    return tuple(f"it lacks {what}: {remedy}" for name, what, remedy in _NEEDS if name not in arrays)


def last_p(path: Path, root: str) -> dict[Part, float]:
    """Return p at the last row of the newest readable result, NaN where there is none."""
    from tscope_format.results import last_values

    found = last_values(path, METRIC, root, [f"p_{part}" for part in PARTS])
    return {part: found[f"p_{part}"] for part in PARTS}
