from __future__ import annotations

import pytest
from tscope_tui.layout import Tier, arrange, names, tier


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (60, 15, Tier.SMALL),
        (59, 14, Tier.SMALL),
        (200, 15, Tier.SMALL),
        (80, 24, Tier.COLUMNS),
        (119, 60, Tier.COLUMNS),
        (120, 36, Tier.SIDEBAR),
        (160, 39, Tier.SIDEBAR),
        (160, 48, Tier.COMPOSITE),
    ],
)
def test_tiers(width, height, expected):
    assert tier(width, height) is expected


@pytest.mark.parametrize("view", ["overview", "telescoping", "effective", "kernel", "examples", "browser"])
@pytest.mark.parametrize("size", [(20, 6), (60, 15), (80, 24), (100, 30), (120, 36), (160, 48), (250, 80)])
def test_panes_fill_the_room_without_overlap(view, size):
    width, height = size
    alone = "loss" if tier(width, height) is Tier.SMALL else None
    rects = arrange(view, width, height, alone)
    if alone is None:
        assert set(rects) == set(names(view, tier(width, height)))
    seen = set()
    for rect in rects.values():
        cells = {
            (x, y) for x in range(rect.x, rect.x + rect.width) for y in range(rect.y, rect.y + rect.height)
        }
        assert not cells & seen
        seen |= cells
    rows = {y for _, y in seen}
    assert {x for x, _ in seen} == set(range(width))
    assert rows == set(range(min(rows), max(rows) + 1))
    assert max(rows) < height
