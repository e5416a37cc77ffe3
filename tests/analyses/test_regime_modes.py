"""Closed forms of the modes of linear networks, against direct integration of gradient flow."""

from __future__ import annotations

import numpy as np
import pytest

from tscope.analyses.regime.modes import (
    balanced,
    crossing,
    half_time,
    single,
    unbalanced,
    unbalanced_half_time,
)

TIME = np.linspace(0, 3, 31)


def flow(a: float, b: float, s: float, end: float, count: int = 200_000) -> float:
    """Integrate ȧ = b(s − ab), ḃ = a(s − ab) by Euler's rule and return ab; error some 1/count."""
    h = end / count
    for _ in range(count):
        off = h * (s - a * b)
        a, b = a + off * b, b + off * a
    return a * b


def test_balanced_and_unbalanced_forms_are_the_flow_of_two_factors():
    s = np.array([2.0, 2.0])
    a, b = np.array([0.3, 2.0]), np.array([0.3, 0.1])
    found = unbalanced(s, a * b, a**2 - b**2, TIME, np.ones(2))
    for mode in range(2):
        assert found[10, mode] == pytest.approx(flow(a[mode], b[mode], 2.0, TIME[10]), rel=1e-4)
    np.testing.assert_allclose(balanced(s, a * b, TIME, np.ones(2))[:, 0], found[:, 0], atol=1e-8)
    # A large Λ is faster: the lazy regime is s + (c_0 − s)e^(−|Λ|t) where Λ ≫ s.
    lazy = unbalanced(np.array([1.0]), np.array([0.0]), np.array([100.0]), TIME / 100, np.ones(1))
    np.testing.assert_allclose(lazy[:, 0], 1 - np.exp(-TIME), atol=2e-3)


def test_a_single_layer_decays_at_one_rate():
    found = single(np.array([2.0, 1.0]), np.array([0.5, -1.0]), TIME, np.array([1.0, 0.25]))
    np.testing.assert_allclose(found[0], [0.5, -1.0])
    rates = np.diff(np.log(np.abs(found - [2.0, 1.0])), axis=0)
    np.testing.assert_allclose(rates, np.tile([-0.1, -0.025], (30, 1)), rtol=1e-10)


def test_a_mode_is_halfway_at_its_half_time():
    s, start, D = np.array([4.0, 1.0, 0.3]), np.array([1e-3, 0.2, 1e-6]), np.array([1.0, 0.1, 3.0])
    half = half_time(s, start, D)
    for mode, at in enumerate(half):
        assert balanced(s, start, np.array([at]), D)[0, mode] == pytest.approx(s[mode] / 2, rel=1e-12)
    assert np.isnan(half_time(np.array([1.0, 1.0]), np.array([0.7, -0.1]), np.ones(2))).all()


def test_a_mode_with_imbalance_is_halfway_at_a_time_of_its_own():
    s, start, D = (
        np.array([4.0, 1.0, 2.0, 1.0]),
        np.array([1e-3, 0.2, 0.0, -0.3]),
        np.array([1.0, 0.5, 2.0, 1.0]),
    )
    imbalance = np.array([0.1, -3.0, 1.5, 0.7])
    half = unbalanced_half_time(s, start, imbalance, D)
    for mode, at in enumerate(half):
        found = unbalanced(s, start, imbalance, np.array([0.0, at]), D)
        assert found[1, mode] == pytest.approx(s[mode] / 2, rel=1e-8)
    np.testing.assert_allclose(
        unbalanced_half_time(s[:2], start[:2], np.zeros(2), D[:2]),
        half_time(s[:2], start[:2], D[:2]),
        rtol=1e-12,
    )
    assert np.isnan(unbalanced_half_time(s[:2], np.array([3.0, 0.0]), np.zeros(2), D[:2])).all()


def test_a_mode_that_does_not_grow_has_no_closed_form():
    found = balanced(np.array([1.0, 1.0, 1.0]), np.array([-0.1, 0.0, 1.5]), TIME, np.ones(3))
    assert np.isnan(found).all()


def test_crossings_lie_between_rows():
    axis = np.array([0.0, 10, 20, 40])
    strength = np.array([[0.0, 5, 0], [1, 6, 0], [3, 7, 0.1], [7, 8, 0.2]])
    found = crossing(axis, strength, np.array([2.0, 1.0, 1.0]))
    np.testing.assert_array_equal(found, [15, np.nan, np.nan])
