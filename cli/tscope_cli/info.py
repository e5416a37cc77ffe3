"""`tscope info`: what a trace is, what it holds, what can be computed from it, and what it lacks."""

from __future__ import annotations

import math
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tscope_format.errors import clean

from tscope_cli import events, metrics
from tscope_cli.holdings import Holdings, holdings, probe_line
from tscope_cli.numerals import duration, percent, plural, significant, size
from tscope_cli.summary import RootSummary, Summary, status_line, summarise, to_dict
from tscope_cli.table import facts as lines_of
from tscope_cli.terminal import out, paint

if TYPE_CHECKING:
    from tscope_format import ResultInfo

_REPORTS = 5
Pairs = list[tuple[str, str]]


def info(
    trace: Annotated[
        Path, typer.Argument(metavar="TRACE", help="The trace: a folder, *.zarr.", show_default=False)
    ],
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Say what a trace holds, what can be computed from it, and what it lacks."""
    # Read when numpy is imported: starting the threads of its BLAS would be a quarter of what this costs.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from tscope_format import list_results, open_trace

    reader = open_trace(trace)
    summary = summarise(reader)
    held = {name: holdings(reader.root(name)) for name in reader.roots}
    available = metrics.availability(reader)
    results = list_results(trace)
    if json:
        from tscope_cli import jsonfile

        jsonfile.dump(
            {
                **to_dict(summary),
                "recorder": dict(reader.facts.get("recorder") or {}),
                "holdings": {name: asdict(item) for name, item in held.items()},
                "metrics": [asdict(item) for item in available],
                "results": [_result(item) for item in results],
                "fork": reader.facts.get("fork"),
                "forks": list(reader.facts.get("forks") or ()),
                "reports": list(reader.facts.get("reports") or ()),
            }
        )
        return
    pairs = _run(summary, reader.facts)
    for root, item in zip(summary.roots, held.values(), strict=True):
        pairs += [*_root(root, alone=len(summary.roots) == 1), *_held(item)]
    steps = {root.name: root.steps for root in summary.roots}
    pairs += _listed("events", events.short(trace, results, steps))
    pairs += [*_beyond(available, results), *_reports(reader.facts)]
    out(paint(clean(trace), "bold"))
    for line in lines_of(pairs):
        out(line)
    out(f"next: {_next(trace, summary, available, results)}")


def _run(summary: Summary, facts: Mapping[str, Any]) -> Pairs:
    """Return what is known of the run as a whole."""
    pairs = [("status", status_line(summary, time.time()))]
    if summary.command:
        pairs.append(("command", shlex.join(summary.command)))
    if math.isfinite(summary.created):
        pairs.append(("started", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(summary.created))))
    versions = [f"{name} {facts[name]}" for name in ("python", "torch", "tscope") if facts.get(name)]
    if versions:
        pairs.append(("versions", ", ".join(map(str, versions))))
    every = (facts.get("options") or {}).get("every", 1)
    if every != 1 and any(root.kind == "net" for root in summary.roots):
        pairs.append(("coarse", f"only every {every}th step is recorded"))
    ratio = summary.raw / summary.size if summary.size else 0.0
    smaller = f", {significant(ratio, 2)} times smaller than its" if ratio >= 1 else " for"
    pairs.append(("size", f"{size(summary.size)}{smaller} {size(summary.raw)} of arrays"))
    pairs += _recorder(facts.get("recorder") or {})
    pairs += _forks(facts)
    if not summary.roots:
        pairs.append(("model", "none: nothing was trained while this was recorded"))
    return pairs


def _forks(facts: Mapping[str, Any]) -> Pairs:
    """Return which run this one parts from, and which part from it."""
    pairs: Pairs = []
    if fork := facts.get("fork"):
        where = f"step {fork.get('step')} with seed {fork.get('seed')}"
        same = f"; the same up to step {fork.get('same_until')}" if fork.get("verified") else ""
        pairs.append(("fork", f"of {fork.get('base')} at {where}{same}"))
        if not fork.get("verified"):
            pairs.append(("", str(fork.get("problem") or "not compared with it")))
    forks = [
        f"{fork.get('trace')} at step {fork.get('step')}, the same up to step {fork.get('same_until')}"
        for fork in facts.get("forks") or ()
    ]
    return [*pairs, *_listed("forks", forks)]


def _recorder(figures: Mapping[str, Any]) -> Pairs:
    """Return what recording cost the run, if it got far enough to tell."""
    if not figures.get("seconds"):
        return []
    share, run = percent(float(figures.get("share", 0.0))), duration(float(figures["seconds"]))
    waited = duration(float(figures.get("wait_seconds", 0.0)))
    return [("recorder", f"{share} of the run's {run}; the run waited {waited} for it")]


def _root(root: RootSummary, *, alone: bool) -> Pairs:
    """Return what is known of one recorded model."""
    name = "" if alone else f"{root.name}: "
    rates = ", ".join(significant(rate, 3) for rate in root.lr)
    contents = f"{plural(root.parameters, 'parameter')} in {plural(root.tensors, 'tensor')}"
    optimizers = [*root.optimizers] or ["none seen"]
    if root.kind == "trees":
        return [
            ("model", f"{name}{root.model}, an ensemble of {plural(root.steps, 'tree')}"),
            *_listed("rule", optimizers),
            *([("shrinkage", rates)] if rates else []),
            ("loss", f"{significant(root.loss)} at the last tree (mean squared error of training)"),
        ]
    return [
        ("model", f"{name}{root.model}, {contents}"),
        *_listed("optimizer", optimizers),
        *([("learning rate", f"{rates} at the last step")] if rates else []),
        ("steps", f"{root.steps:,} ({plural(root.rows, 'row')}, the state before training included)"),
        ("loss", f"{significant(root.loss)} at the last step" if math.isfinite(root.loss) else "none seen"),
    ]


def _held(item: Holdings) -> Pairs:
    """Return what a model holds and lacks."""
    program = (
        "recorded: any step can be evaluated on any input" if item.program else f"none: {item.program_reason}"
    )
    return [
        *_listed("probes", [probe_line(probe) for probe in item.probes] or ["none"]),
        *([("", f"projections stopped: {item.projections_failed}")] if item.projections_failed else []),
        ("program", program),
        *_listed("holds", item.recorded),
        *_listed("lacks", item.lacks),
    ]


def _beyond(available: Sequence[metrics.Availability], results: Sequence[ResultInfo]) -> Pairs:
    """Return what can be, and what has been, computed."""
    alone = len({item.root for item in available}) < 2
    return [
        *_listed("metrics", [_state(item, alone=alone) for item in available]),
        *_listed("results", [f"{result.metric} {result.id}" for result in results]),
    ]


def _reports(facts: Mapping[str, Any]) -> Pairs:
    """Return the recorder's own errors during the run."""
    reports = facts.get("reports") or ()
    shown = [f"{report.get('where')}: {report.get('error')}" for report in reports[:_REPORTS]]
    if len(reports) > _REPORTS:
        shown.append(f"and {plural(len(reports) - _REPORTS, 'more report')}; --json lists all")
    return _listed("errors", shown)


def _state(item: metrics.Availability, *, alone: bool) -> str:
    name = item.name if alone else f"{item.name} of {clean(item.root)}"
    return f"{name}: lacks {'; '.join(item.lacks)}" if item.lacks else f"{name}: ready"


def _listed(label: str, values: Sequence[str]) -> Pairs:
    """Return several values under one label."""
    return [(label if index == 0 else "", value) for index, value in enumerate(values)]


def _result(result: ResultInfo) -> dict[str, object]:
    return {"metric": result.metric, "id": result.id, "created": result.created}


def _next(
    trace: Path,
    summary: Summary,
    available: Sequence[metrics.Availability],
    results: Sequence[ResultInfo],
) -> str:
    """Return the command that makes most sense now."""
    name = shlex.quote(clean(trace))
    if not summary.roots:
        return "tscope record -- python train.py"
    if summary.status == "recording" or results:
        return f"tscope browse {name}"
    ready = [item.name for item in available if not item.lacks]
    return f"tscope analyze {name} --metric {ready[0]}" if ready else f"tscope browse {name}"
