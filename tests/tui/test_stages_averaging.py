"""What the keys do in the views of averages, forks and gradients, without a terminal."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from averaging_traces import along_result, family, gradients_result, save_between
from tscope_format import save_result
from tscope_tui.data.averages import Averages
from tscope_tui.jobs.analysis import Analysis
from tscope_tui.spans import cells
from tscope_tui.stages.run import RunStage
from tui_host import FakeHost, screen
from tui_traces import Run, finished


def opened(path: Path, *keys: str, width: int = 80, height: int = 24) -> tuple[RunStage, FakeHost]:
    host = FakeHost(width, height)
    stage = RunStage(host, path)
    stage.start()
    for key in ("view:averaging", *keys):
        stage.act(key, key)
    return stage, host


def copied(stage: RunStage, host: FakeHost) -> tuple[list[str], list[str]]:
    """Copy the row at the cursor; return its head, and its values."""
    stage.act("yank", "y")
    head, row = (line.split("\t") for line in host.copied[-1].splitlines())
    return head, row


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Return a run with forks, all of whose results are saved, and averages of its own."""
    path = family(tmp_path_factory.mktemp("forks") / "mlp.zarr")
    save_result(path, along_result(options={"counts": "3"}), "model")
    return path


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return finished(Path("mlp.zarr"), 30)


@pytest.fixture
def commands(monkeypatch) -> list[list[str]]:
    """Return the commands that are run, which do nothing."""
    found: list[list[str]] = []
    monkeypatch.setattr(Analysis, "run", lambda self, progress: found.append(self.command[3:]))
    return found


def test_what_is_missing_says_what_would_provide_it(empty):
    stage, host = opened(empty)
    text = screen(stage, host)
    assert "[5 Average]" in text
    assert "it lacks the model as data" in text
    assert "record --max-examples N" in text
    stage.data = replace(stage.data, averages=Averages())
    text = screen(stage, host)
    assert "tscope analyze mlp.zarr --metric" in text
    assert "weight-averaging --against" in text
    assert "OTHER.zarr" in text
    stage.act("view:averaging", "5")
    text = screen(stage, host)
    assert "this run has no forks" in text
    assert stage.panes()["drift"].empty[-1] == "tscope analyze mlp.zarr --metric gradients"
    stage.act("view:averaging", "5")
    assert "no averages over its steps are saved" in screen(stage, host)
    for key in ("down", "pan:1", "output", "layer:1", "yank", "repro", "crosshair", "log_y"):
        stage.act(key, key)
    assert "no result is saved; see the pane" in host.said


def test_trees_have_no_weights(tmp_path):
    run = Run(tmp_path / "run.zarr")
    run.root.attributes["kind"] = "trees"
    run.train(2)
    stage, host = opened(run.close())
    assert "which has no weights to average" in screen(stage, host).replace(" ││ ", " ")


@pytest.mark.parametrize("size", [(60, 15), (120, 36)])
def test_averages_of_two_models(base, size):
    stage, host = opened(base, width=size[0], height=size[1])
    text = screen(stage, host)
    assert "held out loss ━ avg ╌ ens ┄ line" in text
    assert "barrier 0.5 at α 0.5" in text
    if size != (60, 15):
        assert "barrier 0.25 at α 0.5" in text
        assert "A         mlp-fork0-seed1 @120" in text
        # The larger of both bases: fc1.weight 0.4 and 0.1 of a held-out barrier of 0.5.
        assert "fc1.weight" in text
        assert " 0.2 " in text
    assert ("barrier, by t' ━ train ╌ held out" in text) == (size[0] >= 120)
    assert "result 1 of 6 (o) · α 0.5: held out avg 0.75 ens" in text


def test_the_next_result_and_quantity_are_chosen(base):
    stage, host = opened(base, "output")
    assert host.said[-1] == "result 2 of 6: mlp-fork0-seed2 @120, mlp @120"
    assert "barrier 0.3 at α 0.5" in screen(stage, host)
    for _ in range(5):
        stage.act("output", "o")
    assert "barrier 0.5 at α 0.5" in screen(stage, host)
    stage.act("layer:1", "w")
    assert host.said[-1] == "accuracy"
    assert "held out accuracy" in screen(stage, host)
    assert "barrier 25.0% at α 0.5" in screen(stage, host)
    stage.act("layer:1", "w")
    assert "held out avg-ens 1 predicted 0.8 terms 0.6" in screen(stage, host)
    stage.act("layer:1", "w")
    assert "held out loss" in screen(stage, host)


