"""`tscope compare`: saved results of several traces side by side."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from cli_results import telescoping
from cli_runner import Runner
from cli_traces import write_trace
from tscope_format import save_result
from tscope_format.amendment import amend


def recorded(path: Path, rate: str, steps: int = 40, *, saved: bool = True) -> Path:
    command = ["python", "train.py", "--lr", rate, "--seed", "0"]
    write_trace(path, rows=5, facts={"command": command})
    if saved:
        save_result(path, replace(telescoping(steps), provenance={"root": "model"}), "model")
    return path


def test_the_last_kept_values_stand_side_by_side_with_what_differs(tscope: Runner, tmp_path: Path) -> None:
    one, two = recorded(tmp_path / "one.zarr", "0.1"), recorded(tmp_path / "two.zarr", "0.2", steps=20)
    outcome = tscope("compare", one, two)
    assert outcome.code == 0, outcome.err
    title, *lines = outcome.out.splitlines()
    assert title.split()[:4] == ["trace", "differs", "in", "step"]
    assert [line.split()[:4] for line in lines] == [
        ["one", "--lr", "0.1", "40"],
        ["two", "--lr", "0.2", "20"],
    ]


def test_results_of_different_options_are_marked(tscope: Runner, tmp_path: Path) -> None:
    traces = [recorded(tmp_path / f"{name}.zarr", "0.1", saved=False) for name in ("one", "two")]
    for path, rule in zip(traces, ("left", "simpson"), strict=True):
        provenance = {"root": "model", "options": {"rule": rule, "replay": True}}
        save_result(path, replace(telescoping(), provenance=provenance), "model")
    lines = tscope("compare", *traces).out.splitlines()
    assert lines[3:] == ["note: computed with different rule: one left, two simpson"]
    listed = json.loads(tscope("compare", *traces, "--json").out)["traces"]
    assert [entry["options"]["rule"] for entry in listed] == ["left", "simpson"]


def test_forks_of_a_run_differ_in_their_step_and_seed(tscope: Runner, tmp_path: Path) -> None:
    one, two = recorded(tmp_path / "one.zarr", "0.1"), recorded(tmp_path / "two.zarr", "0.1")
    amend(two, {"fork": {"step": 8, "seed": 1}})
    listed = json.loads(tscope("compare", one, two, "--json").out)["traces"]
    assert [entry["differs"] for entry in listed] == ["", "fork at 8, seed 1"]


def test_the_same_as_json_and_csv_at_an_earlier_step(tscope: Runner, tmp_path: Path) -> None:
    traces = [recorded(tmp_path / f"{rate}.zarr", rate) for rate in ("0.1", "0.2")]
    outcome = tscope("compare", *traces, "--at", 7, "--json", "--csv", tmp_path / "table.csv")
    listed = json.loads(outcome.out)["traces"]
    expected = float(telescoping().arrays["error_lazy"].data[7])
    assert [entry["differs"] for entry in listed] == ["--lr 0.1", "--lr 0.2"]
    assert [(entry["step"], entry["values"]["error_lazy"]) for entry in listed] == [(7, expected)] * 2
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], float(row["error_lazy"])) for row in rows] == [("7", expected)] * 2


def test_a_missing_result_is_named_and_computed_on_request(tscope: Runner, tmp_path: Path) -> None:
    one = recorded(tmp_path / "one.zarr", "0.1")
    two = recorded(tmp_path / "two.zarr", "0.2", saved=False)
    outcome = tscope("compare", one, two)
    assert outcome.code == 4
    assert outcome.err.count("\n") == 1
    assert f"{two} has no saved result of telescoping; compute it with --compute" in outcome.err
    assert tscope("compare", one, two, "--compute").code == 0
    assert tscope("compare", one, two).code == 0


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (1, (), "compare needs two traces or more, got 1"),
        (2, ("--at", "-1"), "no step up to -1 was kept; the first is 0"),
        (2, ("--csv", "/nowhere/table.csv"), "cannot write /nowhere/table.csv"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(
    tscope: Runner, tmp_path: Path, count: int, options: tuple[str, ...], message: str
) -> None:
    traces = [recorded(tmp_path / f"{k}.zarr", str(k)) for k in range(count)]
    outcome = tscope("compare", *traces, *options)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert message in outcome.err


def test_the_same_trace_twice_is_refused(tscope: Runner, tmp_path: Path) -> None:
    trace = recorded(tmp_path / "one.zarr", "0.1")
    assert "a trace was given twice" in tscope("compare", trace, trace).err
