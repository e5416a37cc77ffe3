"""The golden traces, written once, still open to the same values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from format_run import bits, same
from tscope_format import RootReader, load_result, open_trace, verify
from tscope_format.dtypes import NDArray

FOLDER = Path(__file__).parent / "golden"
VERSIONS = sorted(path.stem for path in FOLDER.glob("*.zarr"))


def test_there_is_one_for_format_1() -> None:
    assert "format-1" in VERSIONS


@pytest.fixture(params=VERSIONS)
def golden(request: pytest.FixtureRequest) -> tuple[Path, dict[str, NDArray]]:
    with np.load(FOLDER / f"{request.param}.npz") as file:
        return FOLDER / f"{request.param}.zarr", dict(file)


def states(root: RootReader, key: str) -> NDArray:
    return np.concatenate([block[key] for _, block in root.theta_blocks()])


def test_a_golden_trace_verifies(golden: tuple[Path, dict[str, NDArray]]) -> None:
    report = verify(golden[0])
    assert report.problems == []
    assert report.status == "complete"
    assert report.checked["examples"] == 6


def test_a_golden_trace_has_its_values(golden: tuple[Path, dict[str, NDArray]]) -> None:
    path, expected = golden
    trace = open_trace(path)
    root = trace.root()
    assert trace.facts["name"] == "golden"
    assert root.rows == 300
    assert root.parameters[0].tied == ("head.weight",)
    for key in ("float32", "bfloat16"):
        assert same(states(root, key), expected[f"theta_{key}"])
        assert np.array_equal(bits(root.theta(299)[key]), bits(expected[f"theta_{key}"][299]))
    assert same(
        np.concatenate([block["float32"] for _, block in root.buffer_blocks()]), expected["buffer_float32"]
    )
    assert same(root.buffer(150)["bool"], expected["buffer_bool"])
    assert np.array_equal(root.read("loss"), expected["loss"], equal_nan=True)
    assert same(root.read("examples/input/0"), expected["inputs"])
    assert same(root.read("probe/heldout/output"), expected["output"])
    assert root.read("optimizer_scalar/step")[1].tolist() == [256.0] * 3
    assert root.program() is not None
    assert load_result(path, "golden").scalars["answer"] == 42
