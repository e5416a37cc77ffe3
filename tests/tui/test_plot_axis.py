from __future__ import annotations

import math

import numpy as np
import pytest
from tscope_tui.plot import Axis, axis_over, bar, compact, sparkline


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (0.05, "0.05"),
        (0.01234, "0.0123"),
        (0.0021, "0.0021"),
        (3.14159, "3.14"),
        (123.4, "123"),
        (9990.0, "9990"),
        (18_400.0, "18.4k"),
        (999_960.0, "1M"),
        (1.5e6, "1.5M"),
        (3.1e-5, "3.1e-5"),
        (-3.1e-5, "-3.1e-5"),
        (1e20, "1e20"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_compact_numbers(value, text):
    assert compact(value) == text


@pytest.mark.parametrize(
    ("axis", "labels"),
    [
        (Axis(0.0, 1.0), ["0", "0.5", "1.0"]),
        (Axis(0.0, 50_000.0), ["0", "20000", "40000"]),
        (Axis(-1e-5, 1e-5), ["-1e-5", "0", "1e-5"]),
        (Axis(1e-5, 10.0, True), ["1e-3", "1e0"]),
        (Axis(0.2, 0.9, True), ["2e-1", "5e-1"]),
    ],
)
def test_ticks_are_round_and_inside(axis, labels):
    ticks = axis.ticks(3)
    assert [label for _, label in ticks] == labels
    assert all(axis.low - 1e-12 <= value <= axis.high + 1e-12 for value, _ in ticks)


def test_the_axis_covers_what_is_finite():
    assert axis_over([np.array([np.nan, 2.0, np.inf]), np.array([-1.0])], False) == Axis(-1.0, 2.0)
    assert axis_over([np.array([-1.0, 0.0, 0.5, 4.0])], True) == Axis(0.5, 4.0, True)
    assert axis_over([], False) == Axis(0.0, 1.0)
    assert axis_over([np.array([5.0])], False).low < 5 < axis_over([np.array([5.0])], False).high


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "    "), (0.5, "██  "), (0.28, "█▏  "), (2.0, "████"), (np.nan, "    ")]
)
def test_bars(share, text):
    assert bar(share, 4) == text


def test_sparklines():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([1, np.nan, 1], 3) == "▁ ▁"
    assert sparkline([], 4) == "    "
    assert sparkline([0, 7], 4, ascii=True) == "_@  "
