"""The tangent kernel of a saved result, its map and its spectrum, without a screen."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from tscope_format import Array
from tscope_tui.data.kernel import Matrices, from_result
from tscope_tui.data.run import RunSource
from tscope_tui.data.telescoping import Choice
from tscope_tui.panes.box import Look
from tscope_tui.panes.heat import HeatPane, shrunk
from tscope_tui.panes.pane import Draw
from tscope_tui.panes.spectrum import spectrum_pane
from tscope_tui.spans import plain
from tui_traces import finished, kernel_result, save_kernel


def matrices(pairs: np.ndarray) -> Matrices:
    points = len(pairs)
    return Matrices(
        np.array([0]), pairs[None].astype(np.float32), points, np.arange(points), np.full(points, np.nan)
    )


def test_a_kernel_is_read_with_its_points_ordered_by_label(tmp_path):
    path = finished(tmp_path / "run.zarr")
    save_kernel(path)
    data = RunSource(path).load(Choice(), None)
    found = data.kernel.matrices
    assert found.step.tolist() == [0, 120]
    assert found.label.tolist() == [0] * 6 + [1] * 6 + [0] * 4 + [1] * 4
    assert found.numbers.tolist()[:3] == [100, 102, 104]
    assert (found.name(0), found.name(19)) == ("train #100 y 0", "held-out #7 y 1")
    # The mean over outputs of the diagonal blocks, 1 within a class and 0 between, up to the noise.
    assert found.pairs[0, :6, :6] == pytest.approx(1, abs=0.05)
    assert found.pairs[0, :6, 6:12] == pytest.approx(0, abs=0.05)
    assert found.pairs[1, 0, 1] == pytest.approx(2.2, abs=0.05)
    assert found.rank(0, 0, 6) < 0.5 < found.rank(0, 0, 1)
    assert [found.at(step) for step in (-1, 0, 119, 120, 999)] == [0, 0, 0, 1, 1]
    assert RunSource(path).load(Choice(), None, curves_only=True).kernel is None


def test_labels_of_one_output_order_by_value_and_missing_ones_leave_the_order():
    one = from_result(kernel_result(outputs=1)).matrices
    assert one.label.tolist() == [-1] * 6 + [1] * 6 + [-1] * 4 + [1] * 4
    none = from_result(kernel_result(labels=False)).matrices
    assert none.numbers.tolist() == [*range(100, 112), *range(8)]
    assert none.name(0) == "train #100"


def test_the_jump_of_the_alignment_is_an_event():
    found = from_result(kernel_result())
    assert [(event.step, event.kind, event.text) for event in found.events()] == [
        (60, "K", "kernel alignment +0.50")
    ]
    assert from_result(kernel_result(labels=False)).events() == []
    smooth = replace(found, series={**found.series, "alignment_train": np.linspace(0, 0.5, found.step.size)})
    assert smooth.events() == []


def test_a_damaged_result_is_named_and_the_one_before_it_shown(tmp_path):
    path = finished(tmp_path / "run.zarr")
    save_kernel(path, train=10)
    broken = save_kernel(path, train=6)
    shutil.rmtree(path / "analysis" / "kernel" / broken / "eigenvalues_train" / "c")
    data = RunSource(path).load(Choice(), None)
    assert data.kernel.matrices.train == 10
    assert any(f"saved result {broken}" in text for text in data.problems)


def test_a_result_that_lacks_an_array_is_no_kernel():
    result = kernel_result()
    arrays = {name: array for name, array in result.arrays.items() if name != "distance_train"}
    with pytest.raises(KeyError):
        from_result(replace(result, arrays=arrays))


def test_many_matrices_are_thinned_to_what_memory_allows(monkeypatch):
    monkeypatch.setattr("tscope_tui.data.kernel._ENTRIES", 1000)
    found = from_result(kernel_result(matrices=(0, 30, 60, 90, 120))).matrices
    assert found.step.tolist() == [0, 60, 120]
    assert found.pairs.shape == (3, 20, 20)
    assert found.pairs[1, 0, 1] == pytest.approx(1.6, abs=0.05)


@pytest.mark.parametrize(
    ("points", "rows", "columns"), [(6, 3, 2), (7, 3, 4), (3, 5, 7), (1, 4, 4), (9, 9, 9)]
)
def test_a_cell_is_the_mean_of_its_pairs(points, rows, columns):
    pairs = np.random.default_rng(0).normal(size=(points, points))
    values, low, high = shrunk(matrices(pairs), 0, rows, columns)
    assert values.shape == (rows, columns)
    starts = [[place * points // count for place in range(count)] for count in (rows, columns)]
    for y, top in enumerate(starts[0]):
        for x, left in enumerate(starts[1]):
            below = min((one for one in starts[0] if one > top), default=points)
            right = min((one for one in starts[1] if one > left), default=points)
            assert values[y, x] == pytest.approx(pairs[top:below, left:right].mean(), rel=1e-5, abs=1e-6)
    assert low <= high


def test_the_map_is_drawn_in_shades_and_marks_the_pair():
    pairs = np.zeros((4, 4))
    pairs[:2, :2] = pairs[2:, 2:] = 1.0
    lines = [plain(line) for line in HeatPane(matrices(pairs), 0, (1, 3)).lines(10, 6, Draw())]
    assert lines[1:5] == ["│████    │", "│████  + │", "│    ████│", "│    ████│"]
    ascii = HeatPane(matrices(pairs), 0, (0, 0)).lines(10, 6, Draw(look=Look(ascii=True)))
    assert plain(ascii[1]) == "|+@@@    |"
    tones = {span.tone for span in HeatPane(matrices(pairs), 0).lines(10, 6, Draw())[2]}
    assert {"heat0", "heat15"} <= tones


@pytest.mark.parametrize("pairs", [np.full((3, 3), np.nan), np.zeros((3, 3)), np.ones((1, 1)), np.eye(40)])
@pytest.mark.parametrize("size", [(4, 2), (5, 3), (20, 9), (90, 40)])
def test_any_matrix_fills_the_pane(pairs, size):
    width, height = size
    lines = HeatPane(matrices(pairs), 0, (99, 99)).lines(width, height, Draw())
    assert len(lines) == height
    assert {len(plain(line)) for line in lines} == {width}


def test_the_spectrum_is_that_of_the_cursors_row_over_the_first():
    found = from_result(kernel_result())
    pane = spectrum_pane(found, 57)
    assert pane.step == 50
    assert [one.label for one in pane.series] == ["now", "start"]
    table = pane.table()
    assert table.columns["rank"] == [1, 2, 3, 4, 5]
    assert table.columns["now"] == pytest.approx(found.eigenvalues[5])
    assert spectrum_pane(found, 59) is pane
    assert len(spectrum_pane(found, 3).series) == 1
    assert len(pane.lines(30, 8, Draw())) == 8


def test_tables_of_the_map():
    found = from_result(kernel_result())
    pane = HeatPane(found.matrices, 130, (0, 1))
    table = pane.table()
    assert len(table.columns) == 21
    assert table.columns["1: train #102 y 0"][0] == pytest.approx(float(found.matrices.pairs[1, 0, 1]))
    head, row = pane.at().splitlines()
    assert head.split("\t") == ["step", "row", "column", "K"]
    assert row.split("\t")[:3] == ["120", "train #100 y 0", "train #102 y 0"]
    empty = HeatPane(None, 0)
    assert empty.table().columns == {}
    assert empty.at() == "step\trow\tcolumn\tK\n"


def test_a_matrix_without_held_out_examples():
    result = kernel_result(test=0)
    found = from_result(result).matrices
    assert found.train == 12
    assert "12 train" in plain(HeatPane(found, 0).lines(40, 5, Draw())[0])
    assert isinstance(result.arrays["kernel"], Array)
