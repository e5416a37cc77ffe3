"""`tscope verify`: check traces as a whole, chunk by chunk."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tscope_format.errors import TraceError, clean

from tscope_cli.numerals import plural
from tscope_cli.table import Column, render
from tscope_cli.terminal import Progress, out, paint

if TYPE_CHECKING:
    from tscope_format import VerifyReport

_SHOWN = 50  # a trace on a dying disk has one problem a chunk; --json gives them all


def verify(
    traces: Annotated[
        list[Path], typer.Argument(metavar="TRACE...", help="The traces to check.", show_default=False)
    ],
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; print problems only.")] = False,
) -> int:
    """Check structure, every chunk and checksum, the updates against the anchors, and example hashes.

    Exit code 3 if any trace is damaged; each problem names the array and the rows.
    """
    from tscope_format import verify as check

    reports: list[tuple[Path, VerifyReport | TraceError]] = []
    for path in traces:
        try:
            with Progress(f"verifying {path.name}", quiet=quiet) as progress:
                reports.append((path, check(path, progress)))
        except TraceError as error:
            reports.append((path, error))
    if json:
        from tscope_cli import jsonfile

        jsonfile.dump({"traces": [_to_dict(path, report) for path, report in reports]})
    else:
        for path, report in reports:
            _print(path, report, quiet)
    return (
        0
        if all(not isinstance(report, TraceError) and report.ok for _, report in reports)
        else TraceError.exit_code
    )


def _print(path: Path, report: VerifyReport | TraceError, quiet: bool) -> None:
    """Print what was found in one trace."""
    if isinstance(report, TraceError):
        out(f"{paint('BAD', 'red')}  {clean(report)}")
        return
    if report.ok:
        if not quiet:
            counts = ((number, clean(what).removesuffix("s")) for what, number in report.checked.items())
            checked = ", ".join(plural(number, what) for number, what in counts)
            out(f"{paint('ok', 'green')}   {clean(path)}: {checked}")
        return
    out(f"{paint('BAD', 'red')}  {clean(path)}: {plural(len(report.problems), 'problem')}")
    rows = [(problem.where, _rows(problem.rows), problem.what) for problem in report.problems[:_SHOWN]]
    columns = (Column("array", number=False), Column("rows", number=False), Column("what", number=False))
    for line in render(columns, rows):
        out(f"  {line}")
    if len(report.problems) > _SHOWN:
        out(f"  … and {plural(len(report.problems) - _SHOWN, 'more problem')}; --json lists all")


def _to_dict(path: Path, report: VerifyReport | TraceError) -> dict[str, object]:
    if isinstance(report, TraceError):
        return {"path": str(path), "ok": False, "error": clean(report), "checked": {}, "problems": []}
    return {
        "path": str(path),
        "ok": report.ok,
        "checked": dict(report.checked),
        "problems": [asdict(problem) for problem in report.problems],
    }


def _rows(rows: object) -> str:
    """Return a range of rows (first, last + 1) as people write it."""
    if isinstance(rows, range):
        rows = (rows.start, rows.stop)
    if isinstance(rows, tuple) and len(rows) == 2:
        first, stop = rows
        return f"{first}" if stop - first == 1 else f"{first}-{stop - 1}"
    return "" if rows is None else str(rows)
