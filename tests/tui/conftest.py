"""Golden text: `TSCOPE_UPDATE_GOLDEN=1 pytest tests/tui` rewrites it, then review the diff by eye."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "golden"


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    def compare(name: str, text: str) -> None:
        path = FOLDER / name
        text = text.rstrip("\n") + "\n"
        if os.environ.get("TSCOPE_UPDATE_GOLDEN") == "1":
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"no golden text {path.name}; run with TSCOPE_UPDATE_GOLDEN=1 to write it"
        assert text == path.read_text(encoding="utf-8")

    return compare
