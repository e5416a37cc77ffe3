"""The effective parameters of a saved result, without a screen."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from tscope_format import save_result
from tscope_tui.data.effective import from_result
from tscope_tui.data.run import RunSource
from tscope_tui.data.tail import signature
from tscope_tui.data.telescoping import Choice
from tscope_tui.panes.pane import Draw
from tscope_tui.panes.spread import SpreadPane, binned
from tui_traces import effective_result, finished, save_effective


def test_effective_parameters_of_a_result_are_read(tmp_path):
    path = finished(tmp_path / "run.zarr")
    save_effective(path, every=10, error=0.1)
    found = RunSource(path).load(Choice(), None).effective
    assert found.step.tolist() == list(range(0, 121, 10))
    assert [found.row(step) for step in (-1, 0, 9, 10, 119, 500)] == [0, 0, 0, 1, 11, 12]
    assert found.gap == pytest.approx(found.p["test"] - found.p["train"])
    assert found.gap_bars == pytest.approx(0.05 * found.p["test"])
    assert from_result(effective_result()).gap_bars is None
    step, norms = found.spread(57)
    assert step == 50
    assert 40 / 30 * norms["test"].sum() == pytest.approx(found.p["test"][5], rel=1e-6)
    assert RunSource(path).load(Choice(), None, curves_only=True).effective is None


def test_only_results_of_the_shown_model_count_and_damaged_ones_are_named(tmp_path):
    path = finished(tmp_path / "run.zarr")
    save_effective(path, train=10)
    save_result(path, effective_result(train=20), "another")
    broken = save_effective(path, train=30)
    shutil.rmtree(path / "analysis" / "effective-params" / broken / "p_train" / "c")
    source = RunSource(path)
    for _ in range(2):
        data = source.load(Choice(), None)
        assert data.effective.norms["train"].shape[1] == 10
        assert any(f"saved result {broken}" in text for text in data.problems)


def test_norms_of_a_long_run_are_thinned_to_what_memory_allows(monkeypatch):
    monkeypatch.setattr("tscope_tui.data.effective._NORMS", 1000)
    found = from_result(effective_result(120))
    assert found.norm_rows.tolist() == list(range(0, 121, 9))
    assert found.spread(20)[0] == 18
    assert found.p["train"].size == 121


@pytest.mark.parametrize(
    ("p", "error", "peak"),
    [
        ([0, 5, 3], 0.0, 1),
        ([0, 5, 4.96], 0.0, None),
        ([0, 5, 3], 0.6, None),
        ([0, 3, 5], 0.0, None),
        ([5, 3, 0], 0.0, None),
        ([0, np.nan, 5, 3, np.nan], 0.0, 2),
        ([np.nan, np.nan, 5], 0.0, None),
        ([1], 0.0, None),
        ([], 0.0, None),
    ],
)
def test_a_peak_stands_above_both_ends(p, error, peak):
    values = np.array(p, dtype=float)
    found = replace(
        from_result(effective_result(2)),
        step=np.arange(values.size, dtype=float),
        p={"train": values},
        error={"train": np.full(values.size, error)},
    )
    assert [event.step for event in found.events()] == ([] if peak is None else [peak])


def test_a_saved_result_changes_the_signature(tmp_path):
    path = finished(tmp_path / "run.zarr", 5)
    before = signature(path)
    save_effective(path, 5)
    assert signature(path) != before


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ([0.0, 0.0], [0.0]),
        ([1.0, 1.0], [1.0]),
        ([0.0, 1e-3, 1.0, 100.0], [5.0]),
        ([1.0, 2.0, np.nan], [np.inf, 3.0]),
        ([np.nan], [np.nan]),
        ([], [2.0]),
    ],
)
def test_every_finite_norm_is_in_one_bin(train, test):
    norms = {"train": np.array(train, np.float32), "test": np.array(test, np.float32)}
    edges, shares = binned(norms, 5)
    assert (np.diff(edges) > 0).all()
    for name, values in norms.items():
        finite = np.isfinite(values).sum()
        assert shares[name].sum() * max(1, values.size) == pytest.approx(finite)
    pane = SpreadPane(0, norms, np.arange(len(train)))
    assert all(
        len(pane.lines(width, height, Draw())) == height for width in (4, 20, 60) for height in (2, 3, 9)
    )