def test_the_mark_moves_along_alpha_and_its_row_is_copied(base):
    stage, host = opened(base, "pan:-1", "pan:-1")
    assert "α 0.4: held out avg 0.72 " in screen(stage, host)
    head, row = copied(stage, host)
    assert head == ["α", "avg", "ens", "line"]
    assert [float(value) for value in row] == pytest.approx([0.4, 0.72, 0.144, 0.24])
    for _ in range(20):
        stage.act("pan:1", "l")
    assert "α 1: held out avg 0.3 ens 0.3 line 0.3" in screen(stage, host)
    # Another result is shown where its own barrier is.
    stage.act("output", "o")
    assert "α 0.5: held out avg 0.55 " in screen(stage, host)
    assert stage.state.window is None


def test_forks_are_chosen_with_their_averages(base, tmp_path):
    stage, host = opened(base, "view:averaging")
    text = screen(stage, host)
    assert "barrier, by t' ━ train ╌ held out" in text
    assert "bars: 2 seeds' range" in text
    assert "mean of fork and base" in text
    assert "fork 1 of 6: step 0, seed 1, same until 0: barrier held out 0.5, training 0.25" in text
    for _ in range(3):
        stage.act("down", "j")
    text = screen(stage, host)
    assert "fork 4 of 6: step 40, seed 2" in text
    assert "∇ t'=40 held out (log)" in text
    stage.act("enter", "enter")
    assert host.opened == [base.with_name("mlp-fork40-seed2.zarr")]
    head, row = copied(stage, host)
    assert head == ["t'", "train", "train half range", "held out", "held out half range"]
    assert [float(value) for value in row] == pytest.approx([40, 0.0736, 0.0184, 0.1472, 0.0368], rel=1e-3)
    assert "└0" in screen(stage, host)
    stage.act("log_x", "X")
    assert "└0" not in screen(stage, host)
    stage.act("log_y", "L")
    assert "1e-1┤" in screen(stage, host).split("∇ t'")[0]
    stage.act("back", "esc")
    assert stage.state.view == "averaging"
    assert "A         mlp-fork40-seed2 @120" in screen(stage, host)


def test_a_fork_shows_itself_among_its_family(base):
    stage, host = opened(base.with_name("mlp-fork80-seed1.zarr"), "view:averaging")
    assert "fork 5 of 6 (shown): step 80, seed 1" in screen(stage, host)
    stage.act("view:averaging", "5")
    stage.act("view:averaging", "5")
    assert "A         mlp-fork80-seed1 @120" in screen(stage, host).replace("\n", " ")


def test_gradients_from_another_step_on(base):
    stage, host = opened(base, "view:averaging", "focus:1", "focus:1")
    assert stage.focus_in(80, 24) == "drift"
    stage.act("down", "j")
    text = screen(stage, host)
    assert "∇ t'=40 held out (log)" in text
    assert "change, cosine: t'=40→end" in text
    assert "stable from (within 10%)" in text
    # Of all layers: 1.5 · 80/120 · exp(−4/3), from step 40 on.
    assert " all              40        40   0.264" in text
    stage.act("layer:1", "w")
    assert host.said[-1] == "cosine"
    text = screen(stage, host)
    assert "cos ∇ t'=40 held out" in text
    assert "accuracy barrier, by t'" in text
    stage.act("crosshair", "x")
    stage.act("step:-10", "")
    assert "@110" in screen(stage, host)


def test_a_run_without_forks_shows_its_own_gradients(empty):
    save_result(empty, gradients_result((0, 10, 20), 30), "model")
    stage, host = opened(empty, "view:averaging", "focus:1")
    text = screen(stage, host)
    assert "∇ change t'→end ━ train ╌ held out" in text
    assert "this run has no forks" in text
    stage.act("down", "j")
    assert "∇ t'=10" in screen(stage, host)
    stage.act("down", "j")
    stage.act("down", "j")
    assert "∇ t'=20" in screen(stage, host)


