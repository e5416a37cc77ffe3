"""Events planted in synthetic curves are found where they are, and noise has none."""

from __future__ import annotations

import numpy as np
import pytest

from tests.analyses.event_curves import NOISES, correlated, counted, falling, fit, sigmoid, white
from tscope.analyses.events.event import confidence, scatter, smooth, tail_confidence
from tscope.analyses.events.losses import divergence, spikes
from tscope.analyses.events.onsets import Fit, grokking, interpolation
from tscope.analyses.events.peaks import jump, peak

STEPS = np.arange(1, 1001)
LOGARITHMIC = np.r_[0, np.unique(np.geomspace(1, 1000, 24).round().astype(int))]


def noisy(seed: int, sigma: float = 0.05) -> np.ndarray:
    return falling(1000) * np.exp(sigma * white(np.random.default_rng(seed), 1000))


@pytest.mark.parametrize("seed", range(5))
def test_spikes_are_found_at_their_rows_and_nowhere_else(seed):
    loss, planted = noisy(seed), [150, 400, 801]
    for row, factor in zip(planted, (3.0, 10.0, 40.0), strict=True):
        loss[row : row + 10] *= 1 + (factor - 1) * np.exp(-np.arange(10) / 3)
    found = spikes(STEPS, loss, 2.0, 0.99)
    assert [event.step for event in found] == [STEPS[row] for row in planted]
    for event, row, factor in zip(found, planted, (3.0, 10.0, 40.0), strict=True):
        assert event.low == STEPS[row] - 1
        assert 0 < event.high - event.step <= 10
        assert event.value == loss[row]
        assert event.before == pytest.approx(np.exp(np.median(np.log(loss[row - 24 : row]))), rel=1e-12)
        assert event.value / event.before == pytest.approx(factor, rel=0.25)
        assert event.confidence >= 0.99


def test_a_rise_that_stays_is_no_spike_and_of_two_in_a_window_the_higher_counts():
    loss = np.exp(0.05 * white(np.random.default_rng(0), 1000))
    loss[500:] *= 6
    assert spikes(STEPS, loss, 2.0, 0.99) == []
    loss[500:] /= 6
    loss[300] *= 5
    loss[310] *= 9
    assert [event.step for event in spikes(STEPS, loss, 2.0, 0.99)] == [STEPS[310]]
    assert spikes(STEPS, loss, 12.0, 0.99) == []


@pytest.mark.parametrize("seed", [19, 50, 53])
def test_noise_that_grows_has_no_spikes(seed):
    """Twentyfold, over the whole run or at once; the seeds are some at which less care finds spikes."""
    noise = white(np.random.default_rng(seed), 1000)
    assert spikes(STEPS, np.exp(np.geomspace(0.02, 0.4, 1000) * noise), 2.0, 0.99) == []
    for row in (300, 700, 850):
        sigma = np.where(np.arange(1000) < row, 0.02, 0.4)
        assert spikes(STEPS, np.exp(sigma * noise), 2.0, 0.99) == []


def test_losses_that_are_few_or_not_positive_have_no_spikes():
    assert spikes(STEPS[:40], np.r_[np.ones(20), 50, np.ones(19)], 2.0, 0.99) == []
    assert spikes(STEPS, np.r_[np.ones(999), 0.0], 2.0, 0.99) == []


@pytest.mark.parametrize("seed", range(5))
def test_divergence_is_where_the_loss_has_doubled_for_good(seed):
    loss = noisy(seed)
    loss[600:] *= np.exp(np.minimum(0.05 * np.arange(400), 6))
    found = divergence(STEPS, loss, 10.0, 0.99)
    assert found is not None
    # Doubled after log(2)/0.05 = 14 rows; the loss itself still falls a little, and its scatter is 0.05.
    assert abs(found.step - (STEPS[600] + np.log(2) / 0.05)) <= 10
    assert found.low < found.step < found.high
    assert found.value / found.before > 100


def test_a_loss_that_rises_but_not_to_its_start_or_not_tenfold_has_not_diverged():
    assert divergence(STEPS, noisy(0), 10.0, 0.99) is None
    loss = noisy(0)
    loss[600:] *= np.exp(np.minimum(0.05 * np.arange(400), 2))
    assert divergence(STEPS, loss, 10.0, 0.99) is None  # 7.4 times the lowest
    loss = noisy(0) * np.r_[np.full(300, 1e3), np.ones(700)]
    loss[600:] *= np.exp(np.minimum(0.05 * np.arange(400), 5))
    assert divergence(STEPS, loss, 10.0, 0.99) is None  # 148 times the lowest, below the start


