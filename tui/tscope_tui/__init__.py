"""The terminal interface: a browser of traces, and views of a run on one scrubber.

It reads traces through `tscope_format` and never imports torch. `tscope_tui.plot` needs no terminal at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["browse"]


def browse(paths: Sequence[Path], *, ascii: bool = False, mouse: bool = False) -> int:
    """Browse traces, or the folders that hold them, until the reader quits.

    Args:
        paths: Traces and folders. A single trace is opened at once.
        ascii: Use only ASCII characters.
        mouse: Take clicks of the mouse.

    Returns:
        The exit code: 0, or 128 + n when signal n ended the program.
    """
    from tscope_tui.terminal.app import run

    return run([Path(path) for path in paths], ascii=ascii, mouse=mouse)
