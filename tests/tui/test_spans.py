from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tscope_tui.panes.box import Look, box, to_ascii
from tscope_tui.spans import Span, between, cells, crop, fit, pad, paste, plain, wrap

texts = st.text(st.sampled_from("ab é漢字\u0301…"), max_size=20)


@pytest.mark.parametrize(("text", "width"), [("abc", 3), ("漢字", 4), ("e\u0301", 1), ("", 0)])
def test_cells_are_counted_as_a_terminal_does(text, width):
    assert cells(text) == width


@given(texts, st.integers(0, 24))
def test_padded_text_has_its_width(text, width):
    assert cells(pad(text, width)) == width


@given(st.lists(texts, max_size=4), st.integers(0, 30))
def test_lines_fit(parts, width):
    assert cells(plain(fit([Span(part) for part in parts], width))) == width


@given(st.lists(texts, min_size=1, max_size=4), st.integers(0, 10), st.integers(0, 8))
def test_pasting_keeps_the_width(parts, at, wide):
    line = fit([Span(part, str(index)) for index, part in enumerate(parts)], 20)
    pasted = paste(line, at, (Span("x" * wide, "patch"),))
    assert cells(plain(pasted)) == 20
    assert plain(pasted)[: len(plain(pasted))].count("x") == wide


def test_cut_text_says_so():
    assert crop("telescoping", 6) == "teles…"
    assert crop("telescoping", 6, ellipsis="~") == "teles~"


def test_the_left_part_of_a_line_gives_way():
    assert plain(between([Span("a long name of a run")], [Span("LIVE")], 16)) == "a long name…LIVE"


@given(texts, st.integers(1, 12))
def test_wrapped_text_loses_nothing(text, width):
    lines = wrap(text, width)
    assert all(cells(line) <= max(width, 2) for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_a_box_has_its_size_and_shows_the_focus():
    lines = [
        plain(line)
        for line in box([Span("loss")], [(Span("x"),)], 12, 4, Look(), focused=True, foot="3 more")
    ]
    assert lines == ["┏━ loss ━━━┓", "│x         │", "│          │", "└─ 3 more ─┘"]


def test_ascii_keeps_one_character_for_each_column():
    assert to_ascii("‖Δθ‖ 漢") == "|dw| ??"
