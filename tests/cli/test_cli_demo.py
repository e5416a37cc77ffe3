"""`tscope demo`: the whole path, through the real recorder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tscope_cli import demo
from tscope_format import RecordError, list_results, load_result, open_trace


@pytest.fixture
def in_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_demo_records_telescopes_and_says_what_to_look_at(in_a_new_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tscope_cli", "demo"], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    (trace,) = (in_a_new_folder / "runs").glob("demo-*.zarr")
    assert open_trace(trace).status == "complete"
    assert len(list_results(trace)) == 1
    scalars = load_result(trace, "telescoping").scalars
    assert float(scalars["final_error_telescoped"] or 0) < 0.1 * float(scalars["final_error_lazy"] or 0)
    assert re.search(r"accuracy (1\.000|0\.9[5-9]\d)", done.stdout)
    assert f"tscope browse runs/{trace.name} " in done.stdout


def test_a_demo_that_cannot_be_recorded_says_so(in_a_new_folder: Path) -> None:
    (in_a_new_folder / "taken.zarr").write_text("")
    with pytest.raises(RecordError, match=r"^the demo could not be recorded: .* ended with exit code 125$"):
        demo.demo(Path("taken.zarr"))


def test_a_fresh_name_is_taken_by_nothing(in_a_new_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda _: "20260101-000000")
    first = demo.fresh_name(Path("runs"))
    first.mkdir(parents=True)
    second = demo.fresh_name(Path("runs"))
    assert (first.name, second.name) == ("demo-20260101-000000.zarr", "demo-20260101-000000-2.zarr")


def test_the_advice_starts_the_environment_where_the_shell_does_not_find_tscope(
    in_a_new_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (in_a_new_folder / ".venv" / "bin").mkdir(parents=True)
    (in_a_new_folder / ".venv" / "bin" / "activate").touch()
    monkeypatch.setattr("sys.prefix", str(in_a_new_folder / ".venv"))
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert any(line.startswith("   . .venv/bin/activate  ") for line in demo._advice(Path("a.zarr")))
    monkeypatch.setattr("shutil.which", lambda _: "bin/tscope")
    assert not any("activate" in line for line in demo._advice(Path("a.zarr")))
