from __future__ import annotations

from collections.abc import Iterator

import pytest
from recorded import precise
from tscope_format import chain, root_writer


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hold traces in the precision of the run, with anchors so close that a short run has several."""
    monkeypatch.setattr(chain, "ANCHOR_ROWS", 8)
    monkeypatch.setattr(root_writer, "ANCHOR_ROWS", 8)
    with precise(monkeypatch):
        yield
