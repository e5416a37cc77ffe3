"""What the keys do in the view of the layers, and in those that it leads to, without a terminal."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from layer_traces import collapse_result, layers_result, regime_result, save_all
from tscope_format import save_result
from tscope_tui.jobs.analysis import Analysis
from tscope_tui.stages.run import RunStage
from tui_host import FakeHost, screen
from tui_traces import finished

VIEWS = ("layers", "regime", "collapse")


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Return a trace with a result of each metric; it is only read."""
    return save_all(finished(tmp_path_factory.mktemp("layers") / "mlp.zarr"))


def opened(path: Path, *views: str, size: tuple[int, int] = (80, 24)) -> tuple[RunStage, FakeHost]:
    host = FakeHost(*size)
    stage = RunStage(host, path)
    stage.start()
    for view in views or ("layers",):
        stage.act(f"view:{view}", view)
    return stage, host


def run_with(folder: Path, monkeypatch: pytest.MonkeyPatch, *results) -> tuple[RunStage, FakeHost]:
    monkeypatch.chdir(folder)
    path = finished(Path("mlp.zarr"), 20)
    for result in results:
        save_result(path, result, "model")
    return opened(path)


def pressed(stage: RunStage, *actions: str) -> None:
    for action in actions:
        stage.act(action, "")


def test_the_key_leads_from_the_layers_to_the_regime_to_collapse_and_back(saved):
    stage, host = opened(saved)
    seen = []
    for _ in range(4):
        seen.append(stage.state.view)
        assert "[6 Layers]" in screen(stage, host)
        pressed(stage, "view:layers")
    assert seen == ["layers", "regime", "collapse", "layers"]
    pressed(stage, "back")
    assert stage.state.view == "layers"
    pressed(stage, "view:kernel", "view:layers")
    assert stage.state.view == "layers"


@pytest.mark.parametrize("view", VIEWS)
def test_what_is_missing_says_what_would_provide_it(tmp_path, monkeypatch, view):
    stage, host = run_with(tmp_path, monkeypatch)
    pressed(stage, *["view:layers"] * VIEWS.index(view))
    assert stage.state.view == view
    metric = {"collapse": "neural-collapse"}.get(view, view)
    if view != "layers":
        # The synthetic traces have neither program nor training examples.
        assert "it lacks the model as data" in screen(stage, host)
    stage.data = replace(stage.data, regime_lacks=())
    text = " ".join(re.sub("[│┌┐└┘─━┏┓]", " ", screen(stage, host)).split())
    assert "press a, or run:" in text
    assert f"tscope analyze mlp.zarr --metric {metric}" in text
    pressed(stage, "layer:1", "down")
    assert host.said == ["there is no other quantity; see the pane", "nothing to choose from; see the pane"]


def test_trees_have_none_of_it(saved):
    stage, host = opened(saved)
    told = ("it holds an ensemble of trees, which has no layers",)
    stage.data = replace(stage.data, layers=None, layers_lacks=told)
    assert "this trace cannot give numbers of layers" in screen(stage, host)


def test_quantities_follow_each_other_and_the_table_begins_with_the_one_that_is_shown(saved):
    stage, host = opened(saved)
    labels = []
    for _ in range(15):
        text = screen(stage, host)
        name = stage.panes()["layer map"].title.split(" (w)")[0]
        labels.append(name)
        assert next(iter(stage.panes()["layer values"].columns)) == name
        assert f"{name} (w) by" in text
        pressed(stage, "layer:1")
    assert labels[0] == "‖θ‖"
    assert len(set(labels)) == len(stage.data.layers.quantities) == 14
    assert labels[14] == "‖θ‖"
    pressed(stage, "layer:-1", "layer:-1")
    assert stage.panes()["layer map"].title == "flow (w) by pair"
    assert stage.panes()["layer map"].layers[1] == "net.body.2 → net.head"


def test_the_table_is_of_the_last_row_up_to_the_cursor(saved):
    stage, host = opened(saved)
    stage.go(61)
    found, text = stage.data.layers, screen(stage, host)
    assert "layers @60" in text
    pane = stage.panes()["layer values"]
    assert pane.columns["‖θ‖"].tolist() == [
        *found.named("theta_norm").values[30],
        found.whole["theta_norm"][30],
        pytest.approx(np.nan, nan_ok=True),
    ]
    assert "step 60: net.body.0 ‖θ‖ 3 · w: 1 of 14 quantities · 1 note (r)" in text
    # At the first row nothing was taken yet.
    stage.go(0)
    assert stage.panes()["layer values"].columns["‖g‖"][:3] == pytest.approx([np.nan] * 3, nan_ok=True)


def test_what_layers_leave_of_the_whole_stands_below_them(saved):
    stage, host = opened(saved)
    pressed(stage, *["layer:1"] * 5)
    pane = stage.panes()["layer values"]
    assert pane.rows[3:] == ("all", "rest")
    assert pane.columns["part of Δf"].tolist() == pytest.approx([0.2, 0.3, 0.49, 0.99, 0.01])
    assert re.search(r"rest +0\.01", screen(stage, host))


