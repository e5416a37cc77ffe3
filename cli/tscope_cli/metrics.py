"""The metrics as text: what there is to compute, what each needs, and what a trace lacks for it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from tscope_cli import jsonfile
from tscope_cli.table import facts
from tscope_cli.terminal import out, paint

if TYPE_CHECKING:
    from tscope.trace import Trace


@dataclass(frozen=True)
class Availability:
    """Whether a trace allows a metric: `lacks` is empty, or says what is missing and the remedy."""

    name: str
    summary: str
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


def availability(trace: Trace) -> tuple[Availability, ...]:
    """Return, for every metric, what the trace lacks for it."""
    from tscope.analyses import metrics

    return tuple(
        Availability(
            metric.name,
            metric.summary,
            tuple(f"{need.name} ({need.remedy})" for need in metric.missing(trace)),
        )
        for metric in metrics()
    )
