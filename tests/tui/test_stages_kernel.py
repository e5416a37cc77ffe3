"""What the keys do in the view of the tangent kernel, without a terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tscope_tui.jobs.analysis import Analysis
from tscope_tui.stages.repro import repro
from tscope_tui.stages.run import RunStage
from tui_host import FakeHost, screen
from tui_traces import finished, save_kernel


def opened(folder, width: int = 80, height: int = 24) -> tuple[RunStage, FakeHost]:
    host = FakeHost(width, height)
    stage = RunStage(host, finished(folder / "mlp.zarr"))
    stage.start()
    stage.act("view:kernel", "4")
    return stage, host


@pytest.fixture
def run(tmp_path, monkeypatch) -> tuple[RunStage, FakeHost]:
    monkeypatch.chdir(tmp_path)
    return opened(tmp_path)


@pytest.fixture
def kernel(run) -> tuple[RunStage, FakeHost]:
    stage, host = run
    save_kernel(stage.path, options={"train": 12, "probe": "my set.npz", "matrix": "0,120"})
    stage.reload()
    return stage, host


def test_a_kernel_that_is_missing_says_what_would_provide_it(run):
    stage, host = run
    text = screen(stage, host)
    assert "[4 Kernel]" in text
    # The synthetic traces have neither program nor training examples.
    assert "it lacks the model as data" in text
    assert "record --max-examples N" in text
    stage.data = replace(stage.data, kernel_lacks=())
    text = screen(stage, host)
    assert "press a, or run:" in text
    assert "--matrix 0,last" in text


def test_a_result_without_matrices_shows_its_series_and_says_how_to_keep_one(run):
    stage, host = run
    save_kernel(stage.path, matrices=())
    stage.reload()
    text = screen(stage, host)
    assert "no matrix was kept: press a" in text
    assert "step 120: moved 0.8  align 0.6  eff. rank 4 · saved result" in text
    stage.act("down", "j")
    assert host.said[-1] == "no matrix was kept; see the pane"


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (120, 36), (160, 48)])
def test_the_kernel_at_every_size(tmp_path, size):
    stage, host = opened(tmp_path, *size)
    save_kernel(stage.path)
    stage.reload()
    text = screen(stage, host)
    assert "K @120, 12 train + 8 held out" in text
    if size != (60, 15):
        assert "λ @120 (log-log) ━ now ┄ start" in text
        assert "row        train #100 y 0" in text
        assert "λmax 200" in text
    assert ("method" in text) == (size[0] >= 120)


def test_the_kernel_is_read_at_the_cursor(kernel):
    stage, host = kernel
    stage.act("event:-1", "[")
    assert host.said[-1] == "step 60: [quick rule] kernel alignment +0.50"
    text = screen(stage, host)
    assert "K @0, 12 train" in text
    assert "λ @60 (log-log) ━ now ┄ start" in text
    assert "step 60: moved 0.4  align 0.6" in text


def test_a_pair_is_chosen_and_told(kernel):
    stage, host = kernel
    for action in ("down", "down", "pan:1", "pan:1", "pan:1", "up"):
        stage.act(action, "")
    row, column = stage.state.pair
    assert row > 0 < column
    text = screen(stage, host)
    assert stage.data.kernel.matrices.name(row) in text
    assert stage.data.kernel.matrices.name(column) in text
    for _ in range(40):
        stage.act("pan:-1", "h")
        stage.act("up", "k")
    assert stage.state.pair == (0, 0)
    for _ in range(40):
        stage.act("pan:1", "l")
        stage.act("down", "j")
    assert stage.state.pair == (19, 19)
    stage.act("focus:1", "tab")
    stage.act("pan:1", "l")
    assert stage.state.pair == (19, 19)
    assert "all steps are in sight" in host.said[-1]


def test_moving_the_cursor_draws_no_curve_and_no_map_anew(kernel):
    from tscope_tui.panes.heat import shrunk

    stage, host = kernel
    screen(stage, host)
    before = {name: id(pane) for name, pane in stage.panes().items()}
    drawn, maps = len(host.cache._plots), shrunk.cache_info().misses
    stage.act("step:-1", "")
    stage.act("step:-1", "")
    screen(stage, host)
    shown = stage.rects(*host.dimensions)
    changed = {name for name in shown if id(stage.panes()[name]) != before[name]}
    assert changed == {"kernel", "pair", "spectrum"}
    # Step 118 has the row of step 110: one new spectrum, and the matrix of step 0.
    assert len(host.cache._plots) <= drawn + 1
    assert shrunk.cache_info().misses <= maps + 1
    screen(stage, host)
    assert shrunk.cache_info().misses <= maps + 1


def test_exporting_and_copying_the_kernel(kernel, tmp_path):
    stage, host = kernel
    stage.act("yank", "y")
    assert host.copied[-1].splitlines()[1].startswith("120\ttrain #100 y 0\ttrain #100 y 0\t2.")
    stage.act("export", "e")
    lines = (tmp_path / "mlp-kernel.csv").read_text().splitlines()
    assert len(lines) == 21
    stage.act("focus:1", "tab")
    stage.act("yank", "y")
    assert host.copied[-1].splitlines()[0] == "rank\tnow\tstart"
    stage.act("focus:1", "tab")
    stage.act("yank", "y")
    head, row = (line.split("\t") for line in host.copied[-1].splitlines())
    assert head == ["step", "distance", "align", "held-out align"]
    assert row == ["120", "0.3", "0.6", "0.3"]


def test_the_kernel_is_reproduced_with_its_options(kernel):
    stage, host = kernel
    stage.act("repro", "r")
    text = "\n".join(host.shown[-1][1]).replace("\\\n", "")
    assert "--metric kernel" in text
    assert "--train 12" in text
    assert "--probe 'my set.npz'" in text
    assert 'result.arrays["kernel"].data' in host.shown[-1][1]
    for name in ("kernel", "spectrum", "course", "pair", "kernel method"):
        lines = repro(name, stage.path, options={"preconditioned": True}, step=60, known={"distance_train"})
        assert any("--preconditioned" in line for line in lines)
        compile("\n".join(lines[lines.index("# Python") :]), "repro", "exec")
        assert not any("alignment_train" in line for line in lines)


def test_an_analysis_keeps_the_first_and_last_matrix_unless_others_were_asked_for(run, monkeypatch):
    stage, host = run
    commands = []

    def pretend(self, progress):
        commands.append(self.command[5:])
        save_kernel(stage.path, options={"at": "10,50", "seed": 3, "matrix": None})

    monkeypatch.setattr(Analysis, "run", pretend)
    stage.act("analyse", "a")
    assert host.said[-1] == "analysis saved in the trace"
    assert "moved 0.8" in screen(stage, host)
    stage.act("analyse", "a")
    assert commands == [
        ["--metric", "kernel", "--matrix", "0,last"],
        ["--metric", "kernel", "--at", "10,50", "--seed", "3", "--matrix", "10,50"],
    ]


def test_the_view_without_unicode(tmp_path):
    stage, host = opened(tmp_path)
    save_kernel(stage.path)
    stage.reload()
    host.look = replace(host.look, ascii=True)
    assert screen(stage, host).isascii()
