"""`tscope browse`: the terminal interface."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from tscope_format.errors import UsageError, clean

DEFAULT = Path("runs")


def browse(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[TRACE|DIR]...",
            help="Traces, or folders with traces; ./runs if none.",
            show_default=False,
        ),
    ] = None,
    ascii: Annotated[
        bool, typer.Option("--ascii", help="Use only ASCII characters (also without a UTF-8 locale).")
    ] = False,
    mouse: Annotated[
        bool | None,
        typer.Option(
            "--mouse/--no-mouse", help="Take clicks; by default not over SSH nor in tmux.", show_default=False
        ),
    ] = None,
) -> None:
    """Browse traces in the terminal: what was recorded, curves, telescoping, live runs."""
    require_terminal()
    chosen = paths or [DEFAULT]
    missing = [path for path in chosen if paths and not path.exists()]
    if missing:
        raise UsageError(
            f"{clean(missing[0])}: no such trace or folder; `tscope ls DIR` lists the traces of a folder"
        )
    from tscope_tui import browse as open_browser

    ascii = ascii or "utf" not in (sys.stdout.encoding or "").lower()
    remote = bool(os.environ.get("SSH_CONNECTION") or os.environ.get("TMUX"))
    code = open_browser(chosen, ascii=ascii, mouse=not remote if mouse is None else mouse)
    if code:
        raise typer.Exit(code)


def require_terminal() -> None:
    """Refuse to draw where nothing could be seen.

    Raises:
        UsageError: Not a terminal, or one that cannot move its cursor.
    """
    # Textual draws on stderr, and reads keys from stdin.
    for stream, name in ((sys.stdin, "input"), (sys.stdout, "output"), (sys.stderr, "error output")):
        if stream is None or not stream.isatty():
            raise UsageError(
                f"browse needs a terminal, and its {name} is none; use `tscope ls` or `tscope info TRACE`"
            )
    if os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        raise UsageError(
            "browse needs a terminal that can move its cursor, and TERM is "
            f"{clean(os.environ.get('TERM') or 'not set')}; use `tscope ls` or `tscope info TRACE`"
        )
