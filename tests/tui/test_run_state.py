from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tscope_tui.data.telescoping import Choice
from tscope_tui.stages.run_state import RunState


def opened(last=1000):
    return RunState().grown(last)


def test_a_run_opens_on_its_last_step_and_follows():
    assert (opened().cursor, opened().following) == (1000, True)
    assert opened().grown(1200).cursor == 1200


def test_scrubbing_back_stops_following_and_counts_what_is_new():
    state = opened().to(500).grown(1312)
    assert (state.cursor, state.following, state.new) == (500, False, 312)
    assert state.to(400).new == 312
    assert state.follow().new == 0
    assert state.follow().cursor == 1312
    assert state.to(1312).following


def test_zooming_keeps_the_cursor_at_its_place_on_the_screen():
    state = opened().to(250).zoom(2)
    assert state.window == (125.0, 625.0)
    assert state.zoom(0.5).window is None


def test_the_window_follows_the_cursor_out_of_sight():
    state = opened().to(500).zoom(4).to(900)
    assert state.window is not None
    assert state.window[0] <= 900 <= state.window[1]


def test_a_window_at_the_end_moves_on_with_a_live_run():
    state = opened().zoom(4)
    assert state.grown(1100).window == (850.0, 1100.0)


def test_a_range_is_marked_at_both_ends_and_cleared():
    state = opened().to(200).mark().to(350)
    assert state.shown_band() == (200.0, 350.0)
    state = state.mark()
    assert state.band == (200.0, 350.0)
    assert state.mark().shown_band() is None


def test_an_empty_range_is_none():
    assert opened().to(200).mark().mark().shown_band() is None


def test_examples_come_round_through_all_of_them():
    state = opened().other_example(1, 3)
    assert state.choice == Choice(0, None)
    assert state.other_example(-1, 3).choice == Choice()
    assert state.other_example(-1, 3).other_example(-1, 3).choice == Choice(2, None)
    assert state.other_output(2).choice == Choice(0, 0)
    assert state.other_output(2).other_output(2).other_output(2).choice == Choice(0, None)


@given(
    st.integers(0, 10**7),
    st.lists(
        st.sampled_from(["in", "out", "left", "right", "back", "on", "mark", "fit", "grow", "follow"]),
        max_size=40,
    ),
)
def test_no_sequence_of_keys_leaves_the_run(last, keys):
    state = RunState().grown(last)
    for key in keys:
        state = {
            "in": lambda s: s.zoom(2),
            "out": lambda s: s.zoom(0.5),
            "left": lambda s: s.pan(-1),
            "right": lambda s: s.pan(1),
            "back": lambda s: s.to(s.cursor - max(1, s.last // 7)),
            "on": lambda s: s.to(s.cursor + 10),
            "mark": lambda s: s.mark(),
            "fit": lambda s: s.fit(),
            "grow": lambda s: s.grown(s.last + 5),
            "follow": lambda s: s.follow(),
        }[key](state)
        assert 0 <= state.cursor <= state.last
        if state.window is not None:
            low, high = state.window
            assert 0 <= low < high <= state.last + 1e-6