def test_averages_along_the_run(base):
    stage, host = opened(base, "view:averaging", "view:averaging")
    text = screen(stage, host)
    assert "best: EMA of decay 0.99" in text
    assert "held out loss (log) ━ r" in text
    assert "* EMA of decay 0.99" in text
    assert " EMA of decay 0.9 " in text
    stage.act("focus:-1", "")
    stage.act("down", "j")
    head, row = copied(stage, host)
    assert head[:4] == ["average", "held out", "training", "search"]
    assert row[0] == "* tail from step 30"
    assert [float(value) for value in row[1:4]] == pytest.approx([0.45, 0.3, 0.4])
    stage.act("layer:1", "w")
    assert "held out accuracy" in screen(stage, host)


def test_exporting_a_chart_over_alpha_writes_a_picture_too(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stage, _ = opened(base)
    stage.act("export", "e")
    assert (tmp_path / "mlp-blend.csv").read_text().splitlines()[0] == "α,avg,ens,line"
    assert "held out loss" in (tmp_path / "mlp-blend.svg").read_text()


def test_the_numbers_are_reproduced_with_their_options(base):
    stage, host = opened(base)

    def shown() -> str:
        stage.act("repro", "r")
        lines = host.shown[-1][1]
        compile("\n".join(lines[lines.index("# Python") :]), "repro", "exec")
        assert all(cells(line) <= 54 or str(base.parent) in line for line in lines), "the box of 60 columns"
        return "\n".join(lines).replace(" \\\n ", "")

    text = shown()
    assert f"tscope analyze {base.with_name('mlp-fork0-seed1.zarr')} --metric weight-averaging" in text
    assert "--against mlp.zarr --json" in text
    assert 'result.arrays["loss_ensemble_test"].data' in text
    assert "# note: one note" in text
    for _ in range(2):
        stage.act("focus:1", "tab")
    assert 'result.arrays["layer_barrier_test"].data' in shown()
    stage.act("focus:1", "tab")
    assert 'result.arrays["explained_test"].data' in shown()
    stage.act("view:averaging", "5")
    text = shown()
    assert f"tscope forks {base} --json" in text
    assert '"barrier_loss_test"' in text
    stage.act("focus:1", "tab")
    assert 'moved.scalars["change_train"]' in shown()
    stage.act("focus:1", "tab")
    assert 'result.arrays["change_layer_test"].data' in shown()
    stage.act("focus:1", "tab")
    assert 'result.arrays["stabilised_layer_train"].data' in shown()
    stage.act("view:averaging", "5")
    text = shown()
    assert "--counts 3" in text
    assert 'result.arrays["loss_ema_test"].data' in text


def test_the_analysis_of_each_pane_is_run_with_its_options(base, commands):
    stage, host = opened(base)
    stage.act("analyse", "a")
    # What the result was averaged with is found beside it.
    fork = base.with_name("mlp-fork0-seed1.zarr")
    assert commands[-1] == ["analyze", str(fork), "--metric", "weight-averaging", "--against", str(base)]
    stage.act("view:averaging", "5")
    stage.act("analyse", "a")
    assert commands[-1] == ["forks", str(base), "--compute"]
    stage.act("focus:-1", "")
    stage.act("analyse", "a")
    assert commands[-1] == ["analyze", str(base), "--metric", "gradients"]
    stage.act("view:averaging", "5")
    stage.act("analyse", "a")
    assert commands[-1] == ["analyze", str(base), "--metric", "weight-averaging", "--counts", "3"]
    assert host.said[-1] == "analysis saved in the trace"


def test_forks_without_results_are_averaged_with_their_run(tmp_path, commands):
    base = family(tmp_path / "mlp.zarr", (0, 20), saved=False)
    stage, host = opened(base)
    stage.data = replace(stage.data, averages=replace(stage.data.averages, lacks=()))
    assert "no averages between models are" in screen(stage, host)
    assert stage.panes()["blend"].empty[-1] == f"tscope forks {base} --compute"
    stage.act("analyse", "a")
    assert commands[-1] == ["forks", str(base), "--compute"]
    stage.act("view:averaging", "5")
    text = screen(stage, host)
    assert "4 forks, no barriers saved: press a" in text
    stage.act("focus:-1", "")
    stage.act("analyse", "a")
    assert commands[-1] == ["analyze", str(base), "--metric", "gradients", "--since", "0,20"]
    fork, _ = opened(base.with_name("mlp-fork20-seed2.zarr"))
    fork.act("analyse", "a")
    assert commands[-1][3:] == ["weight-averaging", "--against", str(base)]
    shutil.rmtree(base)
    stage, host = opened(tmp_path / "mlp-fork20-seed2.zarr", "view:averaging")
    assert "its forks cannot be read" in screen(stage, host)


@pytest.mark.parametrize(
    ("answer", "option"),
    [("other.zarr", ["--against", "other.zarr"]), (" 0, last ", ["--at", "0,last"]), ("  ", None)],
)
def test_a_run_alone_asks_what_to_average_with(empty, commands, answer, option):
    _, host = opened(empty, "analyse")
    label, done = host.asked
    assert label.startswith("average with the trace")
    done(answer)
    assert [command[4:] for command in commands] == ([] if option is None else [option])


def test_averages_of_several_models_and_without_labels_say_what_they_lack(empty):
    members = [(empty, 10), (empty, 20), (empty, 30)]
    save_between(empty, members, fork=None)
    stage, host = opened(empty)
    text = screen(stage, host)
    assert "only averages" in text
    assert "models averaged 3" in text
    assert "none in common" in text
    save_between(empty, members[:2], labels=False)
    stage.reload()
    text = screen(stage, host)
    assert "no labels on these examples" in text
    stage.act("layer:-1", "W")
    assert "held out outputs" in screen(stage, host)


def test_the_views_without_unicode(base):
    stage, host = opened(base)
    host.look = replace(host.look, ascii=True)
    for _ in range(3):
        assert screen(stage, host).isascii()
        stage.act("view:averaging", "5")


def test_moving_the_cursor_draws_no_curve_anew(base):
    stage, host = opened(base, "view:averaging", width=160, height=48)
    screen(stage, host)
    drawn = len(host.cache._plots)
    before = {name: id(stage.panes()[name]) for name in stage.rects(160, 48)}
    stage.act("step:-10", "")
    screen(stage, host)
    assert {name for name in before if id(stage.panes()[name]) != before[name]} == set()
    assert len(host.cache._plots) == drawn


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (160, 48)])
def test_the_screens(base, size, golden):
    stage, host = opened(base, width=size[0], height=size[1])
    for view in ("averaging", "forks", "along"):
        assert stage.state.view == view
        text = screen(stage, host)
        assert all(cells(line) <= size[0] for line in text.split("\n"))
        golden(f"screen_{view}_{size[0]}x{size[1]}.txt", text)
        for key in ("down", "down", "view:averaging"):
            stage.act(key, key)


