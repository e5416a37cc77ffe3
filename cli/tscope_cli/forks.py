"""`tscope forks`: the runs that part from a run, and the barriers between them, against where they part."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tscope_format.errors import MissingDataError, UsageError, clean

from tscope_cli.numerals import significant
from tscope_cli.table import Column, render
from tscope_cli.terminal import is_tty, out, paint, width

if TYPE_CHECKING:
    from tscope_format import TraceReader

METRIC = "weight-averaging"
# Scalars of the metric, and the titles of their columns.
_SHOWN = {
    "barrier_loss_train": "barrier train",
    "barrier_loss_test": "barrier test",
    "loss_average_test": "average test",
    "loss_ensemble_test": "ensemble test",
    "explained_test": "explained test",
}


@dataclass(frozen=True)
class Line:
    """One fork.

    Attributes:
        trace: Its trace.
        step: Where it was asked to part.
        seed: What it was reseeded with.
        same_until: The last step at which its parameters are those of its base.
        batches_from: The first step with another batch; None where there is none, or it is not known.
        result: Name of the saved result that the values are of; None if there is none.
        values: Scalars of it.
    """

    trace: Path
    step: int
    seed: int
    same_until: int
    batches_from: int | None
    result: str | None = None
    values: Mapping[str, float] = field(default_factory=dict)


def forks(
    trace: Annotated[
        Path, typer.Argument(metavar="TRACE", help="The run that the forks part from.", show_default=False)
    ],
    compute: Annotated[
        bool, typer.Option("--compute", help="Average each fork with the run where no result is saved.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """List the forks of a run (`record --fork-at`), with the barrier between each and the run."""
    from tscope_format import open_trace

    base = open_trace(trace)
    listed = _listed(trace, base)
    lines = []
    for entry in listed:
        path = trace.parent / Path(str(entry["trace"])).name  # beside it, whatever the trace says
        lines.append(_line(trace, base, path, entry, compute=compute))
    if json:
        from tscope_cli import jsonfile

        rows = [{**asdict(line), "trace": str(line.trace)} for line in lines]
        jsonfile.dump({"trace": str(trace), "metric": METRIC, "forks": rows})
        return
    _print(lines)
    if not all(line.result for line in lines):
        out(f"next: tscope forks {shlex.quote(clean(trace))} --compute")


def _listed(path: Path, base: TraceReader) -> Sequence[Mapping[str, Any]]:
    """Return the forks that a trace knows of, in the order of their steps and seeds.

    Raises:
        UsageError: It is a fork itself.
        MissingDataError: It knows of none.
    """
    listed = base.facts.get("forks") or ()
    if listed:
        return sorted(listed, key=lambda fork: (fork["step"], fork["seed"]))
    if base.facts.get("fork"):
        whole = path.parent / str(base.facts["fork"].get("base"))
        raise UsageError(f"{path} is a fork itself: tscope forks {clean(whole)} lists all of that run")
    raise MissingDataError(
        f"{path} has no forks; record some: tscope record --fork-at STEP,… --seeds SEED,… -- COMMAND"
    )


def _line(trace: Path, base: TraceReader, path: Path, entry: Mapping[str, Any], *, compute: bool) -> Line:
    """Read what is known of a fork.

    Raises:
        TraceError: Its trace is gone, or damaged.
        UsageError: There is another trace in its place.
    """
    from tscope_format import open_trace

    fork = open_trace(path)
    facts = fork.facts.get("fork") or {}
    if facts.get("base_id") != base.facts.get("id") or not facts.get("verified"):
        raise UsageError(f"{path} is another trace than the fork of {trace} that was recorded there")
    found = _saved(path, fork, base)
    if found is None and compute:
        from tscope_cli.analysis import compute as analyse
        from tscope_cli.analysis import save

        save(analyse(path, METRIC, None, {"against": str(trace)}, quiet=False), path, None)
        found = _saved(path, fork, base)
    name, values = found or (None, {})
    same, first = facts["same_until"], facts.get("batches_from")
    return Line(path, int(entry["step"]), int(entry["seed"]), int(same), first, name, values)


def _saved(path: Path, fork: TraceReader, base: TraceReader) -> tuple[str, dict[str, float]] | None:
    """Return the newest saved average of a fork's last state and its base's."""
    from tscope_format import list_results, load_result

    both = {fork.fingerprint, base.fingerprint}
    for info in reversed(list_results(path)):
        members = info.provenance.get("members") or ()
        options = info.provenance.get("options") or {}
        if info.metric == METRIC and {m["trace"] for m in members} == both and options.get("at") is None:
            scalars = load_result(path, METRIC, info.id, arrays=()).scalars
            return info.id, {name: _number(scalars.get(name)) for name in _SHOWN}
    return None


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _print(lines: Sequence[Line]) -> None:
    shown = [name for name in _SHOWN if any(math.isfinite(line.values.get(name, math.nan)) for line in lines)]
    columns = [
        Column("fork", number=False, elastic=True),
        *(Column(title) for title in ("at step", "seed", "same until", "batches from")),
        *(Column(_SHOWN[name]) for name in shown),
    ]
    rows = [
        [
            line.trace.name.removesuffix(".zarr"),
            f"{line.step:,}",
            line.seed,
            f"{line.same_until:,}",
            "-" if line.batches_from is None else f"{line.batches_from:,}",
            *(significant(line.values.get(name, math.nan)) for name in shown),
        ]
        for line in lines
    ]
    for index, text in enumerate(render(columns, rows, width() if is_tty(sys.stdout) else None)):
        out(paint(text, "bold") if index == 0 else text)