@pytest.mark.parametrize("seed", [4, 7, 10])
def test_a_level_that_only_scatter_raises_has_not_diverged(seed):
    loss = np.exp(3 * white(np.random.default_rng(seed), 1000))
    assert divergence(STEPS, loss, 10.0, 0.0) is not None  # it ends tenfold above its lowest level
    assert divergence(STEPS, loss, 10.0, 0.99) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_stays_not_finite_diverged_for_sure(value):
    loss = noisy(0)
    loss[700:] = value
    found = divergence(STEPS, loss, 10.0, 0.99)
    assert found is not None
    assert (found.step, found.low, found.high, found.confidence) == (701, 700, 701, 1.0)
    assert found.text == f"the loss is {'NaN' if np.isnan(value) else 'infinite'} from here on"
    loss[800:] = 0.02
    assert divergence(STEPS, loss, 10.0, 0.99) is None
    assert divergence(STEPS, np.full(1000, np.nan), 10.0, 0.99) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_divergence_that_overflows_begins_where_the_loss_leaves_its_level(value):
    loss = noisy(0)
    loss[600:] *= np.exp(np.minimum(0.5 * np.arange(400), 600))
    loss[720:] = value
    found = divergence(STEPS, loss, 10.0, 0.99)
    assert found is not None
    # Doubled after log(2)/0.5 = 1.4 rows; the loss itself still falls a little, and its scatter is 0.05.
    assert abs(found.step - STEPS[601]) <= 1
    assert (found.low, found.high, found.confidence) == (found.step - 1, STEPS[720], 1.0)
    assert found.text.endswith(f"for good and is {'NaN' if np.isnan(value) else 'infinite'} from step 721 on")
    # Sevenfold is no divergence by itself: it is dated where the loss stops.
    loss[600:720] = noisy(0)[600:720] * 7
    found = divergence(STEPS, loss, 10.0, 0.99)
    assert found is not None
    assert (found.step, found.low, found.high) == (721, 720, 721)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("examples", [100, 1000])
def test_fit_and_grokking_are_found_within_a_few_rows(seed, examples):
    random = np.random.default_rng(seed)
    steps = np.unique(np.linspace(0, 20000, 400).round().astype(int))
    fitted, onset = random.integers(200, 1500), random.integers(5000, 15000)
    train = fit(steps, counted(random, 0.02 + 0.98 * sigmoid(steps, fitted, 0.1), examples), examples)
    test = fit(steps, counted(random, 0.02 + 0.97 * sigmoid(steps, onset, 0.08), examples), examples)
    found = interpolation(train, 0.99, 0.99)
    assert found is not None
    # A sigmoid of width 0.1 passes 0.99 of its height at e^(0.1·4.6) of its middle: 5 rows are 250 steps.
    assert abs(found.step - fitted * np.exp(0.46)) <= 250
    late = grokking(found, test, 0.2, 0.99)
    assert late is not None
    assert abs(late.step - onset) <= 250
    assert late.low < onset < late.high
    assert late.confidence >= 0.99
    assert f"{late.step - found.step:,} steps after the fit" in late.text


def test_what_follows_at_once_or_little_or_goes_back_is_no_grokking():
    random = np.random.default_rng(1)
    steps = np.unique(np.linspace(0, 20000, 400).round().astype(int))
    train = fit(steps, counted(random, 0.02 + 0.98 * sigmoid(steps, 1000, 0.1), 1000), 1000)
    found = interpolation(train, 0.99, 0.99)
    assert found is not None
    late = sigmoid(steps, 10000, 0.08)
    for share in (
        0.9 * sigmoid(steps, 1100, 0.1),  # with the fit
        0.9 * sigmoid(steps, 2200, 0.05),  # soon after: the fit is at step 1584
        0.6 * sigmoid(steps, 500, 0.1) + 0.3 * late,  # most of the way before it
        0.1 + 0.1 * late,  # too little
        0.1 + 0.8 * late * (steps < 15000),  # not to the end
    ):
        assert grokking(found, fit(steps, counted(random, share, 1000), 1000), 0.2, 0.99) is None
    assert grokking(found, fit(steps[:3], np.zeros(3), 1000), 0.2, 0.99) is None
    # What goes back soon is passed over: the onset is the one that lasts.
    passing = 0.9 * sigmoid(steps, 14000, 0.02) + 0.9 * ((steps > 4000) & (steps < 5000))
    onset = grokking(found, fit(steps, counted(random, passing, 1000), 1000), 0.2, 0.99)
    assert onset is not None
    assert abs(onset.step - 14000) <= 250