def test_the_forks_are_read_where_they_are_shown_and_again_on_coming_back(empty):
    stage, host = opened(empty, "view:overview")
    first = stage.data.averages
    host.held = []
    lone = RunStage(host, empty)
    lone.start()
    lone.act("view:averaging", "5")
    lone.act("output", "o")
    assert host.said[-1] == "the saved results are being read"
    assert "reading" in screen(lone, host)
    host.held = None
    save_between(empty, [(empty, 0), (empty, 30)])
    stage.reload()
    assert stage.data.averages is first
    stage.act("view:averaging", "5")
    assert "A         mlp @0 " in screen(stage, host)
    stage.act("view:averaging", "5")
    assert len(stage.data.averages.pairs) == 1


def test_gradients_of_this_run_are_not_set_beside_averages_of_others(base):
    stage, host = opened(base.with_name("mlp-fork40-seed2.zarr"), "focus:1", "focus:1")
    # From t' = 40 on, twice as much in the first layer as in the second.
    assert "∇ change" in screen(stage, host)
    stage.act("yank", "y")
    assert host.copied[-1].splitlines()[0].split("\t")[:3] == ["layer", "barrier", "∇ change"]
    stage.act("output", "o")
    assert host.said[-1].endswith("mlp-fork0-seed1 @120, mlp @120")
    for _ in range(2):
        stage.act("output", "o")
    # Of another fork at the same step.
    assert host.said[-1].endswith("mlp-fork40-seed1 @120, mlp @120")
    assert "∇ change" not in screen(stage, host)
