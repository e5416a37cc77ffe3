"""The sweep of learning rates, at its quick size: recorded, replayed, drawn."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from recorded_example import EXAMPLES


@pytest.mark.slow
def test_telescoped_errors_are_orders_below_lazy_ones_at_small_rates(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "learning_rates.py"), "--quick", "--out", str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "learning_rates.csv").open() as file:
        rows = list(csv.DictReader(file))
    last = {(row["optimizer"], row["lr"]): row for row in rows if row["step"] == "200"}
    assert set(last) == {("sgd", "0.01"), ("momentum", "0.001"), ("adamw", "0.001")}
    for row in last.values():
        assert float(row["error_telescoped"]) < float(row["error_lazy"])
    momentum = last["momentum", "0.001"]
    assert float(momentum["error_telescoped"]) < 0.02 * float(momentum["error_lazy"])
    assert (tmp_path / "learning_rates.svg").stat().st_size > 0
