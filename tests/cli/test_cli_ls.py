"""`tscope ls`: the traces of a folder, damaged ones included."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_runner import Runner
from cli_traces import write_trace


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
