"""An analysis on the command line: run with its progress told, and kept in the trace or elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tscope_format.errors import TraceError, UsageError, clean

from tscope_cli.terminal import Progress, say

if TYPE_CHECKING:
    from tscope_format import Result


def compute(
    trace: Path, metric: str, root: str | None, options: Mapping[str, object], *, quiet: bool
) -> Result:
    """Run the analysis, with what it will cost and its progress on stderr."""
    from tscope import analyses

    spare_threads()
    with Progress(metric, quiet=quiet) as progress:
        return analyses.analyze(
            trace, metric, root=root, save=False, progress=progress, say=progress.say, **options
        )


def spare_threads() -> None:
    """Let torch work in one thread, unless the user says otherwise.

    Probe sets and recorded models are mostly small: threads then cost more than they give, and on a busy
    machine they wait for each other (an LSTM's replay took 7 times the CPU with two).
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def save(result: Result, trace: Path, elsewhere: Path | None) -> str | None:
    """Keep the result in the trace or `elsewhere`, and return where.

    A trace that cannot be written gives None and a word on stderr: the figures are worth more.

    Raises:
        UsageError: `elsewhere` cannot be written.
    """
    from tscope_format import save_result

    folder = trace if elsewhere is None else elsewhere
    try:
        name = save_result(folder, result, str(result.provenance["root"]))
    except TraceError as error:
        if elsewhere is not None:
            raise UsageError(f"--save-to: {clean(error)}") from error
        say(str(error))
        return None
    return f"{folder}/analysis/{result.metric}/{name}"


def say_unless(quiet: bool, text: str) -> None:
    """Say `text` on stderr, unless asked to be quiet."""
    if not quiet:
        say(text)
