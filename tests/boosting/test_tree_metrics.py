"""Metrics of an ensemble of trees: effective parameters and telescoping, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tree_traces import HELD, TRAIN, TREES, data, frame, recorded
from tscope_format.errors import AnalysisError, MissingDataError, UsageError

import tscope
from tscope.boosting import Ensemble, follow


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> tscope.Trace:
    return recorded(tmp_path_factory.mktemp("trees") / "t.zarr")


def _smoother(trace: tscope.Trace) -> list[np.ndarray]:
    ensemble = Ensemble.read(trace)
    leaf = np.concatenate([ensemble.leaf, trace.reader.read("probe/probe/leaf", 1)], axis=1)
    return [F.copy() for F in follow(ensemble, leaf, np.eye(TRAIN), constant=False)]


def test_effective_parameters_are_the_squares_of_the_smoother(trace: tscope.Trace) -> None:
    result = tscope.analyze(trace, "effective-params", smoother="0,3,6")
    S = _smoother(trace)
    train = [np.square(F[:TRAIN]).sum() for F in S]
    held = [np.square(F[TRAIN:]).sum() * TRAIN / HELD for F in S]
    assert np.allclose(result.arrays["p_train"].data, train, rtol=1e-14)
    assert np.allclose(result.arrays["p_test"].data, held, rtol=1e-14)
    assert np.allclose(result.arrays["gap"].data, np.subtract(held, train), rtol=1e-12)
    assert result.scalars["exact"] is True
    check = result.scalars["prediction_check"]
    assert isinstance(check, float)
    assert check < 1e-14
    for place, step in enumerate(result.arrays["smoother_step"].data):
        for part, rows in (("train", slice(0, TRAIN)), ("test", slice(TRAIN, None))):
            kept = result.arrays[f"smoother_{part}"].data[place]
            assert kept.shape == (len(S[step][rows]), 1, TRAIN, 1)
            assert np.array_equal(kept[:, 0, :, 0], S[step][rows])
    assert result.arrays["norms_test"].data.shape == (TREES + 1, HELD)


def test_passes_over_the_columns_give_the_same(trace: tscope.Trace) -> None:
    whole = tscope.analyze(trace, "effective-params", save=False)
    parts = tscope.analyze(trace, "effective-params", save=False, max_memory_mb=0.006)
    passes = parts.scalars["passes"]
    assert isinstance(passes, int)
    assert passes > 1
    for name in ("p_train", "p_test", "norms_train"):
        assert np.allclose(whole.arrays[name].data, parts.arrays[name].data, rtol=1e-14)


def test_rows_and_held_out_examples_can_be_fewer(trace: tscope.Trace) -> None:
    result = tscope.analyze(trace, "effective-params", save=False, every=4, test=5, seed=1)
    S = _smoother(trace)
    assert result.arrays["step"].data.tolist() == [0, 4, 6]
    drawn = np.sort(np.random.default_rng(1).choice(HELD, 5, replace=False)) + TRAIN
    expected = [np.square(S[t][drawn]).sum() * TRAIN / 5 for t in (0, 4, 6)]
    assert np.allclose(result.arrays["p_test"].data, expected, rtol=1e-14)


def test_rows_that_came_after_the_run_are_looked_up_in_the_trees(trace: tscope.Trace, tmp_path: Path) -> None:
    held = np.nan_to_num(data()[2])
    np.savez(tmp_path / "later.npz", x=held)
    result = tscope.analyze(trace, "effective-params", save=False, probe=str(tmp_path / "later.npz"))
    ensemble = Ensemble.read(trace)
    leaf = np.concatenate([ensemble.leaf, ensemble.nodes.leaves(held)], axis=1)
    *_, S = follow(ensemble, leaf, np.eye(TRAIN), constant=False)
    assert result.scalars["p_test"] == pytest.approx(np.square(S[TRAIN:]).sum() * TRAIN / HELD, rel=1e-14)


def test_telescoping_of_trees_is_exact_and_lazy_keeps_the_first_tree(trace: tscope.Trace) -> None:
    result = tscope.analyze(trace, "telescoping")
    assert np.abs(result.arrays["error_telescoped"].data).max() < 1e-14
    ensemble = Ensemble.read(trace)
    leaf = np.concatenate([ensemble.leaf, trace.reader.read("probe/probe/leaf", 1)], axis=1)
    lazy = follow(ensemble, leaf, ensemble.target, constant=True, tree=0)
    assert np.allclose(result.arrays["lazy"].data, [F[TRAIN:] for F in map(np.copy, lazy)], atol=1e-14)
    assert np.array_equal(result.arrays["lazy"].data[1], result.arrays["telescoped"].data[1])
    assert result.arrays["error_lazy"].data[-1] > 0.01
    stored = trace["probe/probe/output"]
    assert np.abs(stored - result.arrays["actual"].data).max() < 1e-6  # held in float32


def test_several_outputs_share_a_smoother(tmp_path: Path) -> None:
    trace = recorded(tmp_path / "t.zarr", frame("forest", 3))
    result = tscope.analyze(trace, "effective-params", save=False)
    S = _smoother(trace)
    assert result.scalars["p_train"] == pytest.approx(np.square(S[-1][:TRAIN]).sum(), rel=1e-14)
    assert any("the 3 outputs have the same smoother" in note for note in result.notes)


@pytest.mark.parametrize(
    ("metric", "options", "message"),
    [
        ("effective-params", {"form": "kernel"}, "takes no form: its smoother is exact"),
        ("effective-params", {"decay": "frozen", "workers": 2}, "takes no decay, workers"),
        ("effective-params", {"smoother": "7"}, "step 7 is not in the trace; it holds steps 0 to 6"),
        ("effective-params", {"test": 13}, "test is 13, but probe set probe has 12 examples"),
        ("telescoping", {"rule": "simpson"}, "takes no rule: its steps are trees"),
        ("telescoping", {"dtype": "float64"}, "takes no dtype"),
    ],
)
def test_options_without_a_meaning_are_refused(
    trace: tscope.Trace, metric: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        tscope.analyze(trace, metric, save=False, **options)


def test_what_does_not_fit_in_memory_is_refused(trace: tscope.Trace) -> None:
    with pytest.raises(AnalysisError, match=r"of the 0.001 MB allowed .*keep fewer"):
        tscope.analyze(trace, "effective-params", save=False, max_memory_mb=0.001)


def test_metrics_of_networks_are_refused(trace: tscope.Trace) -> None:
    with pytest.raises(
        MissingDataError, match=r"what updates needs: a network\. The trace holds an ensemble"
    ):
        tscope.analyze(trace, "updates")


def test_a_smoother_that_does_not_give_the_predictions_is_an_error(tmp_path: Path) -> None:
    wrong = frame(penalty=0.4)
    trace = recorded(tmp_path / "t.zarr", wrong, probe=False)
    check = trace.reader.attributes["check"]
    assert check["largest"] > 1e-3
    for metric in ("effective-params", "telescoping"):
        with pytest.raises(
            AnalysisError, match=r"the smoother of model is not exact: max \|Sy − prediction\|"
        ):
            tscope.analyze(trace, metric, probe=None if metric != "telescoping" else _rows(tmp_path))


def _rows(folder: Path) -> str:
    np.savez(folder / "rows.npz", x=np.nan_to_num(data()[2]))
    return str(folder / "rows.npz")
