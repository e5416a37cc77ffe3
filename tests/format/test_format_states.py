"""Traces without updates, and sketches: what comes back, what is said of rows that were not kept, verify."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from tscope_format import (
    MissingDataError,
    RecordError,
    RootReader,
    Row,
    TraceError,
    TraceWriter,
    open_trace,
    table,
    verify,
)

PARAMETERS = table([("w", (3, 4), "float32", (), True), ("half", (5,), "bfloat16", (), True)])
BUFFERS = table([("mean", (2,), "float32", (), False)])
LAST = 11
KEPT = (0, 1, 2, 4, 8, LAST)


def theta(row: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(row)
    return {
        "float32": random.standard_normal(12).astype(np.float32),
        "bfloat16": random.integers(0, 1 << 14, 5, np.uint16),
    }


def mean(row: int) -> dict[str, np.ndarray]:
    return {"float32": np.array([row, -row], np.float32)}


def appended(path: Path, rows: int = LAST) -> TraceWriter:
    """A run of `rows` updates, two optimizer steps each, without updates in its trace."""
    writer = TraceWriter.create(path, facts={})
    root = writer.add_root(
        "model",
        parameters=PARAMETERS,
        buffers=BUFFERS,
        groups=1,
        theta=theta(0),
        buffer=mean(0),
        time=0.0,
        attributes={},
        updates=False,
    )
    lr, norm = np.array([0.1]), np.zeros(2, np.float32)
    for row in range(1, rows + 1):
        root.append(Row(2 * row, 0.0, 1.0, lr, theta(row), mean(row), norm, False, False, ()))
    return writer


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("states") / "t.zarr"
    appended(found).close("complete")
    return found


def root(path: Path) -> RootReader:
    return open_trace(path).root()


def test_row_zero_powers_of_two_and_the_last_row_are_kept_bit_for_bit(path: Path) -> None:
    reader = root(path)
    assert reader.theta_rows == KEPT
    for row in KEPT:
        found = reader.theta(row)
        assert all(np.array_equal(found[key], value) for key, value in theta(row).items())
    assert reader.read("theta/state_step").tolist() == [2 * row for row in KEPT]
    first, block = next(reader.theta_blocks(1, 3))
    assert (first, block["float32"].shape[0]) == (1, 1)
    assert [row for row, _ in reader.theta_blocks(0, 3)] == [0, 1, 2]


def test_buffers_are_there_at_every_row(path: Path) -> None:
    reader = root(path)
    assert [reader.buffer(row)["float32"][0] for row in range(LAST + 1)] == list(range(LAST + 1))


def test_norms_are_of_every_row(path: Path) -> None:
    norms = root(path).read("update_norm")[:, 0]
    expected = [np.linalg.norm(theta(row)["float32"] - theta(row - 1)["float32"]) for row in range(1, LAST)]
    np.testing.assert_allclose(norms[1:LAST], expected, rtol=1e-6)


@pytest.mark.parametrize("row", [3, 7, 10])
def test_a_row_that_was_not_kept_is_refused_with_those_that_were(path: Path, row: int) -> None:
    expected = (
        f"the parameters at row {row} were not kept, since the run was recorded with `--updates none`; they "
        "are known at steps 0, 2, 4, 8, 16 and 22. Record without it to have every row"
    )
    with pytest.raises(MissingDataError, match=expected) as caught:
        root(path).theta(row)
    assert caught.value.exit_code == 4
    with pytest.raises(MissingDataError, match="at row 3 were not kept"):
        list(root(path).theta_blocks(0, 5))


def test_a_trace_with_updates_knows_every_row(tmp_path: Path) -> None:
    writer = TraceWriter.create(tmp_path / "t.zarr", facts={})
    writer.add_root(
        "model",
        parameters=PARAMETERS,
        buffers=BUFFERS,
        groups=1,
        theta=theta(0),
        buffer=mean(0),
        time=0.0,
        attributes={},
    )
    writer.close("complete")
    assert root(tmp_path / "t.zarr").theta_rows is None


def test_a_recording_that_goes_on_or_was_killed_lacks_its_last_row_only(tmp_path: Path) -> None:
    writer = appended(tmp_path / "t.zarr")
    writer.commit()
    assert root(tmp_path / "t.zarr").theta_rows == KEPT[:-1]
    assert verify(tmp_path / "t.zarr").ok
    writer.close("interrupted")
    assert root(tmp_path / "t.zarr").theta_rows == KEPT


def test_stock_readers_see_the_states(path: Path) -> None:
    group = zarr.open_group(path, mode="r")["model"]
    assert group["theta/state"].metadata.dimension_names == ("state", "param")
    assert np.array_equal(group["theta/state"][3], theta(4)["float32"])
    assert group["theta/state_row"][:].tolist() == list(KEPT)
    assert group.attrs["updates"] == "none"


def test_verify_finds_a_damaged_state_and_rows_that_cannot_be(tmp_path: Path) -> None:
    target = tmp_path / "t.zarr"
    appended(target).close("complete")
    assert verify(target).ok
    chunk = target / "model/theta/state/c/2/0"
    data = bytearray(chunk.read_bytes())
    data[20] ^= 1
    chunk.write_bytes(data)
    problems = verify(target).problems
    assert [(problem.where, problem.rows) for problem in problems] == [("model/theta/state", (2, 3))]
    with pytest.raises(TraceError, match="model/theta/state"):
        root(target).theta(2)


def test_verify_counts_the_states_that_must_be_there(tmp_path: Path) -> None:
    writer = appended(tmp_path / "t.zarr")
    written = writer._roots["model"]._theta["float32"]  # no public way makes a trace that is wrong
    written._places["state_row"]._block[3] = 3
    writer.close("complete")
    problems = verify(tmp_path / "t.zarr").problems
    assert [problem.what for problem in problems] == ["lacks the states of rows [4]"]


def test_states_that_the_record_lacks_are_damage(tmp_path: Path) -> None:
    target = tmp_path / "t.zarr"
    appended(target).close("complete")
    record = json.loads((target / "zarr.json").read_text())
    del record["consolidated_metadata"]["metadata"]["model/theta/state_row"]
    (target / "zarr.json").write_text(json.dumps(record))
    with pytest.raises(TraceError, match="model/theta/state_row is not in the commit record"):
        root(target).theta(0)


def test_sketches_come_back_with_their_own_steps(tmp_path: Path) -> None:
    writer = appended(tmp_path / "t.zarr")
    probe = writer._roots["model"].add_probe(
        "held", inputs=[np.zeros((3, 2), np.float32)], target=None, attributes={}
    )
    sketches = np.random.default_rng(0).standard_normal((2, 3, 2, 64)).astype(np.float32)
    probe.append_sketch(0, sketches[0])
    probe.append_sketch(6, sketches[1])
    with pytest.raises(RecordError, match="the sketch of step 6 comes after that of step 6"):
        probe.append_sketch(6, sketches[1])
    with pytest.raises(RecordError, match=r"a sketch of shape \(3, 2, 32\), expected .* = \(3, 2, 64\)"):
        probe.append_sketch(8, sketches[1][..., :32])
    writer.close("complete")
    reader = root(tmp_path / "t.zarr")
    assert reader.arrays()["probe/held/sketch"].dims == ("sketch_step", "example", "output", "column")
    assert np.array_equal(reader.read("probe/held/sketch"), sketches)
    assert reader.read("probe/held/sketch_step").tolist() == [0, 6]
    assert verify(tmp_path / "t.zarr").ok
