"""The number of examples in a pass follows the memory that two of them take."""

from __future__ import annotations

import pytest
import torch

from tscope.replay.memory import examples_that_fit


def run(count):
    return (torch.zeros(count, 1000) + 1).sum()  # two tensors of 4 kB an example


@pytest.mark.parametrize(("limit", "expected"), [(1e9, 50), (16_100 * 10, 10), (1, 2)])
def test_as_many_examples_as_fit_and_two_at_least(limit, expected):
    assert examples_that_fit(run, 50, limit) == expected


def test_never_more_than_there_are():
    assert examples_that_fit(run, 1, 1e9) == 1
