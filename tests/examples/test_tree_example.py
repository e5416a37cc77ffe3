"""The example that fits trees: bare and recorded it says the same, and its trace can be analysed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from recorded_example import EXAMPLES

import tscope


@pytest.mark.slow
def test_trees_are_recorded_unnoticed(tmp_path: Path) -> None:
    script = [sys.executable, str(EXAMPLES / "train_gbt.py"), "--trees", "60"]
    recorder = [sys.executable, "-m", "tscope_cli", "record", "-o", str(tmp_path / "t.zarr"), "--"]
    bare, recorded = (
        subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=200)
        for command in (script, [*recorder, *script])
    )
    assert recorded.stdout == bare.stdout != ""
    assert all(line.startswith("tscope: ") for line in recorded.stderr.splitlines())
    trace = tscope.open(tmp_path / "t.zarr")
    assert trace.roots == ("model", "randomforestregressor")
    for root in trace.roots:
        result = tscope.analyze(trace, "effective-params", root=root, save=False)
        p = result.scalars["p_train"]
        assert isinstance(p, float)
        assert 1 < p < 300
