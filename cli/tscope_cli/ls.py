"""`tscope ls`: the traces in a folder."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from tscope_format.disk import disk_size
from tscope_format.errors import TraceError, UsageError, clean

from tscope_cli.numerals import significant, size
from tscope_cli.summary import Damaged, Summary, age, summarise, to_dict
from tscope_cli.table import Column, render
from tscope_cli.terminal import is_tty, out, paint, say, width

DEFAULT = Path("runs")
_METRIC, _OF_RESULTS = "effective-params", ("p_train", "p_test")
_COLUMNS = (
    Column("name", number=False, elastic=True),
    Column("status", number=False),
    Column("steps"),
    Column("loss"),
    Column("p_train"),
    Column("p_test"),
    Column("model", number=False, elastic=True),
    Column("parameters"),
    Column("size"),
    Column("age"),
)


def ls(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[DIR]...", help="Folders with traces, or traces; ./runs if none.", show_default=False
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the traces in a folder, the newest first; damaged ones are shown with the reason.

    p_train and p_test are effective parameters at the last step, from the newest saved result of
    `tscope analyze TRACE --metric effective-params`.
    """
    found = [
        trace for folder in folders or [DEFAULT] for trace in traces_in(folder, must_exist=bool(folders))
    ]
    listed = sorted((read(path) for path in found), key=lambda entry: -_moment(entry))
    parameters = [effective(entry) for entry in listed]
    if json:
        from tscope_cli import jsonfile

        pairs = zip(listed, parameters, strict=True)
        jsonfile.dump({"traces": [_to_dict(entry, p) for entry, p in pairs]})
        return
    if not listed:
        where = ", ".join(str(folder) for folder in folders or [DEFAULT])
        say(f"no traces in {where}; record one: tscope record -- python train.py (or: tscope demo)")
        return
    _print(listed, parameters)


def traces_in(folder: Path, *, must_exist: bool = True) -> list[Path]:
    """Return the traces in `folder`, or the folder itself if it is one.

    Raises:
        UsageError: `folder` does not exist (and must), or is not a folder.
    """
    if not folder.exists():
        if must_exist:
            raise UsageError(f"{folder}: no such folder")
        return []
    if not folder.is_dir():
        raise UsageError(f"{folder}: not a folder")
    if is_trace(folder):
        return [folder]
    try:
        return [entry for entry in folder.iterdir() if entry.is_dir() and is_trace(entry)]
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read: {error.strerror}") from error


def is_trace(path: Path) -> bool:
    """Return whether a folder is a trace by its name, so that damaged ones are seen too, or its record."""
    return path.suffix == ".zarr" or (path / "zarr.json").is_file()


def read(path: Path) -> Summary | Damaged:
    """Return the summary of a trace, or why it cannot be read."""
    from tscope_format import open_trace

    try:
        return summarise(open_trace(path))
    except TraceError as error:
        return Damaged(path, clean(error), path.stat().st_mtime, disk_size(path))


def effective(entry: Summary | Damaged) -> dict[str, float]:
    """Return `p_train` and `p_test` of the first recorded model, NaN where no result is saved."""
    from tscope_format import last_values

    if isinstance(entry, Damaged) or not entry.roots:
        return dict.fromkeys(_OF_RESULTS, math.nan)
    return last_values(entry.path, _METRIC, entry.roots[0].name, _OF_RESULTS)


def _moment(entry: Summary | Damaged) -> float:
    """Return when a trace was begun, or last touched where that is not known."""
    if isinstance(entry, Summary) and math.isfinite(entry.created):
        return entry.created
    return entry.committed


def _print(listed: list[Summary | Damaged], parameters: list[dict[str, float]]) -> None:
    now = time.time()
    rows = [_row(entry, p, now) for entry, p in zip(listed, parameters, strict=True)]
    # A pipe gets whole names; a terminal gets lines that fit.
    room = width() if is_tty(sys.stdout) else None
    analysed = any(math.isfinite(value) for p in parameters for value in p.values())
    # Until something was analysed these columns would only take room from the names.
    lines = _without(rows, () if analysed else _OF_RESULTS, room)
    if analysed and room is not None and max(map(len, lines)) > room:
        lines = _without(rows, ("parameters",), room)
    for index, line in enumerate(lines):
        out(paint(line, "bold") if index == 0 else line)
    for entry in listed:
        if isinstance(entry, Damaged):
            out(paint(entry.reason, "red"))


def _without(rows: Sequence[Sequence[str]], titles: Sequence[str], room: int | None) -> list[str]:
    """Return the lines of the table without some columns."""
    kept = [at for at, column in enumerate(_COLUMNS) if column.title not in titles]
    return render([_COLUMNS[at] for at in kept], [[row[at] for at in kept] for row in rows], room)


def _row(entry: Summary | Damaged, p: Mapping[str, float], now: float) -> tuple[str, ...]:
    moment = age(_moment(entry), now)
    if isinstance(entry, Damaged):
        return (entry.path.name, "damaged", "", "", "", "", "", "", size(entry.size), moment)
    roots = entry.roots
    losses = [significant(root.loss) for root in roots if math.isfinite(root.loss)]
    return (
        entry.path.name,
        entry.status,
        f"{max((root.steps for root in roots), default=0):,}",
        losses[0] if losses else "-",
        *(significant(p[name]) if math.isfinite(p[name]) else "-" for name in _OF_RESULTS),
        " ".join(root.model for root in roots) or "-",
        f"{sum(root.parameters for root in roots):,}",
        size(entry.size),
        moment,
    )


def _to_dict(entry: Summary | Damaged, p: Mapping[str, float]) -> dict[str, object]:
    if isinstance(entry, Damaged):
        return {"path": str(entry.path), "status": "damaged", "reason": entry.reason, "size": entry.size}
    return {**to_dict(entry), **p}
