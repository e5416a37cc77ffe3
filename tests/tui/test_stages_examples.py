"""View 7, its list and its single example, and what view 4 leads to, without a terminal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tscope_tui.jobs.analysis import Analysis
from tscope_tui.stages import run_examples
from tscope_tui.stages.repro import repro
from tscope_tui.stages.run import RunStage
from tui_host import FakeHost, screen
from tui_traces import (
    EXAMPLES,
    Run,
    finished,
    save_boosting,
    save_effective,
    save_kernel,
    save_telescoping,
    save_updates,
)

LABEL = np.where(np.arange(EXAMPLES) % 2 == 0, 1.0, -1.0)


def opened(path, *views: str, width: int = 80, height: int = 24) -> tuple[RunStage, FakeHost]:
    host = FakeHost(width, height)
    stage = RunStage(host, path)
    stage.start()
    for view in views:
        stage.act(f"view:{view}", "")
    return stage, host


@pytest.fixture
def run(tmp_path, monkeypatch) -> tuple[RunStage, FakeHost]:
    monkeypatch.chdir(tmp_path)
    return opened(finished(tmp_path / "mlp.zarr"), "examples")


def losses(step: int) -> np.ndarray:
    return np.square(Run.output(step)[:, 0].astype(np.float64) - LABEL)


@pytest.mark.parametrize("step", [0, 30, 120])
def test_examples_are_listed_by_their_loss_at_the_cursor(run, step):
    stage, host = run
    stage.go(step)
    expected = np.argsort(-losses(step), kind="stable")
    pane = stage.panes()["examples"]
    assert pane.order.tolist() == expected.tolist()
    assert pane.table().columns["loss"] == pytest.approx(losses(step)[expected], rel=1e-6)
    lines = screen(stage, host).splitlines()
    assert f"examples @{step}, by loss (s)" in lines[2]
    assert lines[4].split()[1] == str(expected[0])
    assert "probe heldout: 6 examples × 1 · loss: squared error · by loss (s)" in lines[-2]


def test_wrong_examples_are_marked_and_orders_follow_each_other(run):
    stage, host = run
    stage.go(0)
    # At the start all predictions but that of the last example are negative.
    wrong = ((Run.output(0)[:, 0] > 0) != (LABEL > 0)).tolist()
    text = {line.split()[1]: line for line in screen(stage, host).splitlines() if "▂" in line or "█" in line}
    for example, off in enumerate(wrong):
        row = next(line for number, line in text.items() if number.strip("▸") == str(example))
        assert (" x " in row) == off
    orders = []
    for _ in range(3):
        stage.act("sort", "s")
        orders.append(host.said[-1].removeprefix("ordered by "))
    assert orders == ["forgetting", "number", "loss"]
    save_effective(stage.path, train=5, test=EXAMPLES)
    save_updates(stage.path)
    stage.reload()
    assert run_examples.orders_of(stage.data, 0) == list(run_examples.ORDERS)


def test_norms_are_those_of_the_same_examples_only(run):
    stage, _ = run
    save_effective(stage.path, train=5, test=EXAMPLES)
    stage.reload()
    _, norms = stage.data.effective.spread(120)
    assert run_examples.norms_of(stage.data, 120).tolist() == norms["test"].tolist()
    stage.state = replace(stage.state, example_order="‖s(x)‖²")
    assert stage.panes()["examples"].order.tolist() == np.argsort(-norms["test"]).tolist()
    # Of another probe set, or of a part of this one, it is not known which example is which.
    for other in ({"probe": "mine"}, {"norms": {"test": stage.data.effective.norms["test"][:, :3]}}):
        data = replace(stage.data, effective=replace(stage.data.effective, **other))
        assert run_examples.norms_of(data, 120) is None
    # Of an in-sample set each is looked up among the training examples, whose numbers begin with 100 here.
    found = replace(stage.data.examples, numbers=np.array([104, 100, -1, 7, 102, 101]), probe="train")
    known = run_examples.norms_of(replace(stage.data, examples=found), 120)
    trained = norms["train"]
    expected = [trained[4], trained[0], np.nan, np.nan, trained[2], trained[1]]
    np.testing.assert_array_equal(known, np.array(expected, dtype=np.float64))


def test_an_example_is_opened_from_the_list_and_left(run):
    stage, host = run
    order = stage.panes()["examples"].order
    stage.act("down", "j")
    stage.act("down", "j")
    assert stage.state.choice.example == order[2]
    stage.act("enter", "enter")
    text = screen(stage, host)
    assert stage.state.view == "example"
    assert "[7 Examples]" in text
    assert f"input {order[2]}, y " in text
    assert "no contributions of layers are saved" in text
    stage.act("up", "k")
    assert stage.state.choice.example == order[1]
    host.run_timers()
    assert stage.data.shown.example == order[1]
    stage.act("back", "esc")
    assert (stage.state.view, host.left) == ("examples", 0)
    stage.act("back", "esc")
    assert host.left == 1


def test_every_pane_of_an_example_is_filled_by_what_is_saved(run):
    stage, host = run
    host.dimensions = (160, 48)
    save_telescoping(stage.path)
    save_kernel(stage.path)
    save_updates(stage.path)
    stage.drill(2)
    text = screen(stage, host)
    assert "‖JΔθ‖ by layer and step, all examples" in text
    assert "nearest to 2 in K @120" in text
    pane = stage.panes()["neighbours"]
    matrices = stage.data.kernel.matrices
    point = matrices.point(train=False, number=2)
    assert pane.names[0] == matrices.name(int(matrices.nearest(1, point)[0][0]))
    assert "influence on f[0] of example 2" in text
    # Three numbers are no image.
    assert stage.data.shown.image is None
    for name, metric in (
        ("neighbours", "kernel"),
        ("contribution", "telescoping"),
        ("influence", "updates"),
        ("outputs", "# Python"),
        ("picture", "probe/heldout/input/0"),
    ):
        stage.state = replace(stage.state, focus=name)
        stage.act("repro", "r")
        lines = host.shown[-1][1]
        assert metric in "\n".join(lines)
        program = [line for line in lines[lines.index("# Python") :] if not line.startswith("# note")]
        compile("\n".join(program), "repro", "exec")
        stage.act("yank", "y")
        assert host.said[-1].startswith("copied ")


def test_the_contributions_of_an_example_are_its_own_where_they_were_kept(run):
    stage, host = run
    save_telescoping(stage.path, own=True)
    stage.drill(3)
    pane = stage.panes()["contribution"]
    parts = np.random.default_rng(2).standard_normal((121, 2, EXAMPLES, 1))
    np.testing.assert_allclose(pane.values, np.abs(parts[:, :, 3, 0]), rtol=1e-12)
    assert "‖JΔθ‖ by layer and step, example 3" in screen(stage, host)


def test_an_example_that_the_kernel_does_not_hold_is_said(run):
    stage, _ = run
    save_kernel(stage.path, test=0)
    stage.drill(1)
    told = stage.panes()["neighbours"].empty
    assert told[0] == "example 1 of heldout is none of the saved kernel's points; for all of them:"
    assert told[1].endswith("--metric kernel --matrix 0,last --probe heldout --test 6 --train N")
    save_kernel(stage.path, matrices=())
    stage.reload()
    assert stage.panes()["neighbours"].empty[0] == "no matrix of the kernel was kept: press a, or run:"


def test_a_trace_without_outputs_says_what_records_them(tmp_path):
    stage, host = opened(finished(tmp_path / "noprobe.zarr", 20, probe=False), "examples")
    text = screen(stage, host)
    assert "no outputs of single examples were recorded, and none are saved" in text
    assert "tscope record --probe FILE.npz" in text
    stage.act("down", "j")
    assert host.said[-1] == "no outputs of single examples were recorded"
    for action in ("enter", "sort", "output", "analyse", "yank", "repro", "drill", "layer", "difference"):
        if action != "analyse":
            stage.act(action, "")
    stage.state = replace(stage.state, view="example", focus="picture")
    assert "no outputs of single examples were recorded" in screen(stage, host)


def test_outputs_that_were_not_recorded_are_those_of_a_saved_result(tmp_path):
    path = finished(tmp_path / "noprobe.zarr", 20, probe=False)
    save_telescoping(path, 20)
    stage, host = opened(path, "examples")
    assert "probe heldout: 6 examples × 1 · no labels, no loss" in screen(stage, host)
    assert stage.panes()["examples"].table().columns["told"] == Run.output(20)[:, 0].tolist()
    found = stage.data.examples
    stage.reload()
    assert stage.data.examples.outputs.shape == found.outputs.shape == (21, EXAMPLES, 1)
    # The set itself is not in the trace.
    stage.act("enter", "enter")
    assert stage.panes()["picture"].empty == ("no inputs of this set are in the trace",)


def test_labels_that_are_missing_leave_predictions_and_numbers(tmp_path):
    stage, host = opened(finished(tmp_path / "mlp.zarr", 20, labels=False), "examples")
    assert "6 examples × 1 · no labels, no loss · by number (s)" in screen(stage, host)
    assert list(stage.panes()["examples"].table().columns) == ["example", "told"]


def test_examples_are_read_only_where_they_are_shown(tmp_path):
    stage, _ = opened(finished(tmp_path / "mlp.zarr", 20))
    assert stage.data.examples is None
    stage.act("view:examples", "7")
    found = stage.data.examples
    assert found is not None
    stage.act("view:overview", "1")
    stage.reload()
    assert stage.data.examples is found


def test_a_running_trace_is_followed(tmp_path):
    run = Run(tmp_path / "live.zarr")
    run.train(10)
    stage, host = opened(run.path, "examples")
    assert "examples @10" in screen(stage, host)
    run.train(10)
    stage.reload()
    assert "examples @20" in screen(stage, host)


@pytest.mark.parametrize(
    ("size", "ascii"), [((60, 15), False), ((80, 24), True), ((120, 36), False), ((160, 48), False)]
)
def test_the_views_fill_every_size(run, size, ascii):
    stage, host = run
    host.dimensions = size
    host.look = replace(host.look, ascii=ascii)
    save_telescoping(stage.path)
    save_kernel(stage.path)
    save_updates(stage.path)
    save_boosting(stage.path)
    stage.reload()
    for view in ("examples", "example", "kernel", "boosting"):
        stage.show_view(view)
        for _ in range(6 if size == (60, 15) else 1):
            text = screen(stage, host)
            assert max(map(len, text.splitlines())) <= size[0]
            assert text.isascii() or not ascii
            stage.act("focus:1", "tab")


# View 4: what is new in it.


def test_the_kernel_is_shown_less_its_start_and_in_other_orders(run):
    stage, host = run
    save_kernel(stage.path)
    stage.act("view:kernel", "4")
    stage.reload()
    stage.act("difference", "d")
    assert "K @120 − @0, 12 train + 8 held out" in screen(stage, host)
    stage.go(0)
    assert "0 ·░▒▓█ 0" in screen(stage, host)
    stage.act("difference", "d")
    stage.act("sort", "s")
    assert host.said[-1] == "points ordered by number"
    assert "K @0 by number, 12 train + 8" in screen(stage, host)
    assert stage.panes()["kernel"].matrices.numbers[:3].tolist() == [100, 101, 102]
    stage.act("sort", "s")
    stage.act("sort", "s")
    assert "by label" not in screen(stage, host)
    save_kernel(stage.path, matrices=(0,))
    stage.reload()
    stage.act("difference", "d")
    assert host.said[-1] == "only one matrix was kept; `--matrix 0,last` keeps two"


def test_the_layers_shares_of_the_kernel_over_steps(run):
    stage, host = run
    save_kernel(stage.path)
    stage.act("view:kernel", "4")
    stage.reload()
    stage.act("layer", "w")
    text = screen(stage, host)
    assert "share of trace" in text
    pane = stage.panes()["course"]
    assert [one.label for one in pane.series] == ["fc1", "head"]
    assert pane.series[0].points[1].tolist() == [0.7] * 13
    assert "trace: fc1 70%, head 30%" in " ".join(text.split())
    stage.act("layer", "w")
    assert stage.panes()["course"].name == "K"
    stage.act("view:overview", "1")
    stage.act("layer", "w")
    assert host.said[-1] == "no layers of the kernel are known; views 4 to 6 have quantities to choose from"


def test_a_pair_leads_to_its_example(run):
    stage, host = run
    save_kernel(stage.path)
    stage.act("view:kernel", "4")
    stage.reload()
    stage.act("drill", "i")
    assert "its row is a training example" in host.said[-1]
    stage.state = replace(stage.state, pair=(14, 0))
    number = int(stage.data.kernel.matrices.numbers[14])
    stage.act("drill", "i")
    assert (stage.state.view, stage.state.choice.example) == ("example", number)
    stage.act("view:kernel", "4")
    stage.data = replace(stage.data, kernel=replace(stage.data.kernel, probe="mine"))
    stage.act("drill", "i")
    assert host.said[-1] == "its row is of mine, and the outputs are of heldout"


def test_the_kernel_leads_to_the_comparison_with_trees_and_back(run):
    stage, host = run
    stage.act("view:kernel", "4")
    stage.act("view:kernel", "4")
    text = screen(stage, host)
    assert "[4 Kernel]" in text
    assert "this trace cannot give comparison" in text
    stage.data = replace(stage.data, kernel_lacks=())
    assert "--against TREES.zarr" in " ".join(stage.panes()["norms"].empty)
    stage.data = replace(stage.data, trees=True)
    assert "analyse the network's trace, --against this one" in stage.panes()["norms"].empty[1]
    save_boosting(stage.path)
    stage.reload()
    text = screen(stage, host)
    assert "max ‖k(x)‖ ━ net ╌ trees" in text
    assert stage.panes()["against"].facts[0] == ("trees", "200 of GradientBoostingRegressor, trees.zarr")
    norms, increase = stage.panes()["norms"], stage.panes()["increase"]
    assert norms.table().columns["net"] == pytest.approx(0.8 + 2.2 * np.linspace(0, 1, 11))
    assert norms.table().columns["net sd"] == [0.05] * 11
    assert increase.table().columns["relative"][-1] == pytest.approx(1.0)
    assert "bars: one standard deviation of the draws · saved result · 1 note (r)" in text
    stage.act("yank", "y")
    assert host.copied[-1].startswith(
        "share of irregular examples\tnet\tnet sd\ttrees\ttrees sd\n0\t0.8\t0.05"
    )
    stage.act("export", "e")
    assert "mlp-norms.csv" in host.said[-1]
    stage.act("view:kernel", "4")
    assert stage.state.view == "kernel"


def test_trees_are_asked_for_by_name_the_first_time(run, monkeypatch):
    stage, host = run
    commands = []
    monkeypatch.setattr(Analysis, "run", lambda self, progress: commands.append(self.command[5:]))
    stage.show_view("boosting")
    stage.act("analyse", "a")
    label, done = host.asked
    assert label == "against the trace of trees: "
    done("my trees.zarr")
    save_boosting(stage.path, options={"draws": 10})
    stage.reload()
    stage.act("analyse", "a")
    assert commands == [
        ["--metric", "boosting", "--against", "my trees.zarr"],
        ["--metric", "boosting", "--against", "trees.zarr", "--draws", "10"],
    ]
    done("  ")
    assert len(commands) == 2


@pytest.mark.parametrize("pane", ["norms", "increase", "errors", "against"])
def test_a_comparison_is_reproduced(tmp_path, pane):
    lines = repro(pane, tmp_path, options={"against": "t.zarr", "irregular": 0.2, "draws": 50})
    text = "\n".join(lines).replace("\\\n", "")
    assert "--metric boosting" in text
    assert "--against t.zarr" in text
    assert "--irregular 0.2" in text
    assert "--draws" not in text
    assert 'arrays["step"]' not in text
    compile("\n".join(lines[lines.index("# Python") :]), "repro", "exec")
