"""`tscope compare`: one metric of several traces, side by side."""

from __future__ import annotations

import csv as csv_format
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from tscope_format import Result, ResultInfo, TraceReader
from tscope_format.errors import MissingDataError, UsageError, clean

from tscope_cli.numerals import percent, significant
from tscope_cli.readings import series
from tscope_cli.table import Column, render
from tscope_cli.terminal import is_tty, out, paint, width
from tscope_cli.view import Curve
from tscope_cli.views import needed, view_of

_OF_FORKS = ("gradients", "weight-averaging")


@dataclass(frozen=True)
class Entry:
    """One trace's line.

    Attributes:
        trace: Its folder.
        differs: The words of its command that not all traces have.
        step: The kept step that the values are of.
        values: By array name.
        result: Where they come from.
        saved: The saved result's name.
    """

    trace: Path
    differs: str
    step: int
    values: dict[str, float]
    result: Result
    saved: str


def compare(
    traces: Annotated[
        list[Path], typer.Argument(metavar="TRACE TRACE...", help="Two traces or more.", show_default=False)
    ],
    metric: Annotated[
        str, typer.Option("--metric", "-m", metavar="NAME", help="Which metric's saved results.")
    ] = "telescoping",
    root: Annotated[
        str | None, typer.Option(metavar="NAME", help="The recorded model, when there are several.")
    ] = None,
    at: Annotated[
        int | None, typer.Option(metavar="STEP", help="The last kept step up to this one. [default: last]")
    ] = None,
    compute: Annotated[
        bool, typer.Option("--compute", help="Compute and save the metric where no result is saved.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Write the table as a CSV file.")
    ] = None,
) -> None:
    """Compare a metric over several traces: a line each, with what differs between their commands."""
    if len(traces) < 2:
        raise UsageError(f"compare needs two traces or more, got {len(traces)}")
    if len({path.resolve() for path in traces}) < len(traces):
        raise UsageError("a trace was given twice")
    from tscope_format import open_trace

    readers = [open_trace(path) for path in traces]
    if compute:
        _compute_missing(traces, readers, metric, root)
    words = _differences([_words(reader) for reader in readers])
    entries = [
        _entry(path, reader, metric, root, at, differs)
        for path, reader, differs in zip(traces, readers, words, strict=True)
    ]
    curves = _curves(entries)
    if csv is not None:
        _write(csv, entries, curves)
    if json:
        from tscope_cli import jsonfile

        jsonfile.dump({"metric": metric, "traces": [_to_dict(entry) for entry in entries]})
        return
    _print(entries, curves)


def _compute_missing(
    traces: Sequence[Path], readers: Sequence[TraceReader], metric: str, root: str | None
) -> None:
    from tscope_cli.analysis import compute, save

    for path, reader in zip(traces, readers, strict=True):
        if _newest(path, reader, metric, root) is None:
            save(compute(path, metric, root, {}, quiet=False), path, None)


def _newest(path: Path, reader: TraceReader, metric: str, root: str | None) -> ResultInfo | None:
    """Return the newest saved result of the metric for the root."""
    from tscope_format import list_results

    name = reader.root(root).name
    mine = [
        info for info in list_results(path) if info.metric == metric and info.provenance.get("root") == name
    ]
    return mine[-1] if mine else None


