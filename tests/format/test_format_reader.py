"""Reading: any row, any range, only the chunks that are needed, and nothing loaded that is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from format_run import Run, bits, check, committed, same, small_chunks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tscope_format import Row, TraceWriter, array_reader, arrays, open_trace, table
from tscope_format.dtypes import NDArray
from tscope_format.pyramid import LEVELS


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        small_chunks(patch)
        run = Run(tmp_path_factory.mktemp("reader") / "t.zarr")
        for step in range(1, 27):
            run.append(slots=1 + step % 4, micros=1 + step % 2, buffer=step > 9)
        run.writer.close("complete")
    return run


def test_every_row_is_found_by_its_anchor(run: Run) -> None:
    root = committed(run)
    for at in np.random.default_rng(0).permutation(27):
        theta = root.theta(int(at))
        assert set(theta) == {"float32", "bfloat16", "float64"}
        for key, values in run.model.rows[at].theta.items():
            assert same(theta[key], values)
        for key, values in run.model.buffers[at].items():
            assert same(root.buffer(int(at))[key], values)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(-30, 30), stop=st.none() | st.integers(-30, 30))
def test_ranges_are_those_of_a_slice(run: Run, start: int, stop: int | None) -> None:
    root = committed(run)
    for name in ("loss", "lr", "batch/output", "theta/update"):
        whole = root.read(name)
        assert np.array_equal(bits(root.read(name, start, stop)), bits(whole[start:stop]))
    found: list[NDArray] = []
    for (first, theta), (again, buffer) in zip(
        root.theta_blocks(start, stop), root.buffer_blocks(start, stop), strict=True
    ):
        assert first == again == range(27)[start:stop].start + len(found)
        assert len(buffer["bool"]) == len(theta["float32"])
        found += list(theta["float32"])
    expected = [row.theta["float32"] for row in run.model.rows[start:stop]]
    assert len(found) == len(expected)
    assert all(same(left, right) for left, right in zip(found, expected, strict=True))


def test_rows_are_taken_in_any_order(run: Run) -> None:
    root = committed(run)
    rows = [25, 3, 3, 0, 11]
    assert np.array_equal(root.take("batch/example", rows), root.read("batch/example")[rows])
    assert root.take("loss", []).shape == (0,)


def test_only_the_chunks_that_hold_the_rows_are_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, ...]] = []
    original = array_reader.ArrayReader._bytes

    def counting(self: array_reader.ArrayReader, place: tuple[int, ...]) -> bytes:
        read.append(place)
        return original(self, place)

    monkeypatch.setattr(array_reader.ArrayReader, "_bytes", counting)
    committed(run).read("loss", 7, 10)
    assert read == [(2,), (3,)]
    read.clear()
    committed(run).read("loss", 5, 5)
    assert read == []
    for _ in committed(run).theta_blocks():
        pass
    # 41 values in pieces of 14, 6 blocks of 5 rows, and the first anchor; the other dtypes in one piece.
    assert len(read) == (3 + 1 + 1) * (1 + 6)


def test_a_reader_follows_a_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    run = Run(tmp_path / "t.zarr")
    trace = open_trace(run.path)
    early = trace.root()
    for step in range(30):
        run.append(slots=1 + step, groups=1 + step // 9, width=1 + step // 11, buffer=step > 5)
        assert not trace.refresh()
        run.writer.commit()
        assert trace.refresh()
        check(trace.root(), run.model)
    assert early.rows == 1
    check(early, run.model)


def test_the_pyramid_holds_the_range_of_complete_groups(tmp_path: Path) -> None:
    run = Run(tmp_path / "t.zarr")
    rows = 64 * 64 + 70
    for _ in range(1, rows):
        run.append(slots=1, micros=0, groups=2)
    run.writer.close("complete")
    root = committed(run)
    for level, groups in zip(LEVELS, (65, 1, 0), strict=True):
        if not groups:
            assert f"loss_lod{level}" not in root.arrays()
            continue
        cut = groups * level
        shape = (groups, level)
        for name in ("step", "time", "loss"):
            values = root.read(name)[:cut].astype(np.float64).reshape(shape)
            expected = np.stack([np.nanmin(values, axis=1), np.nanmax(values, axis=1)], axis=1)
            assert np.array_equal(root.read(f"{name}_lod{level}"), expected)
        lr = root.read("lr")[:cut].reshape(groups, -1)
        assert np.array_equal(root.read(f"lr_lod{level}")[:, 1], np.nanmax(lr, axis=1))
        norms = root.read("grad_norm").astype(np.float64)[:cut]
        with np.errstate(invalid="ignore"):
            total = np.sqrt(np.nansum(norms**2, axis=1)).reshape(shape)
        total[0, 0] = np.nan
        assert np.allclose(root.read(f"grad_norm_lod{level}")[:, 1], np.nanmax(total, axis=1))


def test_chunks_of_wide_rows_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_PIECE_BYTES", 64)
    run = Run(tmp_path / "t.zarr")
    for step in range(1, 5):
        run.append(slots=30 + step, width=5)
    data = np.arange(300.0).reshape(10, 30)
    run.root.set_program(b"{}", {"wide": data})
    run.writer.close("complete")
    root = committed(run)
    check(root, run.model)
    assert np.array_equal(root.read("program/constant/wide"), data)
    assert np.array_equal(root.read("program/constant/wide", 3, 5), data[3:5])


def loaded_after(statement: str) -> set[str]:
    wanted = "{'torch', 'zarr', 'xarray', 'numcodecs', 'asyncio', 'tscope_format.writer'}"
    code = f"import sys; {statement}; print(*({wanted} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_opening_a_trace_loads_no_zarr_and_reading_it_only_the_codecs(run: Run) -> None:
    assert loaded_after("import tscope_format") == set()
    opening = f"import tscope_format; root = tscope_format.open_trace({str(run.path)!r}).root()"
    assert loaded_after(opening) == set()
    assert loaded_after(f"{opening}; root.read('loss'); root.theta(9)") == {"numcodecs"}


def test_every_public_name_can_be_had_and_no_other() -> None:
    import tscope_format

    assert all(getattr(tscope_format, name) is not None for name in tscope_format.__all__)
    with pytest.raises(AttributeError, match="module 'tscope_format' has no attribute 'nonsense'"):
        _ = tscope_format.nonsense


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize(("moves", "counts"), [(True, True), (False, True), (True, False), (False, False)])
def test_buffers_move_if_one_of_other_than_whole_numbers_does(
    tmp_path: Path, dtype: str, moves: bool, counts: bool
) -> None:
    def buffer(row: int) -> dict[str, np.ndarray]:
        words = np.zeros(2, np.uint16 if dtype == "bfloat16" else dtype)
        return {dtype: words + words.dtype.type(moves * row), "int64": np.array([counts * row])}

    theta = {"float32": np.zeros(1, np.float32)}
    writer = TraceWriter.create(tmp_path / "t.zarr", facts={})
    root = writer.add_root(
        "model",
        parameters=table([("w", (1,), "float32", (), True)]),
        buffers=table([("mean", (2,), dtype, (), False), ("batches", (1,), "int64", (), False)]),
        groups=1,
        theta=theta,
        buffer=buffer(0),
        time=0.0,
        attributes={},
    )
    for row in (1, 2):
        root.append(Row(row, 0.0, 1.0, np.ones(1), theta, buffer(row), np.zeros(1), False, False, ()))
    writer.close("complete")
    assert open_trace(tmp_path / "t.zarr").root().buffers_move == moves
