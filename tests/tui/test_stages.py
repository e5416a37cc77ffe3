"""What the keys do, without a terminal."""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tscope_tui.jobs.analysis import Analysis
from tscope_tui.spans import cells
from tscope_tui.stages.browser import BrowserStage
from tscope_tui.stages.chrome import LATER
from tscope_tui.stages.repro import repro
from tscope_tui.stages.run import RunStage
from tui_host import FakeHost, screen
from tui_traces import SPIKE, Run, finished, save_effective, save_telescoping


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


def test_later_views_say_what_they_wait_for(run):
    stage, host = run
    for key in "4567":
        stage.act("later", key)
        assert host.said[-1] == LATER[key]
        assert cells(f" {host.said[-1]}") <= 80


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
    stage, host = run
    stage.click(50, 6)
    assert stage.state.focus == "accuracy"
    stage.click(20, 20)
    assert 0 < stage.state.cursor < 120
    stage.click(18, 1)
    assert stage.state.view == "telescoping"
    stage.click(32, 1)
    assert stage.state.view == "effective"
    stage.click(44, 1)
    assert host.said[-1] == LATER["4"]


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


@pytest.fixture
def effective(run) -> tuple[RunStage, FakeHost]:
    stage, host = run
    save_effective(
        stage.path, error=0.1, options={"form": "probes", "probe": "my set.npz", "seed": 3, "loss": "auto"}
    )
    stage.act("view:effective", "3")
    stage.reload()
    return stage, host


def test_effective_parameters_that_are_missing_say_what_would_provide_them(run):
    stage, host = run
    stage.act("view:effective", "3")
    text = screen(stage, host)
    # The synthetic traces have neither program nor batches.
    assert "it lacks the model as data: record a model that torch.export can export" in text
    assert "record --outputs all" in text
    stage.data = replace(stage.data, effective_lacks=())
    text = screen(stage, host)
    assert "press a, or run:" in text
    assert "tscope analyze /" in text
    assert "--metric effective-params" in text


def test_without_held_out_examples_the_gap_says_how_to_get_them(run):
    stage, host = run
    save_effective(stage.path, test=0)
    stage.act("view:effective", "3")
    stage.reload()
    text = screen(stage, host)
    assert "no held-out examples: for p_test" in text
    assert "1 note (r)" in text
    assert [one.label for one in stage.panes()["parameters"].series] == ["train"]
    stage.act("focus:1", "tab")
    stage.act("repro", "r")
    assert "# note: no held-out examples" in "\n".join(host.shown[-1][1])
    assert "p_test" not in "\n".join(host.shown[-1][1]).split("# note")[0]


def test_the_effective_parameters_are_read_at_the_cursor(effective):
    stage, host = effective
    found = stage.data.effective
    stage.act("event:-1", "[")
    assert "p_test peaks at 54" in host.said[-1]
    assert stage.state.cursor == 61
    assert "step 61: p_train 10.2 ± 1  p_test 54 ± 5.4 · saved result, probes (64 probes)" in screen(
        stage, host
    )
    assert "‖s(x)‖² of examples @61" in screen(stage, host)
    pane = stage.panes()["spread"]
    assert pane.norms["train"].sum() == pytest.approx(found.p["train"][61], rel=1e-6)
    stage.act("step:-10", "")
    assert "‖s(x)‖² of examples @51" in screen(stage, host)


def test_moving_the_cursor_draws_no_curve_anew(effective):
    stage, host = effective
    screen(stage, host)
    before = {name: id(pane) for name, pane in stage.panes().items()}
    drawn = len(host.cache._plots)
    stage.act("step:-1", "")
    screen(stage, host)
    assert {name for name, pane in stage.panes().items() if id(pane) != before[name]} == {"spread"}
    assert len(host.cache._plots) == drawn


def test_exporting_and_copying_effective_parameters(effective, tmp_path):
    stage, host = effective
    stage.act("go", "g")
    host.asked[1]("61")
    stage.act("yank", "y")
    head, row = (line.split("\t") for line in host.copied[-1].splitlines())
    assert head == ["step", "train", "train se", "test", "test se"]
    assert row[0] == "61"
    assert float(row[2]) == pytest.approx(0.1 * float(row[1]))
    stage.act("export", "e")
    assert (tmp_path / "mlp-effective-params.svg").read_text().count('stroke-opacity="0.5"') == 2
    for _ in range(2):
        stage.act("focus:1", "tab")
    stage.act("export", "e")
    lines = (tmp_path / "mlp-norms.csv").read_text().splitlines()
    assert lines[0] == "set,example,norm"
    assert lines[1].startswith("train,100,")
    assert len(lines) == 71
    stage.act("yank", "y")
    rows = [line.split("\t") for line in host.copied[-1].splitlines()[1:]]
    assert len(rows) == 10
    assert [float(row[2]) for row in rows] == sorted((float(row[2]) for row in rows), reverse=True)


