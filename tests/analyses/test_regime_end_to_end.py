"""From a script to modes beside their closed forms: Saxe's, with Λ/s, and of skills; and to balancedness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from tscope_format import Result

from tests.analyses.mode_script import (
    ABOVE,
    BELOW,
    FREQUENCY,
    SCRIPT,
    TARGET,
    Values,
    descent,
    time_of,
)
from tests.analyses.scripts import analyzed, recorded
from tscope import analyze

RATE, STEPS = 0.06, 300
H = time_of(RATE)
SKILLS = slice(3, 6)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(tmp_path_factory.mktemp("modes"), SCRIPT, words=f"{RATE} {STEPS}")


@pytest.fixture(scope="module")
def found(trace: Path) -> Result:
    return analyze(str(trace), "regime", parts="modes", every=1, save=False)


def order(result: Result) -> np.ndarray:
    """Where each mode of the result is in the script's lists: they are sorted by S·D."""
    keys = np.stack([result.arrays["target"].data, result.arrays["frequency"].data], 1)
    ours = np.stack([TARGET, FREQUENCY], 1)
    return np.array([int(np.abs(ours - key).max(1).argmin()) for key in keys])


def saxe(time: Values) -> Values:
    """The logistic curves of balanced modes from R₀ = ab (time, mode)."""
    start = BELOW * ABOVE
    return TARGET / (1 + (TARGET / start - 1) * np.exp(-2 * np.outer(time, TARGET * FREQUENCY)))


def flow(time: Values) -> Values:
    """Gradient flow of the two factors of each mode, and their product (time, mode)."""
    products = []
    for S, D, a, b in zip(TARGET, FREQUENCY, BELOW, ABOVE, strict=True):
        solved = solve_ivp(
            lambda _, p, S=S, D=D: D * (S - p[0] * p[1]) * p[::-1],
            (0, time[-1]),
            (a, b),
            "DOP853",
            t_eval=time,
            rtol=1e-12,
            atol=1e-14,
        )
        products.append(solved.y[0] * solved.y[1])
    return np.stack(products, 1)


def test_modes_targets_frequencies_and_the_index_are_those_of_the_script(found: Result) -> None:
    places = order(found)
    assert sorted(places) == list(range(6))
    np.testing.assert_allclose(found.arrays["target"].data, TARGET[places], rtol=1e-12)
    np.testing.assert_allclose(found.arrays["frequency"].data, FREQUENCY[places], rtol=1e-12)
    a, b = descent(RATE, STEPS)
    np.testing.assert_allclose(found.arrays["strength"].data, (a * b)[:, places], rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        found.arrays["index"].data, ((b**2 - a**2) / TARGET)[:, places], rtol=0, atol=1e-12
    )
    assert found.scalars["mixing"] <= 1e-12
    assert not [note for note in found.notes if "closed form" in note or "correlate" in note]


def test_closed_forms_are_saxes_and_the_flow_of_unbalanced_factors(found: Result) -> None:
    places, time = order(found), H * np.arange(STEPS + 1)
    np.testing.assert_allclose(found.arrays["time"].data, time, rtol=1e-12)
    np.testing.assert_allclose(found.arrays["strength_closed"].data, saxe(time)[:, places], rtol=1e-10)
    expected = flow(time)
    np.testing.assert_allclose(
        found.arrays["strength_unbalanced"].data, expected[:, places], rtol=0, atol=1e-8
    )
    # Steps of gradient descent are off the flow by first order in them: a few percent here.
    off = np.abs(found.arrays["strength"].data - expected[:, places]) / TARGET[places]
    assert found.scalars["unbalanced_off"] == pytest.approx(off.max(), rel=1e-6)
    assert 1e-3 < off.max() < 0.03
    balanced = np.isin(places, (0, 3, 4, 5))
    np.testing.assert_allclose(saxe(time)[:, [0, 3, 4, 5]], expected[:, [0, 3, 4, 5]], atol=1e-10)
    assert off[:, balanced].max() < 0.03
    # Of a lazy mode Saxe's form is far off, and its own is not.
    lazy = int(np.flatnonzero(places == 1)[0])
    wrong = np.abs(found.arrays["strength"].data - found.arrays["strength_closed"].data) / TARGET[places]
    assert wrong[:, lazy].max() > 0.5
    assert found.scalars["closed_off"] == pytest.approx(wrong.max(), rel=1e-6)


