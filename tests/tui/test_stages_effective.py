"""What the keys do in the view of effective parameters, without a terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tscope_tui.jobs.analysis import Analysis
from tscope_tui.stages.repro import repro
from tscope_tui.stages.run import RunStage
from tui_host import FakeHost, screen
from tui_traces import finished, save_effective


@pytest.fixture
def run(tmp_path, monkeypatch) -> tuple[RunStage, FakeHost]:
    monkeypatch.chdir(tmp_path)
    host = FakeHost()
    stage = RunStage(host, finished(tmp_path / "mlp.zarr"))
    stage.start()
    return stage, host


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
    shown = stage.rects(*host.dimensions)
    assert {name for name in shown if id(stage.panes()[name]) != before[name]} == {"spread"}
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
