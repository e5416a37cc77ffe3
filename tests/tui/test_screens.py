"""What the stages paint, as golden text, at every tier."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tscope_tui.spans import cells
from tscope_tui.stages.browser import BrowserStage
from tscope_tui.stages.run import RunStage
from tui_host import FakeHost, screen
from tui_traces import (
    Run,
    finished,
    save_boosting,
    save_effective,
    save_events,
    save_kernel,
    save_telescoping,
    save_updates,
)

SIZES = [(60, 15), (80, 24), (120, 36), (160, 48)]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("screens") / "runs"
    save_telescoping(finished(folder / "mlp.zarr"), 120, ("fc1.weight", "fc1.bias", "head.weight"))
    finished(folder.parent / "effective" / "other.zarr", 60)
    # Not in the folder of the browser's golden text, whose columns would change.
    save_effective(finished(folder.parent / "effective" / "mlp.zarr"), error=0.08)
    save_kernel(finished(folder.parent / "kernel" / "mlp.zarr"))
    save_events(finished(folder.parent / "events" / "mlp.zarr"))
    explained = finished(folder.parent / "updates" / "mlp.zarr")
    save_telescoping(explained, 120, ("fc1.weight", "fc1.bias", "head.weight"))
    save_updates(explained)
    whole = finished(folder.parent / "whole" / "mlp.zarr")
    save_telescoping(whole, 120, ("fc1.weight", "fc1.bias", "head.weight"))
    for save in (save_kernel, save_updates, save_boosting):
        save(whole)
    finished(folder / "noprobe.zarr", 60, probe=False)
    run = Run(folder / "stopped.zarr")
    run.train(50)
    run.close("interrupted", "SIGINT")
    run = Run(folder / "failed.zarr")
    run.train(30)
    run.close("failed", "disk full")
    finished(folder / "hole.zarr", 20)
    next((folder / "hole.zarr" / "model" / "loss" / "c").iterdir()).unlink()
    (folder / "torn.zarr").mkdir()
    (folder / "torn.zarr" / "zarr.json").write_text("{ garbage")
    return folder


@pytest.fixture
def traces(written, monkeypatch) -> Path:
    """Return the folder by a short relative path, as one types it."""
    monkeypatch.chdir(written.parent)
    return Path("runs")


def opened(path: Path, width: int, height: int, *keys: str, ascii: bool = False) -> tuple[RunStage, FakeHost]:
    host = FakeHost(width, height, ascii=ascii)
    stage = RunStage(host, path)
    stage.start()
    for key in keys:
        stage.act(key, key)
        host.run_timers()
    return stage, host


def browser(folder: Path, width: int, height: int) -> tuple[BrowserStage, FakeHost]:
    host = FakeHost(width, height)
    stage = BrowserStage(host, [folder])
    stage.order = "name"
    stage.start()
    host.run_timers()
    return stage, host


def steady(text: str) -> str:
    """Leave out what differs from run to run: sizes and ages."""
    text = re.sub(r" +\d+(\.\d)?[BKM] +(now|\d+[smhd])(?=│)", "  SIZE AGE", text)
    return re.sub(r"traces, \d+(\.\d)?[BKM]\)", "traces, SIZE)", text)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("view", ["overview", "telescoping"])
def test_views_of_a_run(traces, size, view, golden):
    stage, host = opened(traces / "mlp.zarr", *size, f"view:{view}", "event:-1")
    text = screen(stage, host)
    assert all(cells(line) <= size[0] for line in text.split("\n"))
    golden(f"screen_{view}_{size[0]}x{size[1]}.txt", text)


@pytest.mark.parametrize("size", SIZES)
def test_the_effective_parameters(traces, size, golden):
    stage, host = opened(Path("effective/mlp.zarr"), *size, "view:effective", "event:-1")
    text = screen(stage, host)
    assert all(cells(line) <= size[0] for line in text.split("\n"))
    golden(f"screen_effective_{size[0]}x{size[1]}.txt", text)


def test_the_effective_parameters_in_ascii(traces, golden):
    stage, host = opened(
        Path("effective/mlp.zarr"), 80, 24, "view:effective", "event:-1", "crosshair", ascii=True
    )
    text = screen(stage, host)
    assert text.isascii()
    golden("screen_effective_ascii_80x24.txt", text)


@pytest.mark.parametrize("size", SIZES)
def test_the_kernel(traces, size, golden):
    keys = ("view:kernel", "event:-1", "down", "pan:1", "pan:1")
    stage, host = opened(Path("kernel/mlp.zarr"), *size, *keys)
    text = screen(stage, host)
    assert all(cells(line) <= size[0] for line in text.split("\n"))
    golden(f"screen_kernel_{size[0]}x{size[1]}.txt", text)


@pytest.mark.parametrize("size", SIZES)
def test_the_events(traces, size, golden):
    keys = ("focus:1", "focus:1", "focus:1", "event:-1", "event:-1", "event:-1")
    stage, host = opened(Path("events/mlp.zarr"), *size, *keys)
    if size == (160, 48):
        stage.state = replace(stage.state, focus="events")
    text = screen(stage, host)
    assert all(cells(line) <= size[0] for line in text.split("\n"))
    golden(f"screen_events_{size[0]}x{size[1]}.txt", text)


def test_the_kernel_in_ascii(traces, golden):
    stage, host = opened(Path("kernel/mlp.zarr"), 80, 24, "view:kernel", ascii=True)
    text = screen(stage, host)
    assert text.isascii()
    golden("screen_kernel_ascii_80x24.txt", text)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("view", ["telescoping", "examples"])
def test_the_updates(traces, size, view, golden):
    stage, host = opened(Path("updates/mlp.zarr"), *size, f"view:{view}", "event:-1")
    text = screen(stage, host)
    assert all(cells(line) <= size[0] for line in text.split("\n"))
    golden(f"screen_updates_{view}_{size[0]}x{size[1]}.txt", text)


def test_the_influences_in_ascii(traces, golden):
    stage, host = opened(Path("updates/mlp.zarr"), 80, 24, "view:examples", "event:-1", ascii=True)
    text = screen(stage, host)
    assert text.isascii()
    golden("screen_updates_ascii_80x24.txt", text)


def test_effective_parameters_in_the_browser(traces, golden):
    golden("screen_browser_effective_80x24.txt", steady(screen(*browser(Path("effective"), 80, 24))))


@pytest.mark.parametrize("size", SIZES)
def test_the_browser(traces, size, golden):
    stage, host = browser(traces, *size)
    stage.do_down()
    stage.do_pin()
    stage.do_mark()
    host.run_timers()
    text = screen(stage, host)
    golden(f"screen_browser_{size[0]}x{size[1]}.txt", steady(text))


def test_ascii_is_ascii(traces, golden):
    stage, host = opened(
        traces / "mlp.zarr",
        80,
        24,
        "view:telescoping",
        "zoom:2",
        "step:-10",
        "mark_range",
        "step:-10",
        ascii=True,
    )
    text = screen(stage, host)
    assert text.isascii()
    golden("screen_ascii_80x24.txt", text)


def test_a_zoomed_pane_with_crosshair(traces, golden):
    stage, host = opened(
        traces / "mlp.zarr",
        80,
        24,
        "view:telescoping",
        "focus:1",
        "maximise",
        "zoom:2",
        "step:-10",
        "crosshair",
    )
    golden("screen_maximised_80x24.txt", screen(stage, host))


def test_a_run_without_probe_says_what_would_provide_it(traces, golden):
    stage, host = opened(traces / "noprobe.zarr", 80, 24, "view:telescoping")
    golden("screen_noprobe_80x24.txt", steady(screen(stage, host)))


@pytest.mark.parametrize("name", ["hole.zarr", "torn.zarr"])
def test_a_damaged_trace_shows_the_reason(traces, name, golden):
    stage, host = opened(traces / name, 80, 24)
    golden(f"screen_{name.removesuffix('.zarr')}_80x24.txt", steady(screen(stage, host)))


def test_the_first_frame_needs_no_data(traces):
    host = FakeHost()
    host.held = []
    for stage in (RunStage(host, traces / "mlp.zarr"), BrowserStage(host, [traces])):
        stage.start()
        assert "reading" in screen(stage, host)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (10, 4), (20, 5), (40, 10), (71, 19), (72, 20), (300, 100)])
def test_any_size_can_be_painted(traces, size):
    for view, path in (
        ("overview", traces / "mlp.zarr"),
        ("telescoping", traces / "mlp.zarr"),
        ("effective", Path("effective/mlp.zarr")),
        ("effective", traces / "mlp.zarr"),
    ):
        stage, host = opened(path, *size, f"view:{view}")
        if size[1] > 1:
            screen(stage, host)
    stage, host = browser(traces, *size)
    if size[1] > 1:
        screen(stage, host)


def test_an_empty_folder_says_how_to_record(tmp_path):
    text = screen(*browser(tmp_path, 80, 24))
    assert "no traces in" in text
    assert "tscope record -- python train.py" in text


def test_a_vanished_trace_leaves_the_list(traces, tmp_path):
    for name in ("mlp.zarr", "noprobe.zarr"):
        shutil.copytree(traces / name, tmp_path / name)
    stage, host = browser(tmp_path, 80, 24)
    assert len(stage.entries()) == 2
    shutil.rmtree(tmp_path / "noprobe.zarr")
    host.run_timers()
    assert [entry.name for entry in stage.entries()] == ["mlp"]


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
@pytest.mark.parametrize(
    ("name", "keys"), [("example", ("view:examples", "enter")), ("boosting", ("view:kernel", "view:kernel"))]
)
def test_what_views_lead_to(traces, size, name, keys, golden):
    stage, host = opened(traces.parent / "whole" / "mlp.zarr", *size, *keys)
    golden(f"screen_{name}_{size[0]}x{size[1]}.txt", screen(stage, host))
