from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tscope_tui.plot import Series, chart, sparkline
from tscope_tui.plot.axis import Axis, axis_over
from tscope_tui.plot.decimate import decimate, ordered

numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)
points = st.lists(st.tuples(numbers, numbers), max_size=40)
sizes = st.tuples(st.integers(1, 70), st.integers(1, 20))


@example([[(1.7976931348623157e308, 0.0), (-9.98e291, 0.0)]], (1, 1), False, False, False, 0.0)
@settings(max_examples=300, deadline=None)
@given(
    st.lists(points, max_size=3),
    sizes,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.floats(allow_nan=False),
)
def test_any_series_draws_into_its_box(curves, size, log_x, log_y, ascii, cursor):
    width, height = size
    series = [
        Series(f"s{index}", [x for x, _ in curve], [y for _, y in curve], "dash")
        for index, curve in enumerate(curves)
    ]
    lines = chart(series, width, height, log_x=log_x, log_y=log_y, ascii=ascii, cursor=cursor)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    assert not ascii or all(line.isascii() for line in lines)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=300), st.integers(1, 50))
def test_no_value_is_lost_by_decimation(values, columns):
    x, y = ordered(Series("k", np.arange(len(values)), values))
    drawn = decimate(x, y, axis_over([x], False), False, columns)
    assert np.nanmin(drawn.low) == min(values)
    assert np.nanmax(drawn.high) == max(values)
    assert drawn.dropped == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0.1, 1e6), min_size=2, max_size=60), st.integers(2, 50))
def test_decimation_keeps_each_column_within_its_points(values, columns):
    x, y = ordered(Series("k", np.arange(len(values)), values))
    axis = Axis(0.0, float(len(values) - 1))
    drawn = decimate(x, y, axis, True, columns)
    assert np.isfinite(drawn.low).all()
    assert (drawn.low <= drawn.high).all()
    assert drawn.low.min() >= min(values) * (1 - 1e-9)
    assert drawn.high.max() <= max(values) * (1 + 1e-9)


@settings(max_examples=200, deadline=None)
@given(numbers, numbers, st.booleans(), st.integers(1, 12))
def test_ticks_increase_and_stay_on_the_axis(first, second, log, count):
    axis = axis_over([np.array([first, second])], log)
    values = [value for value, _ in axis.ticks(count)]
    assert len(values) >= 2
    assert values == sorted(values)
    units = axis.unit(np.array(values))
    assert ((units > -1e-6) & (units < 1 + 1e-6)).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(numbers, max_size=50), st.integers(0, 30))
def test_sparklines_have_their_width(values, width):
    assert len(sparkline(values, width)) == width
