"""What the keys do in the views of one run, without a terminal."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tscope_tui.jobs.analysis import Analysis
from tscope_tui.spans import cells
from tscope_tui.stages.repro import repro
from tscope_tui.stages.run import RunStage
from tui_host import FakeHost, screen
from tui_traces import SPIKE, Run, finished, save_telescoping


@pytest.fixture
def run(tmp_path, monkeypatch) -> tuple[RunStage, FakeHost]:
    monkeypatch.chdir(tmp_path)
    host = FakeHost()
    stage = RunStage(host, finished(tmp_path / "mlp.zarr"))
    stage.start()
    return stage, host


def test_stepping_and_events(run):
    stage, host = run
    stage.act("step:-10", "shift+left")
    assert stage.state.cursor == 110
    stage.act("event:-1", "[")
    assert stage.state.cursor == SPIKE
    assert "loss spike" in host.said[-1]
    stage.act("first", "home")
    stage.act("event:-1", "[")
    assert host.said[-1] == "no event on that side"


@pytest.mark.parametrize(
    ("text", "cursor", "said"),
    [
        ("30", 30, None),
        ("0.05k", 50, None),
        ("1,00", 100, None),
        ("500", 120, "no step 500; the run has steps 0 to 120"),
        ("abc", 120, "'abc' is no step; give a number, such as 1200 or 12k"),
    ],
)
def test_going_to_a_step(run, text, cursor, said):
    stage, host = run
    stage.act("go", "g")
    label, done = host.asked
    assert label == "go to step: "
    done(text)
    assert stage.state.cursor == cursor
    assert said is None or host.said[-1] == said


def test_playing_moves_on_and_stops_at_the_end(run):
    stage, host = run
    stage.act("play", "space")
    assert stage.state.playing
    for _ in range(200):
        if not stage.state.playing:
            break
        host.run_timers()
    assert stage.state.cursor == 120
    assert not stage.state.playing


def test_the_worst_steps_come_in_order(run):
    stage, host = run
    stage.act("worst:1", "n")
    first = stage.state.cursor
    stage.act("worst:1", "n")
    assert (first, stage.state.cursor) == (1, 2)
    stage.act("worst:-1", "N")
    assert stage.state.cursor == first
    assert "worst telescoping step 1 of" in host.said[-1]


def test_the_crosshair_reads_a_dash_before_the_first_value(run):
    stage, host = run
    for action in ("first", "crosshair"):
        stage.act(action, "")
    assert "update @0 ━ – ╌ " in screen(stage, host)
    stage.act("step:1", "right")
    assert "update @1 ━ – " not in screen(stage, host)


def test_choosing_an_example_shows_its_prediction(run):
    stage, host = run
    stage.act("view:telescoping", "2")
    stage.act("down", "j")
    host.run_timers()
    assert stage.data.telescoping.single
    assert stage.panes()["prediction"].series[0].y[120] == pytest.approx(float(Run.output(120)[0, 0]))
    assert "example 0" in screen(stage, host)
    stage.act("output", "o")
    assert host.said[-1] == "there is only one output"


def test_export_writes_csv_json_and_svg_and_never_overwrites(run, tmp_path):
    stage, host = run
    stage.act("export", "e")
    stage.act("export", "e")
    assert host.said[0] == f"wrote {tmp_path}/mlp-loss.csv, .json, .svg"
    assert host.said[1] == f"wrote {tmp_path}/mlp-loss-2.csv, .json, .svg"
    rows = (tmp_path / "mlp-loss.csv").read_text().splitlines()
    assert rows[0] == "step,loss"
    assert rows[41].startswith(f"{SPIKE},")
    assert float(rows[121].split(",")[1]) == Run.loss(120)
    table = json.loads((tmp_path / "mlp-loss.json").read_text())
    assert table["columns"]["loss"][0] is None
    assert (tmp_path / "mlp-loss.svg").read_text().startswith("<svg")


def test_export_to_a_folder_that_cannot_be_written_says_so(run, monkeypatch, tmp_path):
    stage, host = run
    monkeypatch.setattr(Path, "cwd", classmethod(lambda cls: cls(tmp_path / "nowhere")))
    stage.act("export", "e")
    assert host.said[-1] == f"cannot write to {tmp_path}/nowhere: No such file or directory"


def test_yank_copies_the_row_at_the_cursor(run):
    stage, host = run
    stage.act("step:-10", "shift+left")
    stage.act("yank", "y")
    assert host.copied == [f"step\tloss\n110\t{Run.loss(110)}\n"]
    assert host.said[-1] == "copied 1 row of loss"


@pytest.mark.parametrize(
    "pane", ["loss", "update", "accuracy", "prediction", "error", "layers", "events", "traces"]
)
def test_repro_is_python_and_a_command(pane):
    lines = repro(pane, Path("runs/it's.zarr"))
    assert max(map(cells, lines)) <= 54, "it fits the box on the narrowest screen"
    assert any(line.startswith(("tscope ", "python -c")) for line in lines)
    if "# Python" in lines:
        compile("\n".join(lines[lines.index("# Python") :]), "repro", "exec")
    command = "\n".join(lines[1 : lines.index("")] if "" in lines else lines[1:])
    words = shlex.split(command.replace("\\\n", ""))
    assert "it's.zarr" in words[-1] if words[0] == "python" else "runs/it's.zarr" in words


def test_repro_repeats_the_options_of_the_analysis_that_is_shown():
    options = {"probe": "other set.npz", "rule": "simpson", "replay": False, "layers": False, "every": 1}
    lines = repro("error", Path("a.zarr"), options={**options, "dtype": None, "max_memory_mb": 512})
    assert lines[1:5] == [
        "tscope analyze a.zarr --metric telescoping \\",
        "  --probe 'other set.npz' --rule simpson --no-layers \\",
        "  --json",
        "",
    ]
    start = lines.index("result = tscope.analyze(") + 1
    assert lines[start : lines.index(")")] == [
        '    "a.zarr",',
        '    "telescoping",',
        '    probe="other set.npz",',
        '    rule="simpson",',
        "    layers=False,",
    ]


def test_repro_of_the_layers_gives_the_shares_of_the_range():
    lines = repro("layers", Path("a.zarr"), options={"replay": True}, band=(3, 9))
    assert "    replay=True," in lines
    contribution, residual = np.arange(24.0).reshape(12, 2), np.full(12, 0.5)
    arrays = {"step": np.arange(12), "contribution": contribution, "residual": residual}
    result = SimpleNamespace(
        arrays={name: SimpleNamespace(data=data) for name, data in arrays.items()},
        provenance={"layers": ["a", "b"]},
    )
    code = lines[lines.index(")") + 1 :]
    namespace: dict[str, object] = {"result": result}
    exec("\n".join([*code[:-1], f"shares, beyond = {code[-1]}"]), namespace)
    moved = contribution[4:10].sum(0)
    assert np.allclose(namespace["shares"], moved / moved.sum())
    assert namespace["beyond"] == 3 / moved.sum()


def test_repro_commands_give_the_numbers(run):
    stage, host = run
    stage.act("repro", "r")
    title, lines = host.shown[-1]
    assert title == "reproduce: loss"
    namespace: dict[str, object] = {}
    exec("\n".join([*lines[lines.index("# Python") :][:-1], f"values = {lines[-1]}"]), namespace)
    assert namespace["values"][120] == Run.loss(120)


def test_escape_undoes_and_then_leaves(run):
    stage, host = run
    for action in ("maximise", "mark_range", "back", "back"):
        stage.act(action, "")
    assert not stage.state.maximised
    assert stage.state.range_start is None
    assert host.left == 0
    stage.act("back", "escape")
    assert host.left == 1


def test_clicks_go_to_steps_panes_and_tabs(run):
    stage, _ = run
    stage.click(50, 6)
    assert stage.state.focus == "accuracy"
    stage.click(20, 20)
    assert 0 < stage.state.cursor < 120
    stage.click(18, 1)
    assert stage.state.view == "telescoping"
    stage.click(32, 1)
    assert stage.state.view == "effective"
    stage.click(44, 1)
    assert stage.state.view == "kernel"
    stage.click(54, 1)
    assert stage.state.view == "averaging"
    stage.click(64, 1)
    assert stage.state.view == "layers"


def test_a_live_run_is_followed_and_counted(tmp_path):
    live = Run(tmp_path / "live.zarr")
    live.train(20)
    host = FakeHost()
    stage = RunStage(host, live.path)
    stage.start()
    assert "LIVE" in screen(stage, host)
    assert "follow" in screen(stage, host)
    live.train(10)
    host.run_timers()
    assert stage.state.cursor == 30
    stage.act("step:-10", "")
    live.train(12)
    host.run_timers()
    assert stage.state.cursor == 20
    assert "+12 new" in screen(stage, host)
    stage.act("follow", "f")
    assert stage.state.cursor == 42
    live.close()
    host.run_timers()
    assert "done" in screen(stage, host).split("\n")[0]


def test_nothing_is_read_while_nothing_changes(run, monkeypatch):
    stage, host = run
    reads = []
    monkeypatch.setattr(stage._reader._source, "load", lambda *a, **k: reads.append(a))
    waits = []
    for _ in range(8):
        waits.append(max(seconds for seconds, _ in host.timers))
        host.run_timers()
    assert reads == []
    assert waits == sorted(waits)


FAKE = "import sys; sys.stderr.write('telescoping 50%\\r'); sys.stderr.flush(); {}"


def analysis(tmp_path, code: str) -> tuple[str | None, list[str]]:
    seen: list[str] = []
    job = Analysis(tmp_path, "telescoping", ["--replay"], program=[sys.executable, "-c", FAKE.format(code)])
    assert job.command[-5:] == ["analyze", str(tmp_path), "--metric", "telescoping", "--replay"]
    return job.run(seen.append), seen


def test_an_analysis_reports_progress_and_success(tmp_path):
    failure, seen = analysis(tmp_path, "sys.exit(0)")
    assert failure is None
    assert seen[0] == "telescoping 50%"


def test_a_failed_analysis_says_why(tmp_path):
    failure, _ = analysis(tmp_path, "sys.stderr.write('tscope: no \\x1b[31mprobe set\\n'); sys.exit(4)")
    assert failure == "no probe set"


def test_an_analysis_that_cannot_start_says_why(tmp_path):
    assert "No such file" in (Analysis(tmp_path, "telescoping", program=["/nowhere/python"]).run(print) or "")


def test_an_analysis_is_cancelled(tmp_path):
    job = Analysis(
        tmp_path,
        "telescoping",
        program=[sys.executable, "-c", "import time, sys; print('on', file=sys.stderr); time.sleep(60)"],
    )
    started = time.monotonic()
    assert job.run(lambda text: job.cancel()) == "cancelled"
    assert time.monotonic() - started < 30


def test_an_analysis_is_shown_when_it_is_done(run, monkeypatch):
    stage, host = run

    def pretend(self, progress):
        save_telescoping(self.command and stage.path)
        return

    monkeypatch.setattr(Analysis, "run", pretend)
    stage.act("view:telescoping", "2")
    assert "needs replay: press a" in screen(stage, host)
    stage.act("analyse", "a")
    assert host.said[-1] == "analysis saved in the trace"
    assert "head" in screen(stage, host)
