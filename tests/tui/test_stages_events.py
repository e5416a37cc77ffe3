"""The pane of the events, their marks in every view, and the search that a key starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tscope_format import save_result
from tscope_tui.data.events import Event
from tscope_tui.data.saved_events import METRIC
from tscope_tui.jobs.analysis import Analysis
from tscope_tui.panes.box import Look
from tscope_tui.panes.scrubber import Scrubber
from tscope_tui.spans import cells, plain
from tscope_tui.stages.run import RunStage
from tscope_tui.stages.run_analysis import request_of
from tui_host import FakeHost, screen
from tui_traces import SPIKE, events_result, finished

from tscope.analyses.events.options import Options

VIEWS = ("overview", "telescoping", "effective", "kernel", "boosting", "layers", "examples")


def opened(path: Path, width: int = 80, height: int = 24) -> tuple[RunStage, FakeHost]:
    host = FakeHost(width, height)
    stage = RunStage(host, path)
    stage.start()
    for _ in range(3):
        stage.act("focus:1", "tab")
    return stage, host


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> Path:
    return finished(tmp_path_factory.mktemp("quick") / "mlp.zarr")


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> Path:
    path = finished(tmp_path_factory.mktemp("searched") / "mlp.zarr")
    save_result(path, events_result(options={"fit": 0.9, "spike": 2.0, "labels": None}), "model")
    return path


def test_quick_rules_are_said_to_be_quick_and_what_looks_for_all(quick):
    stage, host = opened(quick)
    assert stage.state.focus == "events"
    text = screen(stage, host)
    assert "~ quick rules; a here looks for all" in text
    assert f"{SPIKE} ~s loss spike" in text
    assert "\n ~events " in text
    stage.act("maximise", "z")
    assert "   1  w worst telescoping" in screen(stage, host)


def test_saved_events_are_listed_with_their_confidence_and_told_in_full(searched):
    stage, host = opened(searched)
    stage.act("first", "home")
    stage.act("event:1", "]")
    stage.act("event:1", "]")
    assert stage.state.cursor == 30
    assert host.said[-1] == "step 30: [99.9%, 29–30] training examples are fitted: accuracy 1"
    text = screen(stage, host)
    assert "quick" not in text
    assert "▸ 30  i 99.9% training examples" in text
    assert "\n events " in text
    stage.act("maximise", "z")
    text = " ".join(screen(stage, host).replace("│", " ").split())
    assert "▸ 30 i 99.9% 29–30 training examples are fitted: accuracy 1" in text
    assert "interpolation, 99.9% sure, between 29 and 30: training examples are fitted" in text
    assert "defined as the first row at which the fit of the training examples is 0.99 or more" in text


def test_events_are_marked_in_every_view(searched):
    stage, host = opened(searched)
    below = {}
    for view in VIEWS:
        stage.act(f"view:{view}", "")
        below[view] = screen(stage, host).split("\n")[-3]
    assert {tuple(line.split()) for line in below.values()} == {("events", *"wisgm")}


def test_a_search_that_is_older_than_the_run_says_so(tmp_path):
    path = finished(tmp_path / "mlp.zarr")
    save_result(path, events_result(90), "model")
    stage, host = opened(path, 160, 48)
    assert "looked up to step 90 of 120: a here" in screen(stage, host)


def test_a_run_in_which_nothing_stands_out_says_what_looks_for_more(tmp_path):
    path = finished(tmp_path / "mlp.zarr", 0, probe=False)
    stage, host = opened(path, 160, 48)
    text = " ".join(screen(stage, host).replace("│", " ").split())
    assert "none by quick rules, or: tscope analyze" in text
    save_result(path, events_result(0, ()), "model")
    stage, host = opened(path, 160, 48)
    assert "nothing stands out in what was looked at" in screen(stage, host)


def test_a_looks_for_events_with_the_options_of_the_last_search(quick, searched, monkeypatch):
    stage, _ = opened(quick)
    assert request_of(stage.data, stage.state, "events") == (METRIC, [])
    stage, host = opened(searched)
    assert request_of(stage.data, stage.state, "events") == (METRIC, ["--fit", "0.9"])
    commands = []
    monkeypatch.setattr(Analysis, "run", lambda self, progress: commands.append(self.command))
    stage.act("analyse", "a")
    assert commands[0][-4:] == ["--metric", "events", "--fit", "0.9"]
    assert host.said[-1] == "analysis saved in the trace"


def test_what_goes_without_saying_is_what_the_metric_does():
    from tscope_tui.stages.flags import flags

    assert flags(METRIC, vars(Options())) == []


def test_the_commands_of_the_events_are_those_of_the_search(quick, searched):
    stage, host = opened(searched)
    stage.act("repro", "r")
    title, lines = host.shown[-1]
    assert title == "reproduce: events"
    assert lines[1].endswith(" \\")
    assert "  --metric events --fit 0.9 --json" in lines
    assert 'result.provenance["events"]' in lines
    assert "# the other marks are the browser's own: docs/browsing.md" in lines
    assert "# note: not looked for: alignment jump" in lines
    compile("\n".join(lines[lines.index("# Python") :]), "repro", "exec")
    stage, host = opened(quick)
    stage.act("repro", "r")
    assert "# the other marks are the browser's own: docs/browsing.md" in host.shown[-1][1]


def test_an_event_is_copied_and_exported_whole(searched, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stage, host = opened(searched)
    stage.act("step:-10", "")
    stage.act("yank", "y")
    head, row = host.copied[-1].splitlines()
    found = dict(zip(head.split("\t"), row.split("\t"), strict=True))
    assert (found["step"], found["name"], found["low"], found["high"]) == ("80", "grokking", "60", "100")
    assert (found["confidence"], found["source"]) == ("1.0", "saved")
    assert found["definition"].startswith("the first row, at twice the step of interpolation")
    stage.act("export", "e")
    columns = json.loads((tmp_path / "mlp-events.json").read_text())["columns"]
    place = columns["kind"].index("w")
    assert (columns["low"][place], columns["confidence"][place], columns["source"][place]) == (
        -1,
        None,
        "recorded",
    )


@pytest.mark.parametrize("size", [(60, 15), (72, 20), (80, 24), (120, 36), (160, 48), (300, 100)])
def test_the_pane_fits_any_size(searched, size):
    for keys in ((), ("maximise",), ("first", "maximise")):
        stage, host = opened(searched, *size)
        for key in keys:
            stage.act(key, key)
        assert all(cells(line) <= size[0] for line in screen(stage, host).split("\n"))


def test_of_marks_in_one_column_what_went_wrong_is_shown_and_then_what_is_sure():
    events = [Event(50, "!", "NaN"), Event(50, "g", "", "saved")]
    for shown, given in (("!", events), ("g", [Event(50, "s", "", "quick"), events[1], Event(50, "w", "")])):
        below = plain(Scrubber(0, 100, events=given).lines(60, Look())[1])
        assert below.split()[-1] == shown
    assert plain(Scrubber(0, 100).lines(60, Look())[1]).strip() == ""
