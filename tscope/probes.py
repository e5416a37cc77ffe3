"""Probe sets: the examples on which a run's predictions are followed.

A probe file is an `.npz` with the model's inputs as `x` (or `x0`, `x1`, … when it takes several), the first
axis of each being the example, and optionally the labels as `y`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tscope_format.errors import UsageError, clean

from tscope.npz import read_npz

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KEYS = "arrays `x` (or `x0`, `x1`, … for a model of several inputs) and optionally `y`"


@dataclass(frozen=True, eq=False)
class ProbeSet:
    """Examples on which predictions are followed.

    Attributes:
        name: The probe's name in the trace, or the file's name.
        inputs: The model's inputs, each (example, …).
        target: The labels (example, …), where known.
        attributes: What the recorder noted about it: whether it is in-sample, which functional of the output.
    """

    name: str
    inputs: tuple[NDArray[Any], ...]
    target: NDArray[Any] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def examples(self) -> int:
        """The number of examples."""
        return int(self.inputs[0].shape[0])

    @property
    def in_sample(self) -> bool:
        """Whether the examples are training examples, as far as the recorder could tell."""
        return bool(self.attributes.get("in_sample", False))

    def __repr__(self) -> str:
        shapes = ", ".join(f"{array.dtype}{list(array.shape)}" for array in self.inputs)
        labels = (
            "no labels" if self.target is None else f"labels {self.target.dtype}{list(self.target.shape)}"
        )
        place = ", in-sample" if self.in_sample else ""
        return f"ProbeSet({clean(self.name)!r}: {shapes}; {labels}{place})"


@dataclass(frozen=True)
class InputSpec:
    """What one input of a model looks like: the shape of one example, and the dtype."""

    shape: tuple[int, ...]
    dtype: str


def read_probe_file(path: str | Path, expected: Sequence[InputSpec] | None = None) -> ProbeSet:
    """Read and check a probe file.

    Args:
        path: An `.npz` file.
        expected: The model's inputs, one entry each, if they are known.

    Returns:
        The probe set, named after the file.

    Raises:
        UsageError: The file is missing or unreadable, has other keys, or its arrays do not fit the model.
    """
    path = Path(path)
    arrays = read_npz(path, "probe file", _KEYS)
    names = _input_names(path, arrays)
    inputs = tuple(arrays[name] for name in names)
    target = arrays.get("y")
    _check_examples(path, names, inputs, target)
    if expected is not None:
        _check_expected(path, names, inputs, expected)
    for name, array in zip([*names, "y"], [*inputs, target], strict=True):
        if array is not None:
            _check_values(path, name, array)
    return ProbeSet(path.stem, inputs, target, {"file": path.name})


def _input_names(path: Path, arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    numbered = sorted(
        (name for name in arrays if re.fullmatch(r"x\d+", name)), key=lambda name: int(name[1:])
    )
    unknown = sorted(set(arrays) - {"x", "y", *numbered})
    names = ["x"] if "x" in arrays else numbered
    gaps = names != ["x"] and names != [f"x{k}" for k in range(len(names))]
    if not names or unknown or gaps or ("x" in arrays and numbered):
        found = ", ".join(clean(name) for name in sorted(arrays)) or "nothing"
        raise UsageError(f"probe file {clean(path)} must hold {_KEYS}; it holds {found}")
    return names


def _check_examples(
    path: Path, names: Sequence[str], inputs: Sequence[NDArray[Any]], target: NDArray[Any] | None
) -> None:
    arrays = {**dict(zip(names, inputs, strict=True)), **({} if target is None else {"y": target})}
    counts = {name: (array.shape[0] if array.ndim else None) for name, array in arrays.items()}
    if len(set(counts.values())) != 1 or not all(counts.values()):
        raise UsageError(
            f"probe file {clean(path)}: the first axis of every array is the example, and all must have the "
            "same "
            "number of them, at least one; got shapes "
            f"{ ({name: array.shape for name, array in arrays.items()}) }"
        )


def _check_expected(
    path: Path, names: Sequence[str], inputs: Sequence[NDArray[Any]], expected: Sequence[InputSpec]
) -> None:
    if len(inputs) != len(expected):
        raise UsageError(
            f"probe file {clean(path)} holds {len(inputs)} input(s) ({', '.join(names)}), but the model "
            "takes "
            f"{len(expected)}; save them as x0, x1, …"
        )
    for name, array, spec in zip(names, inputs, expected, strict=True):
        if array.shape[1:] != spec.shape:
            raise UsageError(
                f"probe file {clean(path)}: each example of `{name}` has shape {array.shape[1:]}, but the "
                "model was "
                f"trained on {spec.shape}"
            )
        if str(array.dtype) != spec.dtype:
            raise UsageError(
                f"probe file {clean(path)}: `{name}` has dtype {array.dtype}, but the model was trained on "
                f"{spec.dtype}; convert it with .astype({spec.dtype!r})"
            )


def _check_values(path: Path, name: str, array: NDArray[Any]) -> None:
    if array.dtype.kind not in "fiub":
        raise UsageError(f"probe file {clean(path)}: `{name}` has dtype {array.dtype}; numbers are needed")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))
        raise UsageError(
            f"probe file {clean(path)}: `{name}` holds {len(bad)} NaN or infinite value(s), the first in "
            "example "
            f"{bad[0][0]}; remove those examples"
        )
