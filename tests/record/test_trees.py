"""Ensembles of trees are recorded as they are fitted, against the library and slow oracles."""

from __future__ import annotations

import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from record_scripts import environment, python, record, said
from tree_scripts import BOOSTERS, SKLEARN
from tscope_format import open_trace, verify

import tscope
from tests.reference import trees as reference
from tscope.boosting import Ensemble, follow, outputs

Values = NDArray[np.float64]


class Recorded:
    """A recorded script, and what it says of itself."""

    def __init__(self, folder: Path, text: str) -> None:
        (folder / "train.py").write_text(text)
        self.done = record(folder, "-o", "t.zarr", *python("train.py", "models.pickle"))
        self.path = folder / "t.zarr"
        self.folder = folder

    @property
    def trace(self) -> tscope.Trace:
        return tscope.open(self.path)

    def smoother(self, name: str) -> tuple[Ensemble, list[Values], list[Values]]:
        """Return an ensemble, and after each tree S and the outputs at the training and held-out rows."""
        root = self.trace.root(name)
        ensemble = Ensemble.read(root)
        leaf = np.concatenate([ensemble.leaf, root.reader.read("probe/heldout/leaf", 1)], axis=1)
        eye = np.eye(ensemble.examples)
        S = [F.copy() for F in follow(ensemble, leaf, eye, constant=False)]
        return ensemble, S, list(outputs(ensemble, leaf))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("trees"), SKLEARN)


@pytest.fixture(scope="module")
def fitted(run: Recorded) -> Any:
    with (run.folder / "models.pickle").open("rb") as file:
        return pickle.load(file)


