"""Running a script under the observer, and reading what its frames say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fake_parent import Frame, Run, python
from observed_scripts import PRELUDE, write


def observe(tmp_path: Path, name: str, **options: Any) -> Run:
    options = {"export": "process", **options}
    done = python(write(tmp_path, name), str(tmp_path / "out.pt"), options=options, export=False)
    assert done.code == 0, done.stderr
    assert not done.of("report")
    return done


def script(tmp_path: Path, text: str, *, options: Any = None, export: bool = False) -> Run:
    path = tmp_path / "train.py"
    path.write_text(PRELUDE + text)
    done = python(path, str(tmp_path / "out.pt"), options=options, export=export)
    assert done.code == 0, done.stderr
    return done


def printed(done: Run) -> list[float]:
    return [float(line.split()[0]) for line in done.stdout.splitlines() if not line.startswith("last")]


def sizes(step: Frame) -> list[int]:
    return [micro["size"] for micro in step["micro"]]
