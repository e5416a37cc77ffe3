"""Numbers, tables and the progress line as text."""

from __future__ import annotations

import io
import math

import pytest
from tscope_cli import numerals, terminal
from tscope_cli.jsonfile import finite
from tscope_cli.table import Column, facts, render
from tscope_cli.terminal import Progress


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.0421312, "0.04213"),
        (12.3456, "12.35"),
        (1234.5678, "1235"),
        (-3.0, "-3.000"),
        (123456.7, "123457"),
        (1.23456e9, "1.235e+09"),
        (1.23456e-6, "1.235e-06"),
        (math.nan, "-"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers_have_four_significant_digits(value: float, text: str) -> None:
    assert numerals.significant(value) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (12_345_678, "12.3 MB"),
        (999_960_000, "1.0 GB"),
        (3e15, "3.0 PB"),
    ],
)
def test_sizes_are_in_decimal_units(count: float, text: str) -> None:
    assert numerals.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3.21, "3.2 s"),
        (59.99, "1 min"),
        (250, "4 min 10 s"),
        (7500, "2 h 5 min"),
        (3600, "1 h"),
        (273600, "3 d 4 h"),
        (math.nan, "-"),
    ],
)
def test_durations_are_in_their_two_largest_units(seconds: float, text: str) -> None:
    assert numerals.duration(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (0.00624, "0.62 %"),
        (0.0432, "4.3 %"),
        (0.9936, "99.4 %"),
        (1.0, "100 %"),
        (math.nan, "-"),
    ],
)
def test_shares_are_percentages(share: float, text: str) -> None:
    assert numerals.percent(share) == text


def test_numbers_are_flush_right_and_words_flush_left() -> None:
    columns = (Column("name", number=False), Column("steps"))
    assert render(columns, [("a", "1,500"), ("longer", "7")]) == [
        "name    steps",
        "a       1,500",
        "longer      7",
    ]


def test_an_elastic_column_is_cut_to_fit_the_terminal() -> None:
    columns = (Column("name", number=False, elastic=True), Column("steps"))
    lines = render(columns, [("a-very-long-name-of-a-run", "1,500")], width=20)
    assert lines[1] == "a-very-long-…  1,500"
    assert render(columns, [("a-very-long-name-of-a-run", "1,500")])[1].startswith(
        "a-very-long-name-of-a-run"
    )


def test_a_hostile_cell_cannot_steer_the_terminal() -> None:
    (_, line) = render((Column("name", number=False),), [("\x1b[2Jrun\r\nname\u202e",)])
    assert line == "run  name"
    assert facts([("model", "\x1b]0;title\x07Net")]) == ["  model  Net"]


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_is_drawn_on_a_terminal_and_wiped_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, moments = Screen(), iter([0.0, 0.01, 0.5])
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("COLUMNS", "40")
    with Progress("verifying\x1b[2J", clock=lambda: next(moments)) as progress:
        progress(0, 10)
        progress(1, 10)  # too soon after the last one
        progress(5, 10, "theta/update")
    assert screen.getvalue() == "\r\x1b[Kverifying   0% \r\x1b[Kverifying  50% theta/update\r\x1b[K"


def test_progress_says_how_long_it_still_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, moments = Screen(), iter([0.0, 2.0, 10.0, 20.0, 30.0])
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("COLUMNS", "60")
    with Progress("p", clock=lambda: next(moments)) as progress:
        progress(40, 100)  # continued: what was done before says nothing of the speed
        progress(41, 100)  # too early to tell
        progress(50, 100)
        progress.say("a word")
        progress(60, 400)  # the total has grown
        progress(400, 400)
    assert [line.strip() for line in screen.getvalue().replace("\r\x1b[K", "\n").split("\n")] == [
        "",
        "p  40%",
        "p  41%",
        "p  50%, about 50 s left",
        "tscope: a word",
        "",
        "p  15%, about 6 min left",
        "p 100%",
        "",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (99.4, "99 s"), (99.6, "2 min"), (5900, "98 min"), (7200, "2.0 h")],
)
def test_spans_are_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert terminal.span(seconds) == text


def test_progress_in_a_pipe_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, moments = io.StringIO(), iter([0.0, 20.0, 31.0, 50.0, 62.0])
    monkeypatch.setattr("sys.stderr", stream)
    with Progress("p", clock=lambda: next(moments)) as progress:
        for done in (0, 20, 31, 50, 62):
            progress(done, 124)
        progress.say("a word")
    assert stream.getvalue().splitlines() == [
        "tscope: p  25%, about 93 s left",
        "tscope: p  50%, about 62 s left",
        "tscope: a word",
    ]


def test_progress_is_silent_in_a_pipe_and_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, quiet in ((io.StringIO(), False), (Screen(), True)):
        monkeypatch.setattr("sys.stderr", stream)
        with Progress("verifying", quiet=quiet) as progress:
            progress(1, 2)
            if quiet:
                progress.say("a word")
        assert stream.getvalue() == ""


def test_colour_needs_a_terminal_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert terminal.paint("x", "red", Screen()) == "\x1b[31mx\x1b[0m"
    assert terminal.paint("x", "red", io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.paint("x", "red", Screen()) == "x"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert terminal.paint("x", "red", Screen()) == "x"


def test_json_has_null_for_what_it_has_no_word_for() -> None:
    assert finite({"a": [math.nan, 1.0, (math.inf, "x")], 1: True}) == {
        "a": [None, 1.0, [None, "x"]],
        "1": True,
    }