def test_a_fit_that_does_not_last_or_was_there_before_is_none_and_one_that_falters_is_less_sure():
    curve = np.r_[np.full(100, 0.1), np.ones(300)]
    steps = np.arange(400)
    whole = interpolation(fit(steps, curve, 1000), 0.99, 0.99)
    assert whole is not None
    assert (whole.step, whole.low, whole.confidence) == (100, 99, 1.0)
    assert whole.text == "training examples are fitted: accuracy 1"
    falters = curve.copy()
    falters[250:300] = 0.9
    less = interpolation(fit(steps, falters, 1000), 0.99, 0.99)
    assert less is not None
    assert (less.step, less.confidence) == (100, 250 / 300)
    assert interpolation(fit(steps, np.r_[curve[:150], np.full(250, 0.1)], 1000), 0.99, 0.99) is None
    assert interpolation(fit(steps, np.ones(400), 1000), 0.99, 0.99) is None
    assert interpolation(fit(steps[:1], curve[:1], 1000), 0.99, 0.99) is None
    window = interpolation(Fit(steps, curve, 1000, "loss", "made up", 20), 0.99, 0.99)
    assert window is not None
    assert (window.low, window.text) == (80, "training examples are fitted: 1 − loss/its start 1")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rows", [25, 200])
def test_peaks_are_found_within_two_rows(seed, rows):
    random = np.random.default_rng(seed)
    steps = np.unique(np.geomspace(1, 1000, rows).round().astype(int))
    at = random.integers(20, 300)
    p = 100 * (1 + np.exp(-0.5 * (np.log(steps / at) / 0.5) ** 2)) + 2 * white(random, len(steps))
    found = peak(steps, p, np.zeros(len(p)), "held-out", 0.99)
    assert found is not None
    assert abs(np.log(found.step / at)) <= 2 * np.log(1000) / 24
    assert found.low < found.step < found.high
    # Standard errors of the estimate count as its scatter does.
    assert peak(steps, p, np.full(len(p), 30.0), "held-out", 0.99) is None


def test_what_only_rises_has_no_peak_nor_has_a_bump_below_two_percent():
    p = np.linspace(1, 100, 50)
    steps = np.arange(50)
    assert peak(steps, p, np.zeros(50), "training", 0.99) is None
    assert peak(steps, p[::-1], np.zeros(50), "training", 0.99) is None
    bump = np.exp(-0.5 * ((steps - 25) / 4) ** 2)
    assert peak(steps, 100 + 1.9 * bump, np.zeros(50), "training", 0.99) is None
    hump = peak(steps, 100 + 2.2 * bump, np.zeros(50), "training", 0.99)
    assert hump is not None
    assert hump.step == 25
    assert peak(steps[:4], p[:4], np.zeros(4), "training", 0.99) is None
    gone = np.where(steps < 40, 50 + 50 * np.exp(-0.5 * ((steps - 20) / 4) ** 2), np.nan)
    found = peak(steps, gone, np.zeros(50), "training", 0.99)
    assert found is not None
    assert found.step == 20


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sign", [1, -1])
def test_jumps_are_found_between_their_rows(seed, sign):
    random = np.random.default_rng(seed)
    at = random.integers(20, 400)
    curve = 0.5 + sign * 0.3 * sigmoid(LOGARITHMIC, at, 0.05) + 0.01 * white(random, len(LOGARITHMIC))
    found = jump(LOGARITHMIC, curve, 0.99)
    assert found is not None
    # Rows are a factor 1.35 apart.
    assert abs(np.log(found.step / at)) <= 2 * np.log(1.35)
    assert found.low < found.step <= found.high
    assert np.sign(found.value - found.before) == sign


