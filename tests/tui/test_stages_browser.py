"""What the keys do in the list of traces, without a terminal."""

from __future__ import annotations

import re

import pytest
from tscope_tui.stages.browser import BrowserStage
from tui_host import FakeHost, screen
from tui_traces import finished, save_effective


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
