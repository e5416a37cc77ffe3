"""The program under Textual's pilot: what only the terminal side does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.style import Style
from textual import events
from textual.geometry import Size
from textual.pilot import Pilot
from tscope_tui.spans import Span, plain
from tscope_tui.stages.run import RunStage
from tscope_tui.terminal.app import TscopeApp
from tscope_tui.terminal.overlay import Prompt
from tscope_tui.terminal.palette import PALETTES, first_palette, style_of
from tscope_tui.terminal.surface import difference
from tscope_tui.terminal.threads import Threads
from tui_traces import Run, finished

Drive = Callable[[TscopeApp, Pilot[None]], Awaitable[None]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("app")
    finished(path / "a.zarr", 60)
    finished(path / "b.zarr", 30)
    return path


def drive(
    paths: list[Path], steps: Drive, *, size: tuple[int, int] = (80, 24), ascii: bool = False
) -> TscopeApp:
    app = TscopeApp(paths, ascii=ascii)

    async def main() -> None:
        async with app.run_test(size=size) as pilot:
            await steps(app, pilot)

    asyncio.run(main())
    return app


async def until(pilot: Pilot[None], condition: Callable[[], bool], what: str) -> None:
    for _ in range(400):
        if condition():
            return
        await pilot.pause(0.02)
    raise AssertionError(f"{what}:\n{shown(pilot.app)}")


def opened(app: TscopeApp) -> bool:
    return app.scope == "run" and isinstance(app.stage, RunStage) and app.stage.loaded


def shown(app: object) -> str:
    return "\n".join(plain(line) for line in app.surface.lines)  # type: ignore[attr-defined]


def test_from_the_browser_into_a_run_and_back(folder):
    async def steps(app, pilot):
        await until(pilot, lambda: "b  " in shown(app) and "done" in shown(app), "the list")
        await pilot.press("s", "end", "enter")
        await until(pilot, lambda: opened(app), "the run")
        assert "[1 Overview]" in shown(app)
        await pilot.press("2")
        await until(pilot, lambda: "‖f−f₀‖ rms" in shown(app), "telescoping")
        await pilot.press("escape")
        await until(pilot, lambda: "traces" in shown(app), "the browser again")
        await pilot.press("q")

    assert drive([folder], steps).return_code == 0


def test_a_single_trace_is_opened_at_once(folder):
    async def steps(app, pilot):
        await until(pilot, lambda: "[1 Overview]" in shown(app), "the run")
        await until(pilot, lambda: opened(app), "data")
        await pilot.press("left", "shift+left")
        await until(pilot, lambda: "step 49/60" in shown(app), "the cursor")

    drive([folder / "a.zarr"], steps)


def test_the_filter_applies_while_it_is_typed_and_escape_clears_it(folder):
    async def steps(app, pilot):
        await until(pilot, lambda: "2 traces" in shown(app), "the list")
        await pilot.press("slash", "b")
        await until(pilot, lambda: "filter: b  1/2" in shown(app), "the filter")
        await pilot.press("backspace", "left_square_bracket")
        await until(
            pilot, lambda: "is not a regular expression" in shown(app) or "[" in shown(app), "the error"
        )
        await pilot.press("escape")
        await until(pilot, lambda: "filter" not in shown(app).split("\n")[0], "no filter")

    drive([folder], steps)


def test_help_lists_the_keys_and_any_key_closes_it(folder):
    async def steps(app, pilot):
        await until(pilot, lambda: "2 traces" in shown(app), "the list")
        await pilot.press("question_mark")
        await until(pilot, lambda: "keys of the browser" in shown(app), "help")
        await pilot.press("j", "escape")
        await until(pilot, lambda: "keys of the browser" not in shown(app), "closed")

    drive([folder], steps)


def test_the_palette_carries_out_one_action(folder):
    async def steps(app, pilot):
        await until(pilot, lambda: "2 traces" in shown(app) and "sorted by age" in shown(app), "the list")
        await pilot.press("ctrl+p")
        await until(pilot, lambda: len(app.screen_stack) == 2, "the palette")
        await pilot.press(*"sort by age")
        await until(pilot, lambda: app.screen.query("OptionList").first().option_count == 1, "one command")
        await pilot.press("enter")
        await until(pilot, lambda: "sorted by name" in shown(app), "the action")
        assert app.scope == "browser"

    drive([folder], steps)


def test_resizing_through_the_tiers(folder):
    async def steps(app, pilot):
        await until(pilot, lambda: opened(app), "the run")
        for width, height, panes in ((160, 48, 9), (120, 36, 6), (80, 24, 4), (60, 15, 1), (20, 5, 1)):
            await pilot.resize_terminal(width, height)
            await until(
                pilot,
                lambda w=width, h=height: app.surface.size == (w, h) and len(app.surface.lines) == h,
                "size",
            )
            assert sum(line.count("┌") + line.count("┏") for line in shown(app).split("\n")) == panes

    drive([folder / "a.zarr"], steps)


def test_under_no_color_every_segment_has_a_style(folder, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")

    async def steps(app, pilot):
        await until(pilot, lambda: opened(app), "the run")
        assert app.colours == "plain"
        for y in range(24):
            for segment in app.surface.render_line(y):
                assert isinstance(segment.style, Style)
                assert segment.style.color is None

    drive([folder / "a.zarr"], steps)


def test_the_theme_and_the_mouse_are_toggled(folder):
    async def steps(app, pilot):
        await until(pilot, lambda: "2 traces" in shown(app), "the list")
        before = app.colours
        await pilot.press("T")
        await until(pilot, lambda: app.colours != before and "theme" in shown(app), "theme")
        assert app.look.colour == (app.colours != "plain")
        await pilot.press("M")
        await until(pilot, lambda: "mouse on" in shown(app), "mouse")

    drive([folder], steps)


def test_control_characters_never_reach_the_terminal(folder):
    async def steps(app, pilot):
        app.surface.show([(Span("a\x1b[31mb\x07"),)])
        assert app.surface.render_line(0).text == "a?[31mb?"

    drive([folder], steps)


def test_markup_in_names_is_only_text(tmp_path):
    path = finished(tmp_path / "x.zarr", 5, facts={"name": "[bold red]evil[/bold red] [link=x]"})

    async def steps(app, pilot):
        await until(pilot, lambda: "[bold red]evil[/bold red]" in shown(app), "the name")

    drive([path.parent], steps)


def test_a_live_run_grows_on_the_screen(tmp_path):
    run = Run(tmp_path / "live.zarr")
    run.train(20)

    async def steps(app, pilot):
        await until(pilot, lambda: opened(app), "the run")
        await until(pilot, lambda: "LIVE" in shown(app) and "step 20/20" in shown(app), "live")
        run.train(30)
        await until(pilot, lambda: "step 50/50" in shown(app), "new steps")
        await pilot.press("shift+left")
        run.train(10)
        await until(pilot, lambda: "step 40/60" in shown(app) and "+10 new" in shown(app), "what is new")

    drive([run.path], steps)


def test_only_what_changed_is_drawn_again(folder):
    async def steps(app, pilot):
        await until(pilot, lambda: opened(app), "the run")
        regions = []
        real = app.surface.refresh
        app.surface.refresh = lambda *found, **options: regions.append(found) or real(*found, **options)
        app.paint()
        assert regions == []
        await pilot.press("left")
        await until(pilot, lambda: bool(regions), "a change")
        changed = [region for found in regions for region in found]
        assert 0 < sum(region.width for region in changed) < 400

    drive([folder / "a.zarr"], steps)


@pytest.mark.parametrize(
    ("old", "new", "columns"),
    [
        ("abc", "abc", (3, 3)),
        ("abc", "aXc", (1, 2)),
        ("abc", "Xbc", (0, 1)),
        ("a漢c", "a漢X", (3, 4)),
        ("abc", "abcd", (0, 4)),
    ],
)
def test_the_columns_that_differ(old, new, columns):
    assert difference((Span(old),), (Span(new),)) == columns


def test_a_change_of_tone_is_a_difference():
    assert difference((Span("ab"), Span("c")), (Span("a"), Span("b", "bad"), Span("c"))) == (1, 2)


def test_the_prompt_edits_its_line():
    told = []
    prompt = Prompt("/", "ab", told.append, None)
    for key, character in (
        ("left", None),
        ("x", "x"),
        ("home", None),
        ("y", "y"),
        ("end", None),
        ("backspace", "\x08"),
    ):
        assert prompt.key(key, character)
    assert plain(prompt.line()) == " /yax "
    prompt.insert("p\x1b\nq")
    assert not prompt.key("enter", "\r")
    assert told == ["yaxpq"]


def test_work_in_one_group_runs_one_at_a_time_and_only_the_last_waits():
    posted = []
    threads = Threads(posted.append)
    gate = []
    order = []

    def work(name):
        while not gate and name == 0:
            time.sleep(0.001)
        order.append(name)
        return name

    for name in range(4):
        threads.run("group", lambda name=name: work(name), lambda result: None)
    gate.append(True)
    deadline = time.monotonic() + 10
    while len(posted) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert order == [0, 3]


def test_an_error_in_a_thread_is_raised_in_the_program():
    posted = []
    Threads(posted.append).run("group", lambda: 1 / 0, lambda result: None)
    deadline = time.monotonic() + 10
    while not posted and time.monotonic() < deadline:
        time.sleep(0.001)
    with pytest.raises(ZeroDivisionError):
        posted[0]()


@pytest.mark.parametrize(
    ("environment", "palette"),
    [
        ({"NO_COLOR": ""}, "plain"),
        ({"COLORFGBG": "0;15"}, "light"),
        ({"COLORFGBG": "15;0"}, "dark"),
        ({}, "dark"),
    ],
)
def test_the_first_palette(environment, palette, monkeypatch):
    for name in ("NO_COLOR", "COLORFGBG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert first_palette() == palette


def test_the_tones_of_a_picture_are_colours_themselves():
    for palette in PALETTES.values():
        style = style_of(palette, "#ff0000/#00ff08")
        assert (style.color.triplet.hex, style.bgcolor.triplet.hex) == ("#ff0000", "#00ff08")
        assert style_of(palette, "no tone") == palette["text"]


def test_palettes_have_the_same_tones():
    tones = {frozenset(palette) for palette in PALETTES.values()}
    assert len(tones) == 1


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("tscope_tui", ("torch", "zarr", "textual", "numpy", "typer")),
        ("tscope_tui.plot", ("torch", "zarr", "textual", "typer")),
        ("tscope_tui.terminal.app", ("torch", "zarr", "typer", "tscope", "numpy")),
    ],
)
def test_imports_stay_small(module, absent):
    code = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


def test_a_resize_is_not_lost_when_textual_skips_its_timer(folder, monkeypatch):
    async def shrink(app: TscopeApp, pilot: Pilot[None]) -> None:
        never = SimpleNamespace(stop=lambda: None)  # a timer that does not fire
        monkeypatch.setattr(app, "set_timer", lambda *_, **__: never)
        app.post_message(events.Resize(Size(60, 15), Size(60, 15)))
        deadline = time.monotonic() + 30
        while app.surface.size != (60, 15) and time.monotonic() < deadline:
            await pilot.pause(0.02)
        assert app.surface.size == (60, 15)

    drive([folder / "a.zarr"], shrink)
