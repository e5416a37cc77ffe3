from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tscope.kernels.layout import Layout, candidates, fitting, overlap

ROWS = (0, 1, 6)


def supports(layout: Layout, *rest: int) -> list[Tensor]:
    """What each of three examples of seven reaches, in a value of that layout."""
    found = []
    for row in ROWS:
        value = torch.zeros(layout.before, 7, layout.after, dtype=torch.bool)
        value[:, row] = True
        value = value.flatten()[:, None].expand(-1, *rest)
        found.append(value.movedim(0, layout.axis))
    return found


@pytest.mark.parametrize(
    "layout", [Layout(0, 1, 1), Layout(1, 1, 1), Layout(0, 1, 5), Layout(1, 3, 1), Layout(0, 2, 2)]
)
def test_the_examples_are_found(layout):
    reached = supports(layout, 7)
    assert fitting(candidates(reached[0].shape, (0, 1), 7), reached, ROWS) == layout


def test_examples_come_to_the_front():
    value = torch.arange(2 * 3 * 5).view(2, 15)
    assert Layout(1, 1, 5).examples_first(value).shape == (3, 2, 1, 5)
    assert Layout(1, 5, 1).examples_first(value)[1, 0].flatten().tolist() == [1, 4, 7, 10, 13]
    assert Layout(0, 1, 1).examples_first(value[None], 1).shape == (2, 1, 1, 1, 15)


def test_what_cannot_be_told_is_not_guessed():
    diagonal = [torch.zeros(7, 7, dtype=torch.bool) for _ in ROWS]
    for row, value in zip(ROWS, diagonal, strict=True):
        value[row, row] = True
    layouts = candidates((7, 7), (0, 1), 7)
    assert fitting(layouts, diagonal, ROWS) is None  # either axis may be the examples
    nothing = [torch.zeros(7, 3, dtype=torch.bool) for _ in ROWS]
    assert fitting(candidates((7, 3), (0,), 7), nothing, ROWS) is None
    turned = [value.flip(0) for value in supports(Layout(0, 1, 1), 3)]
    assert fitting(candidates((7, 3), (0,), 7), turned, ROWS) is None
    assert candidates((8, 0), (0, 1), 7) == []


def test_shared_elements_are_seen():
    assert overlap([torch.tensor([True, False]), torch.tensor([True, True])])
    assert not overlap([torch.tensor([True, False]), torch.tensor([False, True])])