def test_a_jump_between_rows_far_apart_is_dated_between_them():
    steps = np.array([0, 100, 200, 400, 700, 1000, 1400, 2000, 2800])
    curve = np.array([0.1, 0.1, 0.1, 0.1, 0.1, 0.14, 0.30, 0.3, 0.3])
    found = jump(steps, curve, 0.99)
    assert found is not None
    # From 0.1 to 0.3: half of it, 0.2, is 6/16 of the way from the row 1000 to 1400.
    assert (found.step, found.low, found.high) == (1150, 1000, 1400)
    assert (found.before, found.value) == (0.1, 0.3)
    # Where the first row after it has all of the change, half of it is in the middle.
    curve[5] = 0.1
    assert jump(steps, curve, 0.99).step == 1200
    # One that goes on to the last row is dated in the same way.
    assert jump(steps[:7], curve[:7], 0.99).step == 1200


def test_a_slow_change_a_small_one_and_one_that_does_not_last_are_no_jumps():
    slow = np.linspace(0, 0.9, len(LOGARITHMIC))
    assert jump(LOGARITHMIC, slow, 0.99) is None
    assert jump(LOGARITHMIC, 0.1 + 0.05 * sigmoid(LOGARITHMIC, 100, 0.05), 0.99) is None
    # A step of 0.15 within a slow change of 0.9 is less than half of it.
    assert jump(LOGARITHMIC, slow + 0.15 * sigmoid(LOGARITHMIC, 100, 0.05), 0.99) is None
    outlier = np.full(len(LOGARITHMIC), 0.2)
    outlier[12] = 0.9
    assert jump(LOGARITHMIC, outlier, 0.99) is None
    assert jump(LOGARITHMIC[:5], np.r_[0, 0, 0, 1, 1.0], 0.99) is None


@pytest.mark.parametrize("name", NOISES)
def test_noise_has_no_events(name):
    """A few seeds here; the rates of many are measured in the slow tests."""
    for seed in range(4):
        random = np.random.default_rng(seed + 100)
        loss = falling(1000) * np.exp(0.3 * NOISES[name](random, 1000))
        # Of noise with long tails the slow tests say how often it passes for spikes.
        assert name == "heavy" or spikes(STEPS, loss, 2.0, 0.99) == []
        assert divergence(STEPS, np.exp(0.3 * NOISES[name](random, 1000)), 10.0, 0.99) is None
        p = 100 + 10 * NOISES[name](random, 200)
        assert peak(np.arange(200), p, np.zeros(200), "training", 0.99) is None


def test_scatter_is_the_noise_of_a_smooth_curve_also_where_neighbours_are_alike():
    random = np.random.default_rng(0)
    smooth_curve = np.sin(np.arange(4000) / 1000)
    assert scatter(smooth_curve + 0.1 * white(random, 4000)) == pytest.approx(0.1, rel=0.1)
    assert scatter(0.1 * correlated(random, 4000)) == pytest.approx(0.1, rel=0.2)
    assert scatter(np.arange(100.0)) == pytest.approx(0, abs=1e-12)
    assert scatter(np.array([1.0, 5.0])) == 0
    np.testing.assert_array_equal(smooth(np.array([0.0, 9, 0, 0, 1, 1]), 3), [0, 0, 0, 0, 1, 1])


def test_confidence_is_what_bonferroni_leaves():
    # Φ̄(3) = 0.0013498980
    assert confidence(3.0, 1.0, 100) == pytest.approx(1 - 100 * 0.0013498980316301, rel=1e-9)
    assert confidence(3.0, 1.0, 10**6) == 0
    assert (confidence(1.0, 0.0, 5), confidence(0.0, 0.0, 5), confidence(1.0, np.inf, 5)) == (1, 0, 0)


def test_a_tail_that_strays_far_needs_more():
    values = np.random.default_rng(0).exponential(size=100_000)
    # Of an exponential P(x > h) = e^(−h).
    assert 1 - tail_confidence(20.0, values, 1000) == pytest.approx(1000 * np.exp(-20), rel=0.5)
    assert tail_confidence(2.0, values, 1000) == 0
    assert tail_confidence(10.0, np.random.default_rng(0).normal(size=1000), 1000) > 0.99