def test_a_chosen_layer_leads_its_chart_and_shows_its_singular_values(saved):
    stage, _host = opened(saved)
    pressed(stage, "down", "down", "down")
    assert stage.panes()["layer map"].chosen == 2
    course, within = stage.panes()["layer course"], stage.panes()["within"]
    assert [one.label for one in course.series] == ["head", "body.0", "body.2"]
    assert course.series[0].points[1][-1] == pytest.approx(3.0)
    # The third singular value of the head is not a number throughout.
    assert within.name == "σ of net.head.weight"
    assert [one.label for one in within.series] == ["1", "2"]
    pressed(stage, "up", "up", "up", "up")
    assert stage.panes()["layer map"].chosen == 0
    # Rows of pairs are chosen apart from those of layers.
    pressed(stage, "layer:-1", "down", "layer:1")
    assert stage.state.rows == {"layer": 0, "pair": 1}


def test_pairs_show_their_balance(saved):
    stage, _host = opened(saved)
    pressed(stage, "layer:-1", "layer:-1", "down")
    within = stage.panes()["within"]
    assert within.name == "balance of net.body.2 → net.head"
    assert [one.label for one in within.series] == ["‖Q‖", "‖Q−Q₀‖", "off identity", "flow"]
    assert within.series[2].points[1][-1] == pytest.approx(1e-8)
    assert within.series[1].points[0][0] == 2
    assert "‖Q−Q₀‖" in stage.panes()["layer values"].columns


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (120, 36), (160, 48)])
@pytest.mark.parametrize("view", VIEWS)
def test_moving_the_cursor_draws_no_curve_anew(saved, size, view):
    stage, host = opened(saved, size=size)
    stage.state = replace(stage.state, view=view)
    screen(stage, host)
    before, drawn = {name: id(pane) for name, pane in stage.panes().items()}, len(host.cache._plots)
    pressed(stage, "step:-10", "step:-1")
    screen(stage, host)
    shown = stage.rects(*host.dimensions)
    changed = {name for name in shown if id(stage.panes()[name]) != before[name]}
    assert changed <= {"layer values", "learning", "collapse"}
    assert len(host.cache._plots) == drawn


def test_logarithmic_shades_are_the_readers_choice(saved):
    stage, host = opened(saved)
    assert "‖θ‖ (w) by layer (log)" in screen(stage, host)
    pressed(stage, "log_y")
    assert "‖θ‖ (w) by layer ━" in screen(stage, host)


def test_a_result_of_some_parts_says_what_it_left_out_and_the_key_computes_all(tmp_path, monkeypatch):
    chosen = {"parts": "norms,contributions", "every": 3, "probe": None}
    stage, _host = run_with(tmp_path, monkeypatch, layers_result(20, parts=(), options=chosen))
    commands = []
    monkeypatch.setattr(Analysis, "run", lambda self, progress: commands.append(self.command[5:]))
    pressed(stage, "analyse")
    stage.state = replace(stage.state, focus="within")
    assert stage.panes()["within"].empty[0].endswith("has no singular values: press a, or run:")
    pressed(stage, "analyse")
    base = ["--metric", "layers"]
    assert commands == [[*base, "--parts", "norms,contributions", "--every", "3"], [*base, "--every", "3"]]


def test_modes_stand_beside_their_closed_forms(saved):
    stage, host = opened(saved)
    pressed(stage, "view:layers")
    stage.go(31)
    text = screen(stage, host)
    assert [one.label for one in stage.panes()["modes"].series] == [
        "0",
        "1",
        "2",
        "0 closed",
        "1 closed",
        "2 closed",
    ]
    learning = stage.panes()["learning"]
    found = stage.data.regime
    assert learning.columns["u"].tolist() == found.modes["strength"][10].tolist()
    assert learning.columns["t half"].tolist() == [7.5, 15.0, 30.0]
    moved = stage.panes()["moved"]
    # Held-out examples have capital letters; at the start nothing has moved, which a logarithm cannot show.
    assert [one.label for one in moved.series] == [
        "θ",
        "kernel",
        "features",
        "Kernel held-out",
        "Features held-out",
    ]
    assert moved.log_y
    assert {one.points[0][0] for one in moved.series} == {3.0}
    assert "moved θ 2.25  K 5.62  features 2" in text
    pressed(stage, "down", "down")
    assert [one.label for one in stage.panes()["modes"].series] == ["network", "closed form", "not balanced"]
    assert stage.panes()["modes"].name == "u of mode 1 (w)"
    assert learning.chosen is None
    assert stage.panes()["learning"].chosen == 1
    pressed(stage, "layer:1")
    assert stage.panes()["modes"].name == "Λ/s (w)"
    assert stage.panes()["modes"].series[0].points[1][0] == pytest.approx(0.5)
    pressed(stage, *["up"] * 5)
    assert len(stage.panes()["modes"].series) == 3


