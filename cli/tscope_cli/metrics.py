"""The metrics as text: what there is to compute, what each needs, and what a trace lacks for it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from tscope_cli import jsonfile
from tscope_cli.table import facts
from tscope_cli.terminal import out, paint

if TYPE_CHECKING:
    from tscope_format import TraceReader


@dataclass(frozen=True)
class Availability:
    """Whether a recorded model allows a metric: `lacks` is empty, or says what is missing and the remedy."""

    name: str
    summary: str
    root: str
    lacks: tuple[str, ...]


def show(*, as_json: bool) -> None:
    """Print every metric with what it needs and the options it takes."""
    from tscope.analyses import metrics

    entries = [
        {
            "name": metric.name,
            "summary": metric.summary,
            "needs": metric.needs,
            "options": [field.name for field in fields(metric.options)],
        }
        for metric in metrics()
    ]
    if as_json:
        jsonfile.dump({"metrics": entries})
        return
    for entry in entries:
        out(f"{paint(str(entry['name']), 'bold')}: {entry['summary']}")
        out(
            "\n".join(
                facts([("needs", str(entry["needs"])), ("options", ", ".join(map(str, entry["options"])))])
            )
        )


def availability(reader: TraceReader) -> tuple[Availability, ...]:
    """Return what each recorded model of a trace lacks for each metric; nothing without a model."""
    if not reader.roots:
        return ()
    from tscope.analyses import metrics
    from tscope.trace import Trace

    return tuple(
        Availability(
            metric.name,
            metric.summary,
            name,
            tuple(f"{need.name} ({need.remedy})" for need in metric.missing(Trace(reader, name))),
        )
        for name in reader.roots
        for metric in metrics()
    )
