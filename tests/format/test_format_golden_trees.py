"""The golden trace of trees, written once, still opens to the same values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tscope_format import open_trace, verify

import tscope

FOLDER = Path(__file__).parent / "golden_trees"
VERSIONS = sorted(path.stem for path in FOLDER.glob("*.zarr"))


def test_there_is_one_for_format_1() -> None:
    assert VERSIONS == ["trees-1"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_golden_trace_of_trees_has_its_values(version: str) -> None:
    path = FOLDER / f"{version}.zarr"
    assert verify(path).ok
    with np.load(FOLDER / f"{version}.npz") as file:
        expected = dict(file)
    root = open_trace(path).root()
    assert (root.attributes["kind"], root.rows, root.parameters) == ("trees", 7, ())
    for name in root.arrays():
        found, known = root.read(name), expected.pop(name.replace("/", "."))
        assert (found.dtype, found.shape) == (known.dtype, known.shape)
        assert np.array_equal(found, known, equal_nan=known.dtype.kind == "f"), name
    result = tscope.analyze(str(path), "effective-params", save=False)
    assert set(expected) == {"p_train", "p_test"}
    for name, values in expected.items():
        assert np.allclose(result.arrays[name].data, values, rtol=1e-13)
