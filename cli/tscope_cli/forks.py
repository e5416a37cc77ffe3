"""`tscope forks`: the runs that part from a run, with barriers and gradient changes against where they do."""

from __future__ import annotations

import csv as csv_format
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from tscope_format.errors import UsageError, clean

from tscope_cli.numerals import significant
from tscope_cli.sweep import AVERAGES, GRADIENTS, SETS, Fork, disagreements, read_forks
from tscope_cli.table import Column, render
from tscope_cli.terminal import is_tty, out, paint, say, width

# Scalars of the average, and the titles of their columns.
_SHOWN = {
    "barrier_loss_train": "barrier train",
    "barrier_loss_test": "barrier test",
    "loss_average_test": "average test",
    "loss_ensemble_test": "ensemble test",
    "explained_test": "explained test",
}
_CHANGES = {"train": "gradients train", "test": "gradients test"}


def forks(
    traces: Annotated[
        list[Path],
        typer.Argument(
            metavar="TRACE...",
            help="The run that the forks part from; of several, tables and curves stand side by side.",
            show_default=False,
        ),
    ],
    compute: Annotated[
        bool,
        typer.Option(
            "--compute", help="Where none is saved, average each fork with its run, and follow gradients."
        ),
    ] = False,
    gradients: Annotated[
        bool,
        typer.Option("--gradients/--no-gradients", help="With --compute: how far gradients change."),
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Write the table as a CSV file, with each layer.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw barriers and gradient changes: .svg, .png or .pdf."),
    ] = None,
) -> None:
    """List the forks of a run (`record --fork-at`): barriers, and how far gradients change from there on."""
    if len({path.resolve() for path in traces}) < len(traces):
        raise UsageError("a trace was given twice")
    if plot is not None:
        from tscope_cli import figure

        figure.check(plot)
    sweeps = {
        name: read_forks(path, compute=compute, gradients=gradients)
        for name, path in zip(_names(traces), traces, strict=True)
    }
    rows = [fork for sweep in sweeps.values() for fork in sweep]
    if csv is not None:
        _write(csv, rows)
        say(f"wrote {csv}")
    if plot is not None:
        from tscope_cli import sweep_figure

        sweep_figure.save(sweeps, plot)
        say(f"wrote {plot}")
    if json:
        from tscope_cli import jsonfile

        jsonfile.dump({"metrics": [AVERAGES, GRADIENTS], "forks": [_to_dict(fork) for fork in rows]})
        return
    _print(sweeps)
    for metric, options in disagreements(rows).items():
        out(f"note: results of {metric} were computed with different {', '.join(map(clean, options))}")
    if not all(fork.result and len(fork.changes) == 2 for fork in rows):
        out(f"next: tscope forks {' '.join(shlex.quote(clean(path)) for path in traces)} --compute")


def _names(traces: Sequence[Path]) -> list[str]:
    """Return what the traces are called: the shortest ends of their paths that tell them apart."""
    whole = [path.resolve().parts for path in traces]
    for length in range(1, max(map(len, whole)) + 1):
        names = ["/".join(parts[-length:]).removesuffix(".zarr") for parts in whole]
        if len(set(names)) == len(names):
            break
    return names


def _print(sweeps: Mapping[str, Sequence[Fork]]) -> None:
    rows = [fork for sweep in sweeps.values() for fork in sweep]
    shown = [name for name in _SHOWN if any(math.isfinite(fork.values.get(name, math.nan)) for fork in rows)]
    changes = [name for name in SETS if any(math.isfinite(fork.change(name)) for fork in rows)]
    columns = [
        *([Column("run", number=False, elastic=True)] if len(sweeps) > 1 else []),
        Column("fork", number=False, elastic=True),
        *(Column(title) for title in ("at step", "seed", "same until", "batches from")),
        *(Column(_SHOWN[name]) for name in shown),
        *(Column(_CHANGES[name]) for name in changes),
    ]
    cells = [
        [
            *([base] if len(sweeps) > 1 else []),
            fork.trace.name.removesuffix(".zarr"),
            f"{fork.step:,}",
            fork.seed,
            f"{fork.same_until:,}",
            "-" if fork.batches_from is None else f"{fork.batches_from:,}",
            *(significant(fork.values.get(name, math.nan)) for name in shown),
            *(significant(fork.change(name)) for name in changes),
        ]
        for base, sweep in sweeps.items()
        for fork in sweep
    ]
    for index, text in enumerate(render(columns, cells, width() if is_tty(sys.stdout) else None)):
        out(paint(text, "bold") if index == 0 else text)


def _to_dict(fork: Fork) -> dict[str, object]:
    return {
        "base": str(fork.base),
        "trace": str(fork.trace),
        "step": fork.step,
        "seed": fork.seed,
        "same_until": fork.same_until,
        "batches_from": fork.batches_from,
        "result": fork.result,
        "values": dict(fork.values),
        "changes": {run: asdict(change) for run, change in fork.changes.items()},
        "options": {metric: [dict(own) for own in options] for metric, options in fork.options.items()},
    }


def _write(path: Path, rows: Sequence[Fork]) -> None:
    """Write a line a fork: where it parts, every scalar of the average, and the changes of gradients.

    Raises:
        UsageError: The file cannot be written.
    """
    scalars = list(dict.fromkeys(name for fork in rows for name in fork.values))
    layers = {
        name: list(dict.fromkeys(layer for fork in rows for layer in fork.layers(name))) for name in SETS
    }
    head = ["base", "trace", "step", "seed", "same_until", "batches_from", *scalars]
    for name in SETS:
        head += [f"change_{name}", *(f"change_{name}:{layer}" for layer in layers[name])]
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv_format.writer(file)
            writer.writerow(head)
            for fork in rows:
                line: list[object] = [fork.base, fork.trace, fork.step, fork.seed, fork.same_until]
                line += ["" if fork.batches_from is None else fork.batches_from]
                line += [fork.values.get(name, "") for name in scalars]
                for name in SETS:
                    changes = (fork.change(name), *(fork.change(name, own) for own in layers[name]))
                    line += ["" if math.isnan(value) else value for value in changes]
                writer.writerow(line)
    except OSError as error:
        raise UsageError(f"--csv {path}: cannot be written: {error.strerror or error}") from error
