"""What the reading commands say of a trace that is none, is newer, or is damaged: one line, exit code 3."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runner import Runner
from cli_traces import write_trace

READERS = [("info",), ("analyze",), ("verify",), ("info", "--json"), ("analyze", "--json")]


def chunk_of(trace: Path, array: str) -> Path:
    """Return the first chunk of an array of the trace's model."""
    return sorted(path for path in (trace / "model" / array / "c").rglob("*") if path.is_file())[0]


def truncate(chunk: Path) -> None:
    chunk.write_bytes(chunk.read_bytes()[:-5])


def remove(chunk: Path) -> None:
    chunk.unlink()


def flip(chunk: Path) -> None:
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 0x10
    chunk.write_bytes(content)


@pytest.mark.parametrize("command", READERS)
def test_something_else_is_not_a_trace(tscope: Runner, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "file.txt").write_text("hello")
    (tmp_path / "folder").mkdir()
    for name in ("file.txt", "folder", "nowhere"):
        outcome = tscope(*command, tmp_path / name)
        assert outcome.code == 3
        said = (outcome.out + outcome.err).splitlines()
        assert len(said) == 1
        assert str(tmp_path / name) in said[0]


@pytest.mark.parametrize("command", READERS)
def test_a_newer_format_is_refused_by_name(tscope: Runner, tmp_path: Path, command: tuple[str, ...]) -> None:
    trace = write_trace(tmp_path / "run.zarr", rows=3)
    record = json.loads((trace / "zarr.json").read_text())
    record["attributes"]["tscope"]["format"] = 7
    (trace / "zarr.json").write_text(json.dumps(record))
    outcome = tscope(*command, trace)
    assert outcome.code == 3
    (line,) = (outcome.out + outcome.err).splitlines()
    assert str(trace) in line
    assert "7" in line


@pytest.mark.parametrize("damage", [truncate, remove, flip])
def test_verify_names_the_array_and_the_rows(tscope: Runner, tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    good, trace = write_trace(tmp_path / "good.zarr"), write_trace(tmp_path / "run.zarr")
    damage(chunk_of(trace, "theta/update"))
    outcome = tscope("verify", good, trace)
    assert (outcome.code, outcome.err) == (3, "")
    first, second, _, problem, *_ = outcome.out.splitlines()
    assert first.startswith(f"ok   {good}: ")
    assert second.startswith(f"BAD  {trace}: ")
    assert problem.split()[0] == "model/theta/update"
    assert problem.split()[1].startswith("0-")


@pytest.mark.parametrize("damage", [truncate, remove, flip])
def test_analyze_and_info_name_the_array_and_the_rows(tscope: Runner, tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    for command, array in (("analyze", "probe/heldout/output"), ("info", "loss")):
        trace = write_trace(tmp_path / f"{command}.zarr")
        damage(chunk_of(trace, array))
        outcome = tscope(command, trace)
        assert (outcome.code, outcome.out) == (3, "")
        (line,) = outcome.err.splitlines()
        assert line.startswith("tscope: ")
        assert str(trace) in line
        assert array in line
        assert "row" in line


def test_a_sound_trace_verifies(tscope: Runner, tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "run.zarr")
    outcome = tscope("verify", trace)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"ok   {trace}: ")
    assert tscope("verify", "--quiet", trace).out == ""


def test_verify_json_lists_the_problems(tscope: Runner, tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "run.zarr")
    remove(chunk_of(trace, "loss"))
    outcome = tscope("verify", "--json", trace, tmp_path / "nowhere")
    assert outcome.code == 3
    content = json.loads(outcome.out)
    assert content["schema"] == 1
    bad, nowhere = content["traces"]
    assert (bad["path"], bad["ok"]) == (str(trace), False)
    assert bad["problems"][0]["where"] == "model/loss"
    assert bad["problems"][0]["what"]
    assert (nowhere["ok"], bool(nowhere["error"])) == (False, True)
