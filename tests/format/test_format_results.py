"""Results are pure data: kept beside the recording, strict as JSON, and never half written."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray
from format_run import Run, same
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from tscope_format import (
    Array,
    MissingDataError,
    Result,
    TraceError,
    UsageError,
    last_values,
    list_results,
    load_result,
    save_result,
    verify,
)

RESULT = Result(
    "telescoping",
    {"error": 0.5, "rule": "left", "steps": 3, "exact": True, "nothing": None, "huge": float("inf")},
    {
        "step": Array(("step",), np.arange(3)),
        "actual": Array(("step", "output"), np.array([[1, np.nan], [np.inf, -np.inf], [0, 1]], np.float32)),
        "agrees": Array(("step",), np.array([True, False, True])),
        "total": Array((), np.array(2.5)),
    },
    {"trace": "abc", "options": {"rule": "left"}},
    ("in-sample",),
)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    run = Run(tmp_path / "t.zarr")
    run.writer.close("complete")
    return run.path


def assert_same(left: Result, right: Result) -> None:
    assert (left.metric, left.scalars, left.notes) == (right.metric, right.scalars, right.notes)
    assert left.provenance == right.provenance
    assert list(left.arrays) == list(right.arrays)
    for name, array in left.arrays.items():
        assert array.dims == right.arrays[name].dims
        assert same(array.data, right.arrays[name].data)


def test_a_result_is_shown_without_its_values() -> None:
    lines = repr(RESULT).split("\n")
    assert lines[:2] == ["<Result telescoping", "  error = 0.5"]
    assert "  actual: <Array float32 (step: 3, output: 2)>" in lines
    assert lines[-1] == "  note: in-sample>"


def test_a_saved_result_comes_back_and_the_recording_is_untouched(trace: Path) -> None:
    before = (trace / "zarr.json").read_bytes()
    name = save_result(trace, RESULT, "model")
    assert_same(load_result(trace, "telescoping"), RESULT)
    assert_same(load_result(trace, "telescoping", name), RESULT)
    assert (trace / "zarr.json").read_bytes() == before
    report = verify(trace)
    assert report.ok
    assert report.checked["results"] == 1


def test_results_are_listed_oldest_first_and_the_newest_is_the_default(trace: Path) -> None:
    names = [save_result(trace, Result("m", {"number": n}, {}, {"n": n}), "model") for n in range(3)]
    found = list_results(trace)
    assert [info.id for info in found] == names
    assert [info.provenance["n"] for info in found] == [0, 1, 2]
    assert {(info.metric, info.root) for info in found} == {("m", "model")}
    assert load_result(trace, "m").scalars["number"] == 2


def test_only_the_arrays_that_are_asked_for_are_read(trace: Path) -> None:
    name = save_result(trace, RESULT, "model")
    shutil.rmtree(trace / "analysis" / "telescoping" / name / "actual" / "c")
    with pytest.raises(TraceError):
        load_result(trace, "telescoping")
    found = load_result(trace, "telescoping", arrays=("step", "unknown"))
    assert list(found.arrays) == ["step"]
    assert found.arrays["step"].data.tolist() == [0, 1, 2]
    assert found.scalars == RESULT.scalars


def test_last_values_are_those_of_the_newest_readable_result(trace: Path) -> None:
    for last in (1.0, 2.0, 3.0):
        arrays = {name: Array(("step",), np.array([0.0, last])) for name in ("p", "q")}
        name = save_result(trace, Result("m", {}, arrays, {}), "model")
    save_result(trace, Result("m", {}, arrays, {}), "another")
    assert last_values(trace, "m", "model", ["p", "r"]) == {
        "p": 3.0,
        "r": pytest.approx(math.nan, nan_ok=True),
    }
    shutil.rmtree(trace / "analysis" / "m" / name / "q" / "c")
    assert last_values(trace, "m", "model", ["p"]) == {"p": 3.0}
    assert last_values(trace, "m", "model", ["q"]) == {"q": 2.0}
    assert math.isnan(last_values(trace, "none", "model", ["p"])["p"])


def test_json_is_strict_and_comes_back() -> None:
    text = json.dumps(RESULT.to_dict(), allow_nan=False)
    document = json.loads(text)
    assert document["schema"] == 1
    assert document["arrays"]["actual"]["dims"] == ["step", "output"]
    assert document["arrays"]["actual"]["data"] == [[1, None], ["Infinity", "-Infinity"], [0, 1]]
    assert_same(Result.from_dict(document), RESULT)


@settings(deadline=None, max_examples=50)
@given(
    arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.bool_]), array_shapes(min_dims=0, min_side=0)
    )
)
def test_any_array_survives_json(data: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
    dims = tuple(f"d{axis}" for axis in range(data.ndim))
    result = Result("m", {}, {"a": Array(dims, data)}, {})
    back = Result.from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False))).arrays["a"].data
    assert back.dtype == data.dtype
    assert np.array_equal(back, data, equal_nan=data.dtype.kind == "f")


def test_xarray_gets_named_dimensions_and_coordinates() -> None:
    dataset = RESULT.to_xarray()
    assert dataset["actual"].dims == ("step", "output")
    assert "step" in dataset.coords
    assert dataset.attrs["rule"] == "left"


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part:zarr.errors.ZarrUserWarning")
def test_stock_readers_open_a_saved_result(trace: Path) -> None:
    name = save_result(trace, RESULT, "model")
    with xarray.open_zarr(trace / "analysis" / "telescoping" / name) as dataset:
        assert dataset["actual"].dims == ("step", "output")
        assert dataset["step"].values.tolist() == [0, 1, 2]


def test_a_trace_that_cannot_be_written_says_what_to_do(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A read-only folder does not stop the superuser, whom tests may run as.
    def refuse(self: Path, *arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    message = (
        r"cannot save the result in .*t\.zarr: read-only file system; use --save-to to keep it elsewhere"
    )
    with pytest.raises(TraceError, match=message):
        save_result(trace, RESULT, "model")


def test_a_save_that_fails_leaves_nothing(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [0]
    replace = os.replace

    def failing(source: str, target: str) -> None:
        calls[0] += 1
        if calls[0] == 3:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr("tscope_format.disk.os.replace", failing)
    with pytest.raises(TraceError, match="no space left on device"):
        save_result(trace, RESULT, "model")
    assert list_results(trace) == []
    assert os.listdir(trace / "analysis" / "telescoping") == []


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (Result("../x", {}, {}, {}), "metric name '../x' cannot be used"),
        (Result("m", {}, {"a/b": Array((), np.array(1.0))}, {}), "array name 'a/b' cannot be used"),
        (Result("m", {}, {"a": Array(("x",), np.array(1.0))}, {}), "array 'a' of shape .* has dimensions"),
        (Result("m", {}, {"a": Array(("x",), np.array(["s"]))}, {}), "the element type 'str32' cannot be"),
    ],
)
def test_what_cannot_be_held_is_refused(trace: Path, result: Result, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        save_result(trace, result, "model")
    assert list_results(trace) == []


def test_a_result_that_is_not_there_says_how_to_make_it(trace: Path) -> None:
    with pytest.raises(
        MissingDataError, match=r"holds no result of kernel: tscope analyze .* --metric kernel"
    ):
        load_result(trace, "kernel")
    with pytest.raises(MissingDataError, match="holds no result 'x' of kernel"):
        load_result(trace, "kernel", "x")


def test_damage_in_a_result_is_found(trace: Path) -> None:
    name = save_result(trace, RESULT, "model")
    folder = trace / "analysis" / "telescoping" / name
    chunk = folder / "actual" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(TraceError, match="the chunk of actual with rows 0 to 2 has a wrong checksum"):
        load_result(trace, "telescoping")
    assert [problem.where for problem in verify(trace).problems] == [f"analysis/telescoping/{name}/actual"]
    (folder / "zarr.json").write_text("{")
    assert list_results(trace) == []
    assert [problem.where for problem in verify(trace).problems] == [f"analysis/telescoping/{name}"]


def test_a_newer_schema_is_refused() -> None:
    with pytest.raises(
        TraceError, match="a result of schema 2, and this tscope reads up to 1: upgrade tscope"
    ):
        Result.from_dict({**RESULT.to_dict(), "schema": 2})
    with pytest.raises(TraceError, match="not a result of tscope"):
        Result.from_dict({"schema": 1})
