"""The recursion of an ensemble against one example at a time, and against labels that are changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tree_traces import HELD, PENALTY, RATE, TRAIN, TREES, data, frame, recorded, tree, walk
from tscope_format.errors import TraceError

from tscope.boosting import Ensemble, Nodes, follow, outputs


@pytest.fixture(params=["boosting", "forest"])
def rule(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _points(path: Path, rule: str, count: int = 1) -> tuple[Ensemble, np.ndarray]:
    trace = recorded(path, frame(rule, count))
    ensemble = Ensemble.read(trace)
    return ensemble, np.concatenate([ensemble.leaf, trace.reader.read("probe/probe/leaf", 1)], axis=1)


def test_leaves_are_those_of_a_walk(tmp_path: Path) -> None:
    ensemble, leaf = _points(tmp_path / "t.zarr", "boosting")
    inputs, _, held = data()
    rows = np.concatenate([inputs, held])
    assert np.isnan(rows).any()
    slow = [[walk(row, tree(number)) for row in rows] for number in range(TREES)]
    assert np.array_equal(leaf, slow)
    assert np.array_equal(ensemble.nodes.leaves(rows), slow)


def test_the_smoother_is_the_sum_over_leaves(tmp_path: Path, rule: str) -> None:
    ensemble, leaf = _points(tmp_path / "t.zarr", rule)
    weight, sample = ensemble.weight, ensemble.sample
    assert weight is not None
    assert sample is not None
    n, eye = TRAIN, np.eye(TRAIN)
    S = np.tile(weight / weight.sum(), (n + HELD, 1)) if rule == "boosting" else np.zeros((n + HELD, n))
    for t, found in enumerate(follow(ensemble, leaf, eye, constant=False)):
        if t:
            V = np.zeros((n + HELD, n))
            own = weight * sample[t - 1]
            for x in range(n + HELD):
                inside = leaf[t - 1][:n] == leaf[t - 1][x]
                total = own[inside].sum() + (PENALTY if rule == "boosting" else 0.0)
                V[x, inside] = own[inside] / total if total > 0 else 0.0
            S = S + RATE * V @ (eye - S[:n]) if rule == "boosting" else S + (V - S) / t
        assert np.abs(found - S).max() < 1e-14
    assert t == TREES


def test_columns_do_not_depend_on_each_other(tmp_path: Path, rule: str) -> None:
    ensemble, leaf = _points(tmp_path / "t.zarr", rule)
    eye = np.eye(TRAIN)
    whole = [F.copy() for F in follow(ensemble, leaf, eye, constant=False)]
    parts = [
        [F.copy() for F in follow(ensemble, leaf, eye[:, k : k + 7], constant=False)]
        for k in range(0, TRAIN, 7)
    ]
    for t, S in enumerate(whole):
        assert np.array_equal(np.concatenate([part[t] for part in parts], axis=1), S)


def test_of_labels_it_gives_the_predictions_after_every_tree(tmp_path: Path, rule: str) -> None:
    ensemble, leaf = _points(tmp_path / "t.zarr", rule, count=2)
    pairs = zip(follow(ensemble, leaf, ensemble.target, constant=True), outputs(ensemble, leaf), strict=True)
    for smoothed, own in pairs:
        assert np.abs(smoothed - own).max() < 1e-14


def test_changed_labels_change_predictions_by_the_smoother(tmp_path: Path, rule: str) -> None:
    ensemble, leaf = _points(tmp_path / "t.zarr", rule)
    shift = np.random.default_rng(3).normal(size=(TRAIN, 1))
    S = [F.copy() for F in follow(ensemble, leaf, np.eye(TRAIN), constant=False)]
    before = [F.copy() for F in follow(ensemble, leaf, ensemble.target, constant=True)]
    after = follow(ensemble, leaf, ensemble.target + shift, constant=True)
    for t, F in enumerate(after):
        assert np.abs(F - before[t] - S[t] @ shift).max() < 1e-13


def test_rows_of_the_smoother_sum_to_one_without_penalty(tmp_path: Path) -> None:
    ensemble, leaf = _points(tmp_path / "t.zarr", "forest")
    own = ensemble.weights(0)
    S = [F.copy() for F in follow(ensemble, leaf, np.eye(TRAIN), constant=False)][1]
    known = np.array([own[leaf[0][:TRAIN] == at].sum() > 0 for at in leaf[0]])
    assert np.abs(S[known].sum(1) - 1).max() < 1e-14


def test_a_constant_base_is_no_part_of_the_smoother(tmp_path: Path) -> None:
    made = frame("forest", base_value=[2.0])
    trace = recorded(tmp_path / "t.zarr", made, probe=False)
    assert trace.reader.attributes["check"]["problem"] is not None  # a forest does not begin anywhere
    fields = {**made.fields, "rule": "boosting", "base": "constant"}
    arrays = {name: blob.array for name, blob in made.blobs.items()}
    ensemble = Ensemble.of(fields, arrays)
    first = next(follow(ensemble, ensemble.leaf, ensemble.target, constant=True))
    assert np.array_equal(first, np.full((TRAIN, 1), 2.0))
    assert not next(follow(ensemble, ensemble.leaf, np.eye(TRAIN), constant=False)).any()


def test_nodes_that_form_no_tree_are_refused() -> None:
    arrays = {name.removeprefix("node/"): blob.array for name, blob in frame().blobs.items()}
    names = ("start", "feature", "threshold", "left", "right", "missing_left", "value")
    good = {name: arrays[name] for name in names}
    backwards = good["left"].copy()
    backwards[2] = 0  # a loop: a walk would not end
    for change in ({"left": backwards}, {"feature": good["feature"] + 3}):
        with pytest.raises(TraceError, match="form no tree over 3 features"):
            Nodes(**{**good, **change}).leaves(data()[0])