def test_many_modes_are_told_to_be_more(tmp_path, monkeypatch):
    stage, _host = run_with(tmp_path, monkeypatch, regime_result(20, modes=6))
    pressed(stage, "view:layers")
    assert stage.panes()["modes"].name == "u of modes (w), 2 less"
    assert len(stage.panes()["learning"].rows) == 6


def test_a_network_that_is_not_linear_says_why_it_has_no_modes(tmp_path, monkeypatch):
    stage, host = run_with(tmp_path, monkeypatch, regime_result(20, modes=0, kernel=False, held=False))
    pressed(stage, "view:layers")
    text = screen(stage, host)
    assert "no kernel: 1200 MB are not enough" in text
    for name in ("modes", "learning"):
        assert stage.panes()[name].empty == ("no modes: the model is not linear: it has relu",)
    pressed(stage, "layer:1", "down")
    assert host.said == ["there is no other quantity; see the pane", "nothing to choose from; see the pane"]
    commands = []
    monkeypatch.setattr(Analysis, "run", lambda self, progress: commands.append(self.command[5:]))
    pressed(stage, "analyse")
    assert commands == [["--metric", "regime", "--every", "3", "--train", "64"]]


def test_collapse_shows_four_measures_and_what_the_first_is_a_ratio_of(saved):
    stage, host = opened(saved)
    pressed(stage, "view:layers", "view:layers")
    panes = stage.panes()
    assert [one.label for one in panes["nc1"].series] == ["training", "held-out"]
    assert len(panes["nc2"].series) == 6
    assert [one.label for one in panes["nc4"].series] == [
        "nc4",
        "accuracy",
        "Nc4 held-out",
        "Accuracy held-out",
    ]
    text = screen(stage, host)
    assert "step 120: NC1 0.2  NC2 angle 0.02  NC3 0.12  NC4 0.05 · saved result" in text
    pressed(stage, "layer:1")
    assert [one.label for one in stage.panes()["nc1"].series] == [
        "within",
        "between",
        "Within held-out",
        "Between held-out",
    ]
    table = stage.panes()["collapse"].table()
    assert table.columns["measure"][:3] == ["NC1", "NC2 norm", "NC2 cos sd"]
    assert table.columns["training"][0] == pytest.approx(0.2)
    assert table.columns["held-out"][0] == pytest.approx(1.2)


def test_collapse_of_training_examples_alone_says_so(tmp_path, monkeypatch):
    stage, host = run_with(tmp_path, monkeypatch, collapse_result(20, held=False))
    pressed(stage, "view:layers", "view:layers")
    assert [one.label for one in stage.panes()["nc1"].series] == ["training"]
    pressed(stage, "repro")
    assert any("# note: no held-out examples" in line for line in host.shown[-1][1])


def test_numbers_are_reproduced_with_their_options(saved):
    stage, host = opened(saved, size=(160, 48))
    found = {"layers": layers_result(), "regime": regime_result(), "neural-collapse": collapse_result()}
    for _ in VIEWS:
        names = [name for name in stage.rects(160, 48) if name not in ("traces", "recorded")]
        for name in names:
            stage.state = replace(stage.state, focus=name, cursor=61)
            pressed(stage, "repro")
            lines = host.shown[-1][1]
            start = lines.index("# Python")
            metric = re.search(r"--metric (\S+)", " ".join(lines))[1]
            namespace: dict[str, object] = {"result": found[metric]}
            code = [line for line in lines[start + 1 :] if not line.startswith(("import", "#"))]
            code = code[code.index(")") + 1 :]
            shown = [line for line in code if line.startswith("result.")]
            assert shown, name
            exec("\n".join(line for line in code if not line.startswith("result.")), namespace)
            for line in shown:
                eval(line, namespace)
            pane = stage.panes()[name]
            if name == "learning":
                row = next(eval(line, namespace) for line in shown if '"strength"' in line)
                np.testing.assert_array_equal(row, pane.columns["u"])
            if name in ("layer values", "collapse"):
                row = eval(shown[0], namespace)
                first = next(iter(pane.columns.values()))
                assert np.ravel(row)[0] == first[0]
        pressed(stage, "view:layers")
    assert any("--probe 'held set.npz'" in line for line in host.shown[-1][1])


def test_panes_are_exported_and_copied(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stage, host = opened(saved)
    pressed(stage, "yank", "export")
    head, row = host.copied[-1].splitlines()
    assert head.split("\t") == ["step", "net.body.0", "net.body.2", "net.head"]
    assert row.split("\t")[:2] == ["120", "5.0"]
    assert len((tmp_path / "mlp-theta_norm.csv").read_text().splitlines()) == 62
    stage.state = replace(stage.state, focus="layer values")
    pressed(stage, "down", "yank")
    assert host.copied[-1].splitlines()[1].split("\t")[:2] == ["net.body.2", "4.0"]


@pytest.mark.parametrize("view", VIEWS)
def test_the_views_without_unicode(saved, view):
    stage, host = opened(saved)
    stage.state = replace(stage.state, view=view)
    host.look = replace(host.look, ascii=True)
    text = screen(stage, host)
    assert text.isascii()
    assert text.count("?") < 12
