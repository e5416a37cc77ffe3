from __future__ import annotations

import pytest
from tscope_format import chain, root_writer


@pytest.fixture(autouse=True)
def close_anchors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let anchors be so close that a short run has several."""
    monkeypatch.setattr(chain, "ANCHOR_ROWS", 8)
    monkeypatch.setattr(root_writer, "ANCHOR_ROWS", 8)
