from __future__ import annotations

import numpy as np
import pytest
from tscope_tui.plot import Role, Series, chart, draw
from tscope_tui.plot.chart import legend_parts


def curves() -> list[Series]:
    step = np.arange(1000)
    actual = 1.9 * np.tanh(step / 300)
    return [
        Series("actual", step, actual),
        Series("telescoped", step, actual + 0.1 * (step / 1000) ** 2, "dash"),
        Series("lazy", step, np.minimum(1.0, step / 250), "dot"),
    ]


def decay() -> list[Series]:
    step = np.arange(1000)
    noise = 1 + 0.2 * np.sin(step * 7.0)
    return [
        Series("train", step, np.exp(-step / 200) * noise + 1e-4),
        Series("test", step, 3 * np.exp(-step / 400), "dash"),
    ]


def estimates() -> list[Series]:
    step = np.arange(0, 1000, 50)
    p = 10 + step / 20
    error = np.where(step > 300, 0.3 * p, 0.0)
    error[-1] = np.nan
    return [Series("train", step, p, error=error), Series("test", step, 1.4 * p, "dash", error=2 * p)]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("linear", lambda: chart(curves(), 60, 14, title="f(x)", cursor=400)),
        ("log_y", lambda: chart(decay(), 60, 12, log_y=True, title="loss")),
        ("log_both", lambda: chart(decay(), 60, 12, log_y=True, log_x=True)),
        ("ascii", lambda: chart(decay(), 60, 12, log_y=True, ascii=True, title="loss", cursor=300)),
        ("window", lambda: chart(decay(), 60, 12, x_range=(100.0, 140.0))),
        ("tiny", lambda: chart(decay(), 12, 4)),
        ("no_series", lambda: chart([], 40, 6, title="loss")),
        ("one_point", lambda: chart([Series("k", [3.0], [2.0])], 40, 6)),
        ("constant", lambda: chart([Series("k", [0, 1, 2], [5.0, 5.0, 5.0])], 40, 6)),
        ("error_bars", lambda: chart(estimates(), 60, 12, title="p")),
        ("error_bars_log", lambda: chart(estimates(), 60, 12, log_y=True, ascii=True)),
        ("gaps", lambda: chart([Series("k", range(7), [1, 2, np.nan, 3, np.inf, 2, 2])], 40, 6)),
        ("all_nan", lambda: chart([Series("k", [0, 1], [np.nan, np.nan])], 40, 6)),
        ("not_positive", lambda: chart([Series("k", range(4), [0.0, -1, 1, 10])], 40, 6, log_y=True)),
    ],
)
def test_chart_text(name, lines, golden):
    golden(f"chart_{name}.txt", "\n".join(lines()))


def test_a_spike_of_one_step_among_many_is_drawn():
    y = np.zeros(100_000)
    y[70_001] = 1.0
    top = chart([Series("k", np.arange(y.size), y)], 60, 10)[1]
    assert any(character not in " │┤01." for character in top)


def test_a_curve_keeps_its_colour_whatever_it_is_drawn_with():
    curves = [Series("telescoped", [0, 1], [0.0, 1.0], hue=1), Series("lazy", [0, 1], [1.0, 3.0], hue=2)]
    used = {run.role for row in draw(curves, 40, 8).frame().rows for run in row if run.role >= 0}
    assert used == {1, 2}
    assert [colour for _, colour in legend_parts(curves)] == [1, 2]


def test_points_out_of_order_are_drawn_in_the_order_of_x():
    x, y = np.array([3.0, 1.0, 2.0, 0.0]), np.array([9.0, 1.0, 4.0, 0.0])
    order = np.argsort(x)
    assert chart([Series("k", x, y)], 40, 8) == chart([Series("k", x[order], y[order])], 40, 8)


def test_steep_parts_of_a_dashed_curve_stay_visible_and_broken():
    y = np.where(np.arange(40) < 20, 0.0, 1.0)
    column = [line[22] for line in chart([Series("k", np.arange(40), y, "dash")], 42, 20)[1:-1]]
    assert " " in column or "⠀" in column
    assert sum(character != " " for character in column) > 5


def test_lines_enter_a_window_from_points_outside_it():
    plot = draw([Series("k", [0.0, 100.0], [0.0, 100.0])], 40, 8, x_range=(40.0, 60.0))
    assert plot.frame().rows[0][-1].role == 0


def test_each_curve_ends_in_a_letter_of_its_own():
    same = [Series("loss", [0, 1], [1.0, 1.0]), Series("lazy", [0, 1], [1.0, 1.0])]
    ends = [line[-1] for line in chart(same, 40, 8)[1:-1] if len(line) == 40]
    assert sorted(ends) == ["a", "l"]


def test_the_cursor_never_covers_a_curve():
    plot = draw(curves(), 60, 12)
    plain, crossed = plot.frame().lines(), plot.frame(cursor=500).lines()
    column = plot.column(500)
    assert column is not None
    for before, after in zip(plain[:-1], crossed[:-1], strict=True):
        assert after[column] == (before[column] if before[column] != " " else "┊")


def test_a_column_and_its_x_value_agree():
    plot = draw(curves(), 60, 12)
    for column in range(plot.left, plot.left + plot.width):
        assert plot.column(plot.x_at(column)) == column
    assert plot.column(-5.0) is None


def test_the_marked_range_covers_its_columns():
    plot = draw(curves(), 60, 12)
    runs = [run for run in plot.frame(band=(300, 600)).rows[3] if run.band]
    assert 15 < sum(len(run.text) for run in runs) < 20
    assert not any(run.band for run in plot.frame(band=(5000, 6000)).rows[3])


def test_frame_roles_cover_axis_and_curves():
    roles = {run.role for row in draw(curves(), 60, 12).frame(cursor=10).rows for run in row}
    assert roles >= {Role.AXIS, Role.LABEL, Role.CURSOR, Role.BLANK, 0, 1, 2}


def test_series_of_different_lengths_are_refused():
    with pytest.raises(
        ValueError, match=r"series 'k': x has shape \(2,\) and y \(3,\); both must be \(point,\)"
    ):
        Series("k", [1, 2], [1, 2, 3])


def test_bars_stand_at_the_points_where_these_are_far_enough_apart():
    from tscope_tui.plot.axis import axis_over
    from tscope_tui.plot.decimate import bar_columns

    x = np.array([0.0, 1.0, 2.0, np.nan, 5.0, 10.0])
    axis = axis_over([np.array([0.0, 10.0])], False)
    assert np.flatnonzero(bar_columns(x, axis, 100, 6)).tolist() == [0, 10, 20, 50, 99]
    # Closer ones are thinned evenly, and those out of sight do not count.
    assert np.flatnonzero(bar_columns(x, axis, 30, 6)).tolist() == [3, 9, 15, 21, 27]
    axis = axis_over([np.array([1.5, 10.0])], False)
    assert np.flatnonzero(bar_columns(x, axis, 17, 6)).tolist() == [1, 7, 16]