def test_skills_emerge_when_their_frequency_says(found: Result) -> None:
    places = order(found)
    half = np.log(TARGET / (BELOW * ABOVE) - 1) / (2 * FREQUENCY * TARGET) / H
    within = (half > 0) & (half < STEPS)
    assert within[SKILLS].all()
    told = found.arrays["half_step_closed"].data
    np.testing.assert_allclose(told[within[places]], half[places][within[places]], rtol=1e-10)
    # With its imbalance every mode has one, near which it emerges: the flow's own, found by a solver.
    guided = found.arrays["half_step_unbalanced"].data * H
    for place, mode in enumerate(places):
        assert flow(np.array([0.0, guided[place]]))[-1, mode] == pytest.approx(TARGET[mode] / 2, rel=1e-9)
    np.testing.assert_allclose(found.arrays["half_step"].data, guided / H, atol=0.6)
    a, b = descent(RATE, STEPS)
    for place, mode in enumerate(places):
        curve = (a * b)[:, mode]
        after = int((curve >= TARGET[mode] / 2).argmax())
        share = (TARGET[mode] / 2 - curve[after - 1]) / (curve[after] - curve[after - 1])
        assert found.arrays["half_step"].data[place] == pytest.approx(after - 1 + share, abs=1e-9)
    # A skill of half the frequency takes twice as long: R₀ and S are the same.
    skills = [int(np.flatnonzero(places == mode)[0]) for mode in (3, 4, 5)]
    times = found.arrays["half_step"].data[skills]
    np.testing.assert_allclose(times[1:] / times[:-1], 2, rtol=0.02)


def test_balancedness_is_that_of_the_factors_and_its_identity_holds(trace: Path) -> None:
    found = analyze(str(trace), "layers", parts="balance", every=1, save=False)
    a, b = descent(RATE, STEPS)
    Q = b**2 - a**2  # of W₂ᵀW₂ − W₁W₁ᵀ in the script's basis, in which it is diagonal
    for series, expected in (
        ("balance", np.linalg.norm(Q, axis=1)),
        ("balance_drift", np.linalg.norm(Q - Q[0], axis=1)),
    ):
        np.testing.assert_allclose(found.arrays[series].data[:, 0], expected, rtol=0, atol=1e-12)
    assert found.arrays["balance_drift"].data[-1, 0] > 1e-3  # what the identity accounts for is not nothing
    assert found.arrays["balance_off"].data.max() <= 1e-12


@pytest.mark.slow
def test_half_the_rate_halves_the_distance_to_the_closed_forms(tmp_path: Path, trace: Path) -> None:
    fine = recorded(tmp_path, SCRIPT, words=f"{RATE / 2} {2 * STEPS}")
    results = [
        analyzed(path, "regime", "--parts", "modes", "--every", every)
        for path, every in ((trace, 1), (fine, 2))
    ]
    coarse, half = (result.arrays for result in results)
    np.testing.assert_allclose(half["time"], coarse["time"], rtol=1e-12)
    off = [np.abs(arrays["strength"] - arrays["strength_unbalanced"]).max(0) for arrays in (coarse, half)]
    np.testing.assert_allclose(off[0] / off[1], 2, rtol=0.05)
    late = [
        (arrays["half_step"] - arrays["half_step_closed"]) * time_of(rate)
        for arrays, rate in ((coarse, RATE), (half, RATE / 2))
    ]
    skills = np.flatnonzero(coarse["target"] < 1.1)
    np.testing.assert_allclose(late[0][skills] / late[1][skills], 2, rtol=0.1)
