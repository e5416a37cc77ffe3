"""A recorded ensemble: its trees, what they were fitted on, and by which rule they add up."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from tscope_format.errors import AnalysisError, TraceError, clean

from tscope.boosting.nodes import Nodes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from tscope.trace import Trace

Rule = Literal["boosting", "forest"]
Base = Literal["mean", "constant"]
RULES: tuple[Rule, ...] = ("boosting", "forest")
BASES: tuple[Base, ...] = ("mean", "constant")
Choice = TypeVar("Choice", bound=str)
TOLERANCES = {"float64": 1e-12, "float32": 1e-5}
"""By the precision of a library: how far Sy may be from a prediction, as a share of the largest |y|."""


@dataclass(frozen=True, eq=False)
class Ensemble:
    """An ensemble of trees as a sum of weighted means within leaves.

    Attributes:
        rule: "boosting" (each tree averages what the ones before left over) or "forest" (the mean of trees).
        shrinkage: What a boosting multiplies each tree's means with.
        penalty: λ, added to the weight of a leaf.
        base: Whether predictions begin at the labels' weighted mean, or at a constant.
        base_value: Where they begin (output).
        precision: "float64" or "float32", the library's arithmetic.
        target: What the leaves average (train, output).
        weight: Of the examples (train); None where all are 1.
        sample: How often each tree was given each example (tree, train); None where each was once.
        leaf: The leaf of each training example (tree, train).
        nodes: The trees.
    """

    rule: Rule
    shrinkage: float
    penalty: float
    base: Base
    base_value: NDArray[np.float64]
    precision: str
    target: NDArray[np.float64]
    weight: NDArray[np.float64] | None
    sample: NDArray[Any] | None
    leaf: NDArray[np.int32]
    nodes: Nodes

    @property
    def trees(self) -> int:
        """The number of trees."""
        return len(self.leaf)

    @property
    def examples(self) -> int:
        """n, the number of training examples."""
        return len(self.target)

    @property
    def tolerance(self) -> float:
        """How far Sy may be from a prediction."""
        return TOLERANCES[self.precision] * float(np.abs(self.target).max(initial=0.0))

    def weights(self, tree: int | None = None) -> NDArray[np.float64]:
        """Return the weights (train) of the examples in one tree, or in the base."""
        own = np.ones(self.examples) if self.weight is None else self.weight
        return own if tree is None or self.sample is None else own * self.sample[tree]

    @classmethod
    def read(cls, trace: Trace) -> Ensemble:
        """Read the ensemble of a trace.

        Raises:
            TraceError: It is damaged.
            AnalysisError: Its smoother does not give its predictions, which was found when it was recorded.
        """
        attributes = trace.reader.attributes
        check: Mapping[str, Any] = attributes.get("check") or {}
        if check.get("problem"):
            raise AnalysisError(
                f"{clean(trace.path)}: the smoother of {clean(trace.name)} is not exact: "
                f"{clean(check['problem'])}"
            )
        held = trace.reader.arrays()
        arrays = {
            name.removeprefix("trees/"): trace.reader.read(name, 1 if name in _BY_STEP else 0)
            for name in held
            if name.startswith("trees/")
        }
        try:
            return cls.of(attributes, arrays)
        except (KeyError, TypeError, ValueError) as error:
            raise TraceError(
                f"{clean(trace.path)}: root {clean(trace.name)} holds no valid ensemble ({clean(error)})"
            ) from error

    @classmethod
    def of(cls, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Ensemble:
        """Return the ensemble of these facts and arrays, named as in a trace.

        Raises:
            KeyError: One is missing.
            TypeError: A fact is of the wrong type.
            ValueError: A fact has no meaning.
        """
        return cls(
            rule=_one_of(facts["rule"], RULES),
            shrinkage=float(facts["shrinkage"]),
            penalty=float(facts["penalty"]),
            base=_one_of(facts["base"], BASES),
            base_value=np.array(facts["base_value"], np.float64),
            precision=_one_of(facts["precision"], TOLERANCES),
            target=arrays["target"],
            weight=arrays.get("weight"),
            sample=arrays.get("sample"),
            leaf=arrays["leaf"],
            nodes=nodes_of(arrays),
        )


_BY_STEP = ("trees/leaf", "trees/sample")
_NODE_ARRAYS = tuple(field.name if field.name == "start" else f"node/{field.name}" for field in fields(Nodes))


def nodes_of(arrays: Mapping[str, NDArray[Any]]) -> Nodes:
    """Return the nodes held as `start` and `node/<column>`; KeyError names an array that is not there."""
    return Nodes(**{name.removeprefix("node/"): arrays[name] for name in _NODE_ARRAYS})


def _one_of(value: object, known: Iterable[Choice]) -> Choice:
    for choice in known:
        if value == choice:
            return choice
    raise ValueError(f"{value!r} is none of {', '.join(known)}")
