"""What the optimizer's terms and the training examples did, from the newest saved result of `updates`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tscope_format.errors import clean

if TYPE_CHECKING:
    from tscope_format import Result

    Floats = NDArray[np.float64]

METRIC = "updates"
# Why there can be none of an ensemble.
OF_TREES = ("it holds an ensemble of trees, which has no optimizer",)


@dataclass(frozen=True, eq=False)
class Term:
    """One term over a range of steps.

    Attributes:
        name: The term's; cleaned.
        share: Of the first-order change over the range, signed.
        here: The same in the row at the cursor.
        values: ‖J u‖ of each row of the range.
    """

    name: str
    share: float
    here: float
    values: Floats


@dataclass(frozen=True, eq=False)
class Influences:
    """The training examples that moved one output of one probe example most.

    Attributes:
        example: Their numbers (rank,).
        value: What they did (rank,).
        memory: The part of it through the optimizer's memory (rank,).
        total: The sum over all training examples.
    """

    example: NDArray[np.int64]
    value: Floats
    memory: Floats
    total: float


@dataclass(frozen=True, eq=False)
class Visits:
    """The training examples whose visits in one row moved one output of one probe example most.

    Attributes:
        step: The row's step.
        example: Their numbers (rank,).
        value: What the visits did until the last step (rank,).
    """

    step: int
    example: NDArray[np.int64]
    value: Floats


@dataclass(frozen=True, eq=False)
class Updates:
    """A saved result.

    Attributes:
        probe: The probe set; cleaned.
        step: The steps of the rows (step,).
        first: The first step that was looked at.
        share: ⟨term, JΔθ⟩/‖JΔθ‖² of each term (step,), by its name.
        effect: ‖J u‖ of each term (step,).
        first_order: ‖JΔθ‖ (step,).
        traced: The probe examples that were traced (traced,).
        train: The training examples (train,).
        influence: (traced, output, train); None without.
        memory: The part of it through the optimizer's memory.
        top_example: (step, traced, rank), −1 where there are fewer.
        top_influence: (step, traced, rank, output).
        notes: What a reader has to know; cleaned.
        options: The options of the analysis.
    """

    probe: str
    step: Floats
    first: int
    share: Mapping[str, Floats]
    effect: Mapping[str, Floats]
    first_order: Floats
    traced: NDArray[np.int64]
    train: NDArray[np.int64]
    influence: Floats | None = None
    memory: Floats | None = None
    top_example: NDArray[np.int64] | None = None
    top_influence: Floats | None = None
    notes: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def outputs(self) -> int:
        """Outputs of a probe example."""
        return 0 if self.influence is None else int(self.influence.shape[1])

    def row(self, step: float) -> int:
        """Return the row whose interval holds a step: the first that ends at or after it, else the last."""
        return min(int(self.step.searchsorted(step)), max(0, self.step.size - 1))

    @property
    def last(self) -> int:
        """The last step that was looked at; `first` less 1 without any."""
        return int(self.step[-1]) if self.step.size else self.first - 1

    def covered(self, low: float, high: float) -> tuple[int, int] | None:
        """Return the first and the last step of the rows that end in (low, high]; None without any.

        A row that ends there may begin before.
        """
        rows = np.flatnonzero((self.step > low) & (self.step <= high))
        if not rows.size:
            return None
        before = rows[0] - 1
        return (int(self.step[before]) + 1 if before >= 0 else self.first), int(self.step[rows[-1]])

    def terms(self, low: float, high: float, cursor: float) -> list[Term]:
        """Return each term's share of the first-order change over the steps in (low, high].

        Those that are zero there are left out.
        """
        inside = (self.step > low) & (self.step <= high)
        weight = np.square(np.nan_to_num(self.first_order[inside]))
        total = float(weight.sum())
        at = self.row(cursor)
        found = []
        for name, share in self.share.items():
            effect = np.nan_to_num(self.effect[name][inside])
            if effect.any():
                over = float((np.nan_to_num(share[inside]) * weight).sum()) / total if total > 0 else 0.0
                found.append(Term(name, over, float(share[at]), effect))
        return found

    def place(self, example: int | None) -> int:
        """Return the place of a probe example among the traced ones; the first where it is not traced."""
        found = self.traced.tolist()
        return found.index(example) if example in found else 0

    def influences(self, place: int, output: int) -> Influences:
        """Return the influences on an output of a traced example, the largest first."""
        return _ranked(self, place, output)

    def visits(self, place: int, output: int, cursor: float) -> Visits | None:
        """Return the most influential visits in the row at the cursor; None without influences."""
        if self.top_example is None or self.top_influence is None or not self.step.size:
            return None
        row = self.row(cursor)
        example, value = self.top_example[row, place], self.top_influence[row, place, :, output]
        known = example >= 0
        order = np.argsort(-np.abs(value[known]), kind="stable")
        return Visits(int(self.step[row]), example[known][order], value[known][order])


# Every move of the cursor asks for the same ones again, and there may be many training examples to sort.
@lru_cache(maxsize=4)
def _ranked(found: Updates, place: int, output: int) -> Influences:
    if found.influence is None or not found.train.size:
        empty = np.zeros(0)
        return Influences(np.zeros(0, np.int64), empty, empty, 0.0)
    values = found.influence[place, output]
    memory = np.zeros_like(values) if found.memory is None else found.memory[place, output]
    order = np.argsort(-np.abs(values), kind="stable")
    return Influences(found.train[order], values[order], memory[order], float(values.sum()))


def from_result(result: Result) -> Updates:
    """Return what a saved result holds.

    Raises:
        KeyError: It lacks one of the arrays of the metric.
    """

    def floats(name: str) -> Floats:
        return np.asarray(result.arrays[name].data, dtype=np.float64)

    def whole(name: str) -> NDArray[np.int64]:
        return np.asarray(result.arrays[name].data, dtype=np.int64)

    known = result.provenance.get("terms")
    terms = [str(name) for name in known] if isinstance(known, list | tuple) else []
    traced = "influence" in result.arrays
    options = result.provenance.get("options")
    first = result.scalars.get("from_step")
    return Updates(
        clean(result.scalars.get("probe", "")),
        floats("step"),
        int(first) if isinstance(first, int | float) else 1,
        {clean(term): floats(f"share_{term}") for term in terms},
        {clean(term): floats(f"effect_{term}") for term in terms},
        floats("first_order"),
        whole("traced") if traced else np.zeros(0, np.int64),
        whole("train") if traced else np.zeros(0, np.int64),
        floats("influence") if traced else None,
        floats("influence_memory") if traced else None,
        whole("top_example") if traced else None,
        floats("top_influence") if traced else None,
        tuple(clean(note) for note in result.notes),
        options if isinstance(options, Mapping) else {},
    )