def _entry(
    path: Path, reader: TraceReader, metric: str, root: str | None, at: int | None, differs: str
) -> Entry:
    from tscope_format import load_result

    info = _newest(path, reader, metric, root)
    if info is None:
        raise MissingDataError(
            f"{path} has no saved result of {clean(metric)}; compute it with --compute, or with options: "
            f"tscope analyze {path} --metric {clean(metric)}"
        )
    result = load_result(path, metric, info.id, arrays=needed(metric))
    view = view_of(result)
    if view.coordinate != "step" or "step" not in result.arrays:
        raise UsageError(
            f"{clean(metric)} has no values along the steps to compare: its values are along {view.axis}; "
            f"look at each with `tscope analyze {clean(path)} --metric {clean(metric)}`"
            + (", or at all forks of a run with `tscope forks`" if metric in _OF_FORKS else "")
        )
    steps = np.asarray(result.arrays[view.coordinate].data)
    row = len(steps) - 1 if at is None else int(np.searchsorted(steps, at, side="right")) - 1
    if row < 0:
        raise UsageError(f"{path}: no step up to {at} was kept; the first is {int(steps[0])}")
    values = {curve.array: float(series(result, curve.array)[row]) for curve in view.columns}
    return Entry(path, differs, int(steps[row]), values, result, info.id)


def _words(reader: TraceReader) -> list[str]:
    """Return the command as words, an option together with its value, and the fork that the run is."""
    words: list[str] = []
    for word in reader.facts.get("command") or ():
        text = clean(word)
        if words and words[-1].startswith("-") and " " not in words[-1] and not text.startswith("-"):
            words[-1] += f" {text}"
        else:
            words.append(text)
    if fork := reader.facts.get("fork"):
        words.append(f"fork at {clean(fork.get('step'))}, seed {clean(fork.get('seed'))}")
    return words


def _differences(commands: Sequence[Sequence[str]]) -> list[str]:
    """Return of each command the words that not all of them have."""
    common = set(commands[0]).intersection(*commands[1:])
    return [" ".join(word for word in command if word not in common) for command in commands]


def _curves(entries: Sequence[Entry]) -> list[Curve]:
    """Return the columns that any of the results has, in the order of the metric's view."""
    found: dict[str, Curve] = {}
    for entry in entries:
        for curve in view_of(entry.result).columns:
            found.setdefault(curve.array, curve)
    return list(found.values())


def _print(entries: Sequence[Entry], curves: Sequence[Curve]) -> None:
    columns = [
        Column("trace", number=False, elastic=True),
        Column("differs in", number=False, elastic=True),
        Column("step"),
        *(Column(curve.title) for curve in curves),
    ]
    rows = [
        [
            entry.trace.name.removesuffix(".zarr"),
            entry.differs or "-",
            f"{entry.step:,}",
            *(_cell(curve, entry.values.get(curve.array, float("nan"))) for curve in curves),
        ]
        for entry in entries
    ]
    for index, line in enumerate(render(columns, rows, width() if is_tty(sys.stdout) else None)):
        out(paint(line, "bold") if index == 0 else line)
    for name, values in _settings(entries).items():
        told = ", ".join(
            f"{entry.trace.name.removesuffix('.zarr')} {clean(value)}"
            for entry, value in zip(entries, values, strict=True)
        )
        out(f"note: computed with different {clean(name)}: {told}")


def _settings(entries: Sequence[Entry]) -> dict[str, list[object]]:
    """Return the options that the results do not share, with the values of each entry."""
    options = [dict(entry.result.provenance.get("options") or {}) for entry in entries]
    names = sorted({name for own in options for name in own})
    found = {name: [own.get(name) for own in options] for name in names}
    return {name: values for name, values in found.items() if any(v != values[0] for v in values)}


def _cell(curve: Curve, value: float) -> str:
    return percent(value) if curve.share else significant(value)


def _to_dict(entry: Entry) -> dict[str, object]:
    return {
        "path": str(entry.trace),
        "differs": entry.differs,
        "result": entry.saved,
        "step": entry.step,
        "values": entry.values,
        "scalars": dict(entry.result.scalars),
        "options": dict(entry.result.provenance.get("options") or {}),
    }


def _write(path: Path, entries: Sequence[Entry], curves: Sequence[Curve]) -> None:
    names = [curve.array for curve in curves]
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv_format.writer(file)
            writer.writerow(["trace", "differs", "step", *names])
            for entry in entries:
                values = [entry.values.get(name, "") for name in names]
                writer.writerow([entry.trace, entry.differs, entry.step, *values])
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
