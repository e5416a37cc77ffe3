"""A person's way: a script in a file, `tscope record`, `tscope analyze … --json`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Found:
    """What `tscope analyze --json` printed."""

    arrays: dict[str, NDArray[np.float64]]
    scalars: dict[str, Any]
    notes: list[str]
    provenance: dict[str, Any]


def command(folder: Path, *arguments: object) -> str:
    """Run `tscope` in a process of its own, which must succeed, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tscope_cli", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def recorded(folder: Path, script: str, *options: object, out: str = "run.zarr", words: str = "") -> Path:
    """Record a script in `folder`, called with the words, and return the path of its trace."""
    (folder / "train.py").write_text(script)
    command(folder, "record", "-o", out, *options, "--", sys.executable, "train.py", *words.split())
    return folder / out


def analyzed(trace: Path, metric: str, *options: object) -> Found:
    """Analyze a trace."""
    words = ("analyze", trace.name, "--metric", metric, *options, "--no-save", "--json")
    found = json.loads(command(trace.parent, *words))
    arrays = {name: np.array(entry["data"], dtype=float) for name, entry in found["arrays"].items()}
    return Found(arrays, found["scalars"], found["notes"], found["provenance"])
