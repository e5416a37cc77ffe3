"""The programs on a trace of trees."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tree_traces import frame, recorded
from tscope_cli.main import run


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(tmp_path_factory.mktemp("trees") / "t.zarr").path


def test_info_says_what_an_ensemble_is(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", str(path)]) == 0
    said = capsys.readouterr().out
    assert "Stumps, an ensemble of 6 trees" in said
    assert "boosting, depth 2" in said
    assert "6 trees of by hand 1, 30 nodes" in said
    assert "predictions checked: max |Sy − prediction| is " in said
    assert "effective-params: ready" in said
    assert "telescoping: ready" in said
    assert "updates: lacks a network" in said


def test_info_names_what_is_not_exact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = recorded(tmp_path / "t.zarr", frame(penalty=0.4))
    assert run(["info", str(trace.path)]) == 0
    assert "an exact smoother: max |Sy − prediction|" in capsys.readouterr().out
    assert run(["analyze", str(trace.path), "--metric", "effective-params"]) == 1
    assert "the smoother of model is not exact" in capsys.readouterr().err


def test_ls_and_verify_take_an_ensemble_as_any_trace(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ls", str(path)]) == 0
    assert "Stumps" in capsys.readouterr().out
    assert run(["verify", str(path)]) == 0
    assert "30 examples" in capsys.readouterr().out


def test_damage_to_a_leaf_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = recorded(tmp_path / "t.zarr")
    (chunk,) = (tmp_path / "t.zarr/model/trees/leaf/c/0").iterdir()
    damaged = bytearray(chunk.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    chunk.write_bytes(damaged)
    assert run(["verify", str(trace.path)]) == 3
    assert "model/trees/leaf" in capsys.readouterr().out
    assert run(["analyze", str(trace.path), "--metric", "effective-params"]) == 3


def test_metrics_are_analysed_from_the_command_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["analyze", str(path), "--metric", "effective-params", "--json", "--no-save"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["scalars"]["form"] == "leaves"
    assert run(["analyze", str(path), "--metric", "telescoping", "--no-save"]) == 0
    assert "an ensemble of trees: its steps are trees" in capsys.readouterr().out.replace("\n", " ")
    assert run(["analyze", str(path), "--metric", "telescoping", "--rule", "gauss3"]) == 2
    assert run(["analyze", str(path), "--metric", "kernel", "--no-save"]) == 0
    assert "the trees' kernel of the training examples has moved" in capsys.readouterr().out.replace(
        "\n", " "
    )
    assert run(["analyze", str(path), "--metric", "updates"]) == 4


def test_the_browser_reads_an_ensemble(tmp_path: Path) -> None:
    from tscope_tui.data.facts import facts_at
    from tscope_tui.data.run import RunSource
    from tscope_tui.data.telescoping import Choice

    import tscope

    path = recorded(tmp_path / "t.zarr").path
    bare = RunSource(path).load(Choice(), None)
    assert bare.problems == ()
    assert bare.effective_lacks == bare.kernel_lacks == ()
    assert bare.updates_lacks == ("it holds an ensemble of trees, which has no optimizer",)
    for metric, options in (("telescoping", {}), ("effective-params", {}), ("kernel", {"matrix": "0,last"})):
        tscope.analyze(path, metric, **options)
    data = RunSource(path).load(Choice(), None)
    assert data.problems == ()
    assert data.steps.rows == 7
    assert data.kernel is not None
    assert data.kernel.matrices is not None
    assert data.effective is not None
    assert data.telescoping is not None
    facts = dict(facts_at(path))
    assert facts["model"] == "Stumps, 6 trees"
    assert facts["has"].startswith("loss, every tree, and the leaf of each example, probe probe")
    assert "lacks" not in facts
    wrong = recorded(tmp_path / "w.zarr", frame(penalty=0.4)).path
    assert dict(facts_at(wrong))["lacks"].startswith("an exact smoother (max |Sy − prediction|")
