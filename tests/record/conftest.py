from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from record_run import Run


@pytest.fixture
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Run]]:
    """Start recordings, and end those that a test left running."""
    started: list[Run] = []

    def start(**settings: Any) -> Run:
        # A short path: a socket's name is limited to about 100 bytes.
        started.append(Run(Path(tmp_path_factory.mktemp("r")), **settings))
        return started[-1]

    yield start
    for run in started:
        for script in run.scripts:
            script.leave()
        if run.ingest.running:
            run.finish("interrupted", "the test ended")
