"""Layers, regime and neural collapse of saved results, their tables and maps, without a screen."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tscope_tui.data.collapse
import tscope_tui.data.layers
import tscope_tui.data.regime
from layer_traces import LAYERS, collapse_result, layers_result, regime_result
from tscope_tui.data.layers import from_result, short
from tscope_tui.data.run import RunSource
from tscope_tui.data.telescoping import Choice
from tscope_tui.panes.box import Look
from tscope_tui.panes.layermap import LayerMapPane
from tscope_tui.panes.pane import Draw
from tscope_tui.panes.rows import RowsPane
from tscope_tui.spans import cells, plain, shortened
from tscope_tui.stages.flags import _OPTIONS

import tscope
from tests.analyses.layer_runs import deep, make_run
from tscope.analyses.registry import metric as metric_of

FROM = {
    "layers": tscope_tui.data.layers.from_result,
    "regime": tscope_tui.data.regime.from_result,
    "neural-collapse": tscope_tui.data.collapse.from_result,
}


def test_what_a_view_reads_is_what_the_metric_saved(tmp_path):
    """A run in this process, analysed by the metrics themselves: the names of arrays are theirs."""
    run = make_run(tmp_path, module=deep())
    layers = tscope.analyze(run.trace, "layers", probe=str(run.held))
    movement = tscope.analyze(run.trace, "regime", parts="features")
    data = RunSource(run.trace.path).load(Choice(), None)
    assert data.problems == ()
    found = data.layers
    assert found.rows["layer"] == ("0", "1", "3")
    assert found.rows["matrix"] == ("0.weight", "1.weight", "3.weight")
    assert found.rows["pair"] == ("0 → 1", "1 → 3")
    # Every quantity that a view knows is there, so a renamed array would be missed.
    assert [one.name for one in found.quantities] == list(tscope_tui.data.layers._QUANTITIES)
    for one in found.quantities:
        saved = layers.arrays[one.name].data
        np.testing.assert_array_equal(one.values, saved[:, :, 0] if saved.ndim == 3 else saved)
    rest = found.rest["contribution_signed"]
    np.testing.assert_allclose(rest[1:], 1 - layers.arrays["contribution_signed"].data[1:].sum(1), rtol=1e-12)
    assert found.facts[-1][0] == "balance"
    np.testing.assert_array_equal(data.regime.series["movement"], movement.arrays["movement"].data)
    assert data.layers_lacks == data.regime_lacks == ()


@pytest.mark.parametrize("metric", sorted(_OPTIONS))
def test_the_options_that_go_without_saying_are_the_metrics_own(metric):
    own = {name: field.default for name, field in metric_of(metric).options.__dataclass_fields__.items()}
    assert {name: own[name] for name in _OPTIONS[metric]} == dict(_OPTIONS[metric])


@pytest.mark.parametrize(
    ("result", "name"),
    [(layers_result(), "theta_norm"), (regime_result(), "movement"), (collapse_result(), "nc1_train")],
)
def test_a_result_without_its_first_array_is_none_of_the_metric(result, name):
    arrays = {key: array for key, array in result.arrays.items() if key != name}
    with pytest.raises(KeyError):
        FROM[result.metric](replace(result, arrays=arrays))


def test_what_of_the_layers_adds_up_has_its_whole_and_its_rest():
    found = from_result(layers_result())
    assert found.whole["contribution_signed"][5] == pytest.approx(0.99)
    assert found.rest["contribution_signed"][5] == pytest.approx(0.01)
    assert found.rest["loss_contribution"][5] == pytest.approx(0.0019)
    assert found.whole["theta_norm"][-1] == pytest.approx(np.sqrt(25 + 16 + 9))
    assert "gradient_norm" not in found.whole
    assert [found.row(step) for step in (-3, 0, 1, 2, 119, 120, 500)] == [0, 0, 0, 1, 59, 60, 60]
    assert found.matrix_of(1) == 1
    assert found.named("update_norm").start == 2
    assert found.named("theta_norm").start == 0
    assert ("balance", "off the identity by 3e-9 of its size at most") in found.facts


def test_a_layer_whose_parameters_are_no_matrix_has_none():
    found = from_result(layers_result())
    rows = {**found.rows, "layer": ("net.norm", "scale", "net.head")}
    found = replace(found, rows={**rows, "matrix": ("net.head.weight", "scale")})
    assert [found.matrix_of(layer) for layer in range(3)] == [None, 1, 0]


def test_names_are_shortened_to_where_they_differ():
    assert short(LAYERS) == ["body.0", "body.2", "head"]
    assert short(["layers.0", "layers.2"]) == ["0", "2"]
    assert short(["a.b", "a"]) == ["a.b", "a"]
    assert short(["only.one"]) == ["only.one"]
    assert short([]) == []


@pytest.mark.parametrize(
    ("name", "width", "expected"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdef", 4, "…def"),
        ("abcdef", 1, "…"),
        ("abcdef", 0, ""),
        ("層層ab", 4, "…ab"),
        ("blocks.0.attention.qkv", 22, "blocks.0.attention.qkv"),
        ("blocks.0.attention.qkv", 20, "b.0.attention.qkv"),
        ("blocks.0.attention.qkv", 16, "b.0.a.qkv"),
        ("blocks.0.attention.qkv", 7, "….a.qkv"),
        ("net.body.0 → net.head", 16, "n.b.0 → net.head"),
    ],
)
def test_of_a_long_name_the_end_is_kept(name, width, expected):
    assert shortened(name, width) == expected


@pytest.mark.parametrize(
    ("attributes", "lack"),
    [({"kind": "trees"}, "ensemble of trees"), ({"updates": "none"}, "--updates none"), ({}, "")],
)
def test_what_a_trace_lacks_for_layers(attributes, lack):
    root = SimpleNamespace(attributes=attributes, arrays=lambda: {"program/graph", "examples/input/0"})
    for lacks in (tscope_tui.data.layers.lacks_of(root), tscope_tui.data.regime.lacks_of(root)):
        assert len(lacks) == bool(lack)
        assert lack in "".join(lacks)
    # Of movement and collapse some rows are enough.
    assert ("--at 0,last" in "".join(lacks)) == ("updates" in attributes)


def table(**options) -> RowsPane:
    columns = {
        "‖θ‖": np.array([1.5, 2.5, np.nan, 9.0, 1.0]),
        "moved": np.array([0.1, 123.456, 0.3, np.nan, 0.5]),
    }
    names = ("encoder.layers.0.linear1", "encoder.layers.0.linear2", "norm", "all", "rest")
    return RowsPane("layers", "layers @3", "layer", names, columns, chosen=1, last=2, **options)


def test_a_table_marks_the_chosen_row_and_keeps_the_ends_of_names():
    lines = [plain(line) for line in table().lines(34, 8, Draw())]
    assert lines == [
        "┌─ layers @3 ────────────────────┐",
        "│                      ‖θ‖  moved│",
        "│ e.layers.0.linear1   1.5    0.1│",
        "│▸e.layers.0.linear2   2.5    123│",
        "│ norm                   -    0.3│",
        "│ all                    9      -│",
        "│ rest                   1    0.5│",
        "└────────────────────────────────┘",
    ]


def test_a_table_that_is_too_small_keeps_the_chosen_row_and_the_whole():
    lines = [plain(line) for line in table().lines(40, 6, Draw())]
    assert "linear2" in lines[2]
    assert lines[3].startswith("│ all")
    assert lines[4].startswith("│ rest")
    assert "j/k: 2 more layers" in lines[5]
    narrow = [plain(line) for line in table().lines(20, 8, Draw())]
    assert "moved" not in narrow[1]
    for size in ((4, 2), (6, 3), (12, 4), (200, 30)):
        assert {cells(plain(line)) for line in table().lines(*size, Draw())} == {size[0]}


def test_rows_of_the_whole_without_a_number_in_sight_are_left_out():
    lines = [plain(line) for line in table().lines(19, 9, Draw())]
    assert any(line.startswith("│ all") for line in lines)
    pane = replace(table(), columns={"moved": table().columns["moved"]})
    lines = [plain(line) for line in pane.lines(40, 9, Draw())]
    assert not any(line.startswith("│ all") for line in lines)
    assert any(line.startswith("│ rest") for line in lines)


def test_tables_are_exported_whole_and_copied_by_the_row():
    assert table().at() == "layer\t‖θ‖\tmoved\nencoder.layers.0.linear2\t2.5\t123.456\n"
    assert len(table().table().rows) == 5
    assert len(replace(table(), chosen=None).at().splitlines()) == 6


def test_a_map_in_logarithmic_shades_marks_the_chosen_layer():
    step = np.arange(4.0)
    values = np.array([[1e-3, 0.0], [1e-2, 1.0], [1e-1, -2.0], [1.0, np.nan]])
    pane = LayerMapPane(("first", "second"), step, values, title="‖θ‖", chosen=1, start=0.0, log_y=True)
    lines = [plain(line) for line in pane.lines(16, 4, Draw())]
    assert lines[0].startswith("┌─ ‖θ‖ (log)")
    # Even steps of the logarithm are even steps of the shade; what is not positive has none.
    assert lines == [
        "┌─ ‖θ‖ (log) ──┐",
        "│ first    ░▓▓█│",
        "│▸second ??█???│",
        "└──────────────┘",
    ]
    linear = pane.lines(16, 4, Draw(log_y=False))
    assert "(log)" not in plain(linear[0])
    assert plain(linear[1]) != lines[1]
    ascii = [plain(line) for line in pane.lines(16, 4, Draw(look=Look(ascii=True)))]
    assert ascii[2].startswith("|>second")
    nothing = replace(pane, values=np.full((4, 2), -1.0))
    assert "no value in sight" in plain(nothing.lines(40, 4, Draw())[-1])


def test_a_map_scrolls_to_the_chosen_layer():
    pane = LayerMapPane(tuple(f"l{i}" for i in range(30)), np.arange(3.0), np.ones((3, 30)), chosen=20)
    lines = [plain(line) for line in pane.lines(30, 8, Draw())]
    assert any("▸l20" in line for line in lines)
    assert "j/k: 24 more layers" in lines[-1]
    wide = [plain(line) for line in pane.lines(60, 8, Draw())]
    assert "j/k: 24 more layers, 1 ·░▒▓█ 1" in wide[-1]