def test_the_script_notices_nothing(run: Recorded) -> None:
    bare = subprocess.run(
        [sys.executable, "train.py"],
        cwd=run.folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert bare.returncode == run.done.returncode == 7
    assert bare.stdout == run.done.stdout  # with the state of both random generators
    assert bare.stdout.endswith(" []\n"), "torch was loaded"
    assert bare.stderr == ""


ROOTS = {
    "model": 50,
    "gradientboostingregressor": 45,  # early stopping sets five aside
    "gradientboostingregressor_2": 50,
    "randomforestregressor": 50,
    "randomforestclassifier": 50,
    "extratreesregressor": 50,
    "histgradientboostingregressor": 50,
}


def test_every_exact_ensemble_is_a_root(run: Recorded) -> None:
    reader = open_trace(run.path)
    # Then the one that an `init` is, and the first fit of a warm start, which is like any other.
    later = ["gradientboostingregressor_3", "gradientboostingregressor_4"]
    assert list(reader.facts["rows"]) == [*ROOTS, *later]
    for name, examples in ROOTS.items():
        root = reader.root(name)
        assert root.attributes["kind"] == "trees"
        assert root.attributes["check"]["problem"] is None
        assert root.read("trees/leaf").shape == (root.rows, examples)
        assert root.read("examples/input/0").shape == (examples, 4)
        assert root.read("probe/heldout/input/0").shape == (70 - examples, 4)
    assert verify(run.path).ok
    assert "9 models" in said(run.done)[-2]


def _weights(model: Any, w: Values, counts: Values | None) -> list[Values]:
    trees = len(model.estimators_)
    return [w if counts is None else w * counts[k] for k in range(trees)]


def _draws(model: Any, n: int) -> Values:
    return np.array([np.bincount(rows, minlength=n) for rows in model.estimators_samples_], float)


def test_smoothers_equal_slow_ones_after_every_tree(run: Recorded, fitted: Any) -> None:
    X, _, w, _, gaps, models = fitted
    rows, ones = X.astype(np.float32), np.ones(50)
    train, own = rows[:50], w[:50]
    with_gaps = gaps.astype(np.float32)
    masks = run.trace.root("model").reader.read("trees/sample", 1).astype(float)
    expected = {}
    model = models["model"]
    members = model.estimators_[:, 0]
    expected["model"] = reference.boosting(members, 0.1, rows, train, _weights(model, ones, masks), ones)
    model = models["gradientboostingregressor_2"]
    weights = _weights(model, own, None)
    expected["gradientboostingregressor_2"] = reference.boosting(
        model.estimators_[:, 0], 0.1, rows, train, weights, own
    )
    model = models["randomforestregressor"]
    weights = _weights(model, ones, _draws(model, 50))
    expected["randomforestregressor"] = reference.forest(model.estimators_, rows, train, weights)
    model = models["randomforestclassifier"]
    weights = _weights(model, ones, _draws(model, 50))
    expected["randomforestclassifier"] = reference.forest(
        model.estimators_, with_gaps, with_gaps[:50], weights
    )
    model = models["extratreesregressor"]
    expected["extratreesregressor"] = reference.forest(
        model.estimators_, rows, train, _weights(model, own, None)
    )
    for name, slow in expected.items():
        _, S, _ = run.smoother(name)
        assert len(S) == len(slow), name
        assert max(np.abs(one - other).max() for one, other in zip(S, slow, strict=True)) < 1e-13, name


@pytest.mark.parametrize("name", ROOTS)
def test_the_smoother_gives_the_librarys_predictions(run: Recorded, fitted: Any, name: str) -> None:
    X, y, _, classes, gaps, models = fitted
    model = models[name]
    ensemble, S, own = run.smoother(name)
    inputs = run.trace.root(name)["examples/input/0"]
    rows = gaps if np.isnan(inputs).any() else X
    if name == "gradientboostingregressor":
        order = [int(np.flatnonzero((X.astype(np.float32) == row).all(1))[0]) for row in inputs]
        rest = sorted(set(range(70)) - set(order))
        target, predictions = y[order, None], model.predict(X[order + rest])[:, None]
    elif name == "randomforestclassifier":
        target = (classes[:50, None] == model.classes_).astype(float)
        predictions = model.predict_proba(rows)
    else:
        target = y[:50, None] if name != "randomforestregressor" else np.stack([y[:50], y[:50] ** 2], 1)
        predictions = model.predict(rows).reshape(70, -1)
    assert np.array_equal(ensemble.target, target)
    # scikit-learn's gradients are float64, but those of its histograms float32.
    tolerance = 1e-12 if name != "histgradientboostingregressor" else 1e-5
    scale = np.abs(target).max()
    assert np.abs(S[-1] @ target - predictions).max() <= tolerance * scale
    assert np.abs(own[-1] - predictions).max() <= 1e-14 * scale


def test_a_naive_smoother_without_the_subsamples_would_be_wrong(run: Recorded, fitted: Any) -> None:
    X, y, *_, models = fitted
    rows, ones = X.astype(np.float32), np.ones(50)
    model = models["model"]
    naive = reference.boosting(
        model.estimators_[:, 0], 0.1, rows, rows[:50], _weights(model, ones, None), ones
    )
    assert np.abs(naive[-1] @ y[:50] - model.predict(X)).max() > 0.01


def test_what_is_not_exact_is_refused_by_name(run: Recorded) -> None:
    reports = {(report["where"], report["error"]) for report in open_trace(run.path).facts["reports"]}
    refused = {
        ("GradientBoostingRegressor", "with loss 'huber' a leaf's value is not linear"),
        ("GradientBoostingRegressor", "how init=GradientBoostingRegressor depends on the labels"),
        ("GradientBoostingRegressor", "with warm_start earlier trees"),
        ("GradientBoostingClassifier", "with loss 'log_loss' a leaf's value is not linear"),
        ("RandomForestRegressor", "with criterion absolute_error leaves are medians"),
        ("RandomForestRegressor", "monotonic_cst clips"),
        ("RandomForestClassifier", "class_weight makes the weights"),
        ("HistGradientBoostingRegressor", "the rows that early_stopping sets aside"),
        ("HistGradientBoostingRegressor", "with loss 'absolute_error' a leaf's value"),
        ("HistGradientBoostingClassifier", "with loss 'log_loss' a leaf's value"),
    }
    assert len(reports) == len(refused)
    for where, why in refused:
        assert any(w == where and e.startswith(f"not recorded: {why}") for w, e in reports), (where, why)


@pytest.mark.skipif(
    not (find_spec("xgboost") and find_spec("lightgbm")),
    reason="the dev extra's xgboost-cpu (Linux only) and lightgbm are not installed",
)
def test_boosters_in_float32_are_recorded_or_refused(tmp_path: Path) -> None:
    run = Recorded(tmp_path, BOOSTERS)
    assert run.done.returncode == 0, run.done.stderr
    assert run.done.stdout.endswith(" []\n"), "torch was loaded"
    reader = open_trace(run.path)
    assert list(reader.facts["rows"]) == ["model", "booster", "booster_2", "booster_3", "booster_4"]
    for name in reader.roots:
        root = reader.root(name)
        check = root.attributes["check"]
        assert check["problem"] is None, name
        assert check["largest"] <= 1e-5 * 14, name
        assert root.rows == (reader.facts["rows"][name])
        assert ("heldout" in root.probes) == (name != "booster"), name
    assert 2 < reader.root("booster_2").rows < 61  # stopped early
    reports = [f"{report['where']} {report['error']}" for report in reader.facts["reports"]]
    for expected in (
        "xgboost not recorded: subsample=0.5 draws rows",
        "xgboost not recorded: alpha=1.0 shrinks",
        "xgboost not recorded: with objective binary:logistic",
        "xgboost not recorded: booster dart",
        "xgboost not recorded: a QuantileDMatrix holds quantiles",
        "lightgbm not recorded: bagging_fraction=0.5 draws rows",
        "lightgbm not recorded: lambda_l1=1 shrinks",
        "lightgbm not recorded: with objective binary",
        "lightgbm not recorded: boosting=dart",
    ):
        assert sum(report.startswith(expected) for report in reports) == 1, (expected, reports)
    assert len(reports) == 9