def test_the_effective_parameters_are_reproduced_with_their_options(effective):
    stage, host = effective
    stage.act("repro", "r")
    _, lines = host.shown[-1]
    text = "\n".join(lines).replace("\\\n", "")
    assert "--metric effective-params" in text
    assert "--form probes   --probe 'my set.npz' --seed 3 --json" in text
    assert 'result.arrays["p_test_se"].data' in lines
    for name in ("gap", "spread", "method"):
        lines = repro(name, stage.path, options={"max_memory_mb": 64.0}, step=61)
        assert any("--max-memory 64.0" in line for line in lines)
        compile("\n".join(lines[lines.index("# Python") :]), "repro", "exec")
    assert "    max_memory_mb=64.0," in lines


def test_an_analysis_of_effective_parameters_is_shown_when_it_is_done(run, monkeypatch):
    stage, host = run
    commands = []

    def pretend(self, progress):
        commands.append(self.command)
        save_effective(stage.path, options={"probe": "my set.npz", "every": 2})

    monkeypatch.setattr(Analysis, "run", pretend)
    stage.act("view:effective", "3")
    stage.act("analyse", "a")
    assert host.said[-1] == "analysis saved in the trace"
    assert "p_train 20" in screen(stage, host)
    stage.act("analyse", "a")
    assert [command[5:] for command in commands] == [
        ["--metric", "effective-params"],
        ["--metric", "effective-params", "--probe", "my set.npz", "--every", "2"],
    ]


@pytest.fixture
def listed(tmp_path, monkeypatch) -> tuple[BrowserStage, FakeHost]:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c"):
        finished(tmp_path / f"{name}.zarr", 10)
    next((tmp_path / "b.zarr" / "model" / "loss" / "c").iterdir()).write_bytes(b"short")
    host = FakeHost()
    stage = BrowserStage(host, [tmp_path])
    stage.order = "name"
    stage.start()
    host.run_timers()
    return stage, host


def test_filtering_choosing_and_opening(listed, tmp_path):
    stage, host = listed
    stage.act("filter", "/")
    host.asked[1]("state:done")
    assert [entry.name for entry in stage.entries()] == ["a", "c"]
    stage.act("last", "end")
    stage.act("enter", "enter")
    assert host.opened == [tmp_path / "c.zarr"]
    host.asked[1]("[")
    assert "is not a regular expression" in host.said[-1]
    stage.act("back", "escape")
    assert len(stage.entries()) == 3


def test_effective_parameters_in_the_list(listed, tmp_path):
    stage, host = listed
    assert "p_train" not in screen(stage, host), "no room is taken while there is no result"
    save_effective(tmp_path / "c.zarr", 10)
    save_effective(tmp_path / "a.zarr", 10, test=0)
    host.run_timers()
    lines = screen(stage, host).split("\n")
    assert "loss p_train p_test  size  age" in lines[2]
    rows = {line.split()[1]: line.split() for line in lines[3:6]}
    assert rows["c"][5:7] == ["20", "12.1"]
    assert rows["a"][5:7] == ["20", "-"]
    stage.act("filter", "/")
    host.asked[1]("p_test>5")
    assert [entry.name for entry in stage.entries()] == ["c"]
    host.asked[1]("")
    stage.order = "p_test"
    assert [entry.name for entry in stage.entries()] == ["c", "a", "b"]
    stage.act("export", "e")
    assert "p_train,p_test" in (tmp_path / "traces-traces.csv").read_text().splitlines()[0]
    host.dimensions = (60, 15)
    assert "p_train" not in screen(stage, host), "names come first where there is no room"


def test_sorting_and_pinning(listed):
    stage, host = listed
    stage.act("last", "end")
    stage.act("pin", "p")
    assert [entry.name for entry in stage.entries()] == ["c", "a", "b"]
    stage.act("sort", "s")
    assert host.said[-1] == "sorted by state"


def test_the_doctor_reports_every_marked_trace(listed):
    stage, host = listed
    stage.act("first", "home")
    stage.act("mark", "space")
    stage.act("mark", "space")
    stage.act("doctor", "d")
    title, lines = host.shown[-1]
    text = "\n".join(lines)
    assert title == "verified"
    assert "a.zarr  no problem found" in text
    checked = [line for line in lines if "checked: " in line]
    assert checked
    assert not any(re.search(r"\b1 \w+s\b", line) for line in checked), "one of a kind is not several"
    assert "b.zarr  " in text
    assert "model/loss" in text
    assert "c.zarr" not in text


def test_the_doctor_can_be_cancelled(listed):
    stage, host = listed
    host.held = []
    stage.act("doctor", "d")
    stage.act("doctor", "d")
    host.held.pop()()
    assert host.shown[-1][1][-1] == "cancelled"


def test_marked_traces_are_exported(listed, tmp_path):
    stage, host = listed
    stage.act("first", "home")
    stage.act("mark", "space")
    stage.act("export", "e")
    assert len((tmp_path / "traces-traces.csv").read_text().splitlines()) == 2
    stage.act("yank", "y")
    assert host.copied == [f"{tmp_path}/b.zarr\n"]
