"""How often noise passes for an event, over many seeds: the figures of docs/metrics/events.md."""

from __future__ import annotations

import pytest

from tests.analyses.event_noise import rates

# What exceeds 1 %: the measured rate of 1000 seeds and three standard errors of 300.
_BOUNDS = {
    ("heavy", "loss spike, falling loss"): 0.24,
    ("heavy", "loss spike, flat loss"): 0.24,
    ("heavy", "alignment jump, 25 rows"): 0.017,
    ("correlated", "loss spike, falling loss"): 0.02,
    ("correlated", "loss spike, flat loss"): 0.025,
    ("correlated", "effective-parameter peak, 25 rows"): 0.07,
}


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["white", "heavy", "correlated"])
def test_rates_in_noise_are_those_of_the_docs(noise):
    # 300 seeds: what is 0 in a thousand is at most 1 % with 95 % confidence.
    for event, rate in rates(noise, 300).items():
        assert rate <= _BOUNDS.get((noise, event), 0.01), event
