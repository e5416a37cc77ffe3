"""`tscope ls`: the traces of a folder, damaged ones included."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cli_runner import Runner
from cli_traces import write_trace
from tscope_format import Array, Result, save_result


def test_ls_shows_the_newest_first_and_damaged_ones_with_the_reason(tscope: Runner, tmp_path: Path) -> None:
    write_trace(tmp_path / "old.zarr", rows=3, facts={"created": 1.0e9})
    write_trace(tmp_path / "new.zarr", rows=5, facts={"created": 1.7e9})
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "notes").mkdir()
    outcome = tscope("ls", tmp_path)
    assert outcome.code == 0
    title, *lines = outcome.out.splitlines()
    assert title.split() == ["name", "status", "steps", "loss", "model", "parameters", "size", "age"]
    assert [line.split()[:3] for line in lines[1:3]] == [
        ["new.zarr", "complete", "5"],
        ["old.zarr", "complete", "3"],
    ]
    assert lines[0].split()[:2] == ["empty.zarr", "damaged"]
    assert str(tmp_path / "empty.zarr") in lines[3]


def test_ls_takes_a_trace_as_well(tscope: Runner, tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "run.zarr", rows=3)
    assert len(tscope("ls", trace).out.splitlines()) == 2


def test_ls_json_has_one_entry_a_trace(tscope: Runner, tmp_path: Path) -> None:
    write_trace(tmp_path / "run.zarr", rows=3)
    (tmp_path / "empty.zarr").mkdir()
    content = json.loads(tscope("ls", tmp_path, "--json").out)
    assert content["schema"] == 1
    assert [entry["status"] for entry in content["traces"]] == ["damaged", "complete"]
    assert content["traces"][0]["reason"]


@pytest.mark.parametrize(("name", "message"), [("none", "no such folder"), ("file", "not a folder")])
def test_ls_of_no_folder_is_a_usage_error(tscope: Runner, tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").write_text("")
    outcome = tscope("ls", tmp_path / name)
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"tscope: {tmp_path / name}: {message}\n")


def test_a_folder_without_traces_says_how_to_make_one(tscope: Runner, tmp_path: Path) -> None:
    outcome = tscope("ls", tmp_path)
    assert outcome.code == 0
    assert outcome.err == (
        f"tscope: no traces in {tmp_path}; record one: tscope record -- python train.py (or: tscope demo)\n"
    )


def test_a_trace_that_lost_its_last_row_is_listed_as_damaged(tscope: Runner, tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "run.zarr", rows=3)
    shutil.rmtree(trace / "model" / "loss" / "c")
    outcome = tscope("ls", tmp_path)
    assert outcome.code == 0
    assert outcome.out.splitlines()[1].split()[:2] == ["run.zarr", "damaged"]
    assert "loss" in outcome.out.splitlines()[2]


def _effective(p_train: float, p_test: float | None) -> Result:
    """Return a result as `effective-params` saves it, of three rows."""
    curves = {"p_train": p_train} if p_test is None else {"p_train": p_train, "p_test": p_test}
    arrays = {name: Array(("step",), np.array([0.0, 1.0, last])) for name, last in curves.items()}
    arrays["step"] = Array(("step",), np.arange(3))
    return Result("effective-params", dict(curves), arrays, {})


def test_ls_shows_effective_parameters_of_the_newest_result(tscope: Runner, tmp_path: Path) -> None:
    for name, created in (("both", 3e9), ("one", 2e9), ("none", 1e9)):
        write_trace(tmp_path / f"{name}.zarr", rows=3, facts={"created": created})
    save_result(tmp_path / "both.zarr", _effective(5.0, 6.0), "model")
    save_result(tmp_path / "both.zarr", _effective(233.25, 641.5), "model")
    save_result(tmp_path / "both.zarr", _effective(1.0, 2.0), "another")
    save_result(tmp_path / "one.zarr", _effective(7.5, None), "model")
    (tmp_path / "empty.zarr").mkdir()
    title, *lines = tscope("ls", tmp_path).out.splitlines()
    assert title.split()[3:6] == ["loss", "p_train", "p_test"]
    rows = {line.split()[0]: line.split() for line in lines[:4]}
    assert rows["both.zarr"][4:6] == ["233.2", "641.5"]
    assert rows["one.zarr"][4:6] == ["7.500", "-"]
    assert rows["none.zarr"][4:6] == ["-", "-"]
    assert rows["empty.zarr"][1] == "damaged"
    content = json.loads(tscope("ls", tmp_path, "--json").out)
    found = {Path(entry["path"]).stem: entry for entry in content["traces"]}
    assert (found["both"]["p_train"], found["both"]["p_test"]) == (233.25, 641.5)
    assert (found["one"]["p_train"], found["one"]["p_test"]) == (7.5, None)
    assert (found["none"]["p_train"], found["none"]["p_test"]) == (None, None)


def test_ls_passes_over_a_damaged_result(tscope: Runner, tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "run.zarr", rows=3)
    save_result(trace, _effective(5.0, 6.0), "model")
    newest = save_result(trace, _effective(7.0, 8.0), "model")
    shutil.rmtree(trace / "analysis" / "effective-params" / newest / "p_test" / "c")
    (entry,) = json.loads(tscope("ls", trace, "--json").out)["traces"]
    assert (entry["status"], entry["p_train"], entry["p_test"]) == ("complete", 5.0, 6.0)


def test_a_narrow_terminal_leaves_out_the_parameters(
    tscope: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = write_trace(tmp_path / "a-rather-long-name.zarr", rows=3)
    save_result(trace, _effective(5.0, 6.0), "model")
    monkeypatch.setattr("tscope_cli.ls.is_tty", lambda stream: True)
    for columns, shown in ((120, True), (80, False)):
        monkeypatch.setenv("COLUMNS", str(columns))
        title, line = tscope("ls", trace).out.splitlines()
        assert len(line) <= columns
        assert ("parameters" in title, "p_test" in title) == (shown, True)
