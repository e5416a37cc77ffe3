"""What the observer of trees does when something is not as it expects."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fake_parent import run

FORKS = """
import os
import numpy as np
from sklearn.ensemble import GradientBoostingRegressor
X = np.random.default_rng(0).normal(size=(40, 3))
def fit(rows):
    return GradientBoostingRegressor(n_estimators=2, random_state=0).fit(rows, rows[:, 0])
fit(X)
if os.fork() == 0:
    fit(X[:20])
    os._exit(0)
os.wait()
try:
    fit(X[:0])
except ValueError:
    print("refused by scikit-learn")
os.closerange(3, 64)
mine = open("mine", "wb")
model = fit(X[:30])
print(model.predict(X[:1]).shape, os.path.getsize("mine"))
"""


@pytest.mark.slow
def test_workers_failed_fits_and_a_closed_connection(tmp_path: Path) -> None:
    (tmp_path / "fit.py").write_text(FORKS)
    done = run([sys.executable, "fit.py"], cwd=tmp_path)
    assert (done.code, done.stdout) == (0, "refused by scikit-learn\n(1,) 0\n")
    # That of the forked child and those after the script closed the connection are not there.
    (trees,) = done.of("trees")
    assert trees.arrays["input"].shape == (40, 3)
    assert trees["rule"] == "boosting"
    assert len(done.of("hello")) == 1
    assert done.stderr.count("tscope: the recorder: the script closed the connection to it") == 1


def test_a_library_that_lacks_what_is_replaced_is_reported(tmp_path: Path) -> None:
    package = tmp_path / "sklearn" / "ensemble"
    package.mkdir(parents=True)
    (tmp_path / "sklearn" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "_gb.py").write_text("import numpy\nclass BaseGradientBoosting: pass\n")
    done = run([sys.executable, "-c", "import sklearn.ensemble._gb; print('went on')"], cwd=tmp_path)
    assert (done.code, done.stdout, done.stderr) == (0, "went on\n", "")
    (report,) = done.of("report")
    assert report["where"] == "sklearn.ensemble._gb"
    assert "AttributeError" in report["error"]
    assert report["failed"] is True


@pytest.mark.slow
def test_without_a_recorder_the_script_goes_on(tmp_path: Path) -> None:
    (tmp_path / "fit.py").write_text(FORKS.partition("if os.fork")[0] + "print('fitted')\n")
    done = run([sys.executable, "fit.py"], cwd=tmp_path, stop_after=0)
    assert (done.code, done.stdout) == (0, "fitted\n")
