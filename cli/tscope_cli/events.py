"""How the metric `events` is shown: a table, the curves they were found on, a short list for `info`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tscope_format import Result, clean

from tscope_cli.numerals import percent, plural
from tscope_cli.table import Column, render
from tscope_cli.view import Curve, Panel, View

if TYPE_CHECKING:
    from tscope_format import ResultInfo

_MOST = 12  # in the table
_SHORT = 6  # in `info`
# Results that the search reads, where there are some, and one that it reads where the run does not tell of
# held-out examples.
_READ, _INSTEAD = ("effective-params", "kernel"), "telescoping"


def _floored(confidence: float) -> float:
    """Return a confidence in whole thousandths, never rounded up: what is not certain is not 100 %."""
    return math.floor(confidence * 1000) / 1000


def tables(result: Result) -> list[tuple[str, list[str]]]:
    """Return the title and the lines of the table of events; nothing for another metric, or without any."""
    found = _listed(result)
    if result.metric != "events" or not found:
        return []
    columns = (Column("step"), Column("event", number=False), Column("confidence"), Column("between"))
    rows = [
        [
            f"{int(event['step']):,}",
            event["kind"],
            percent(_floored(float(event["confidence"]))),
            f"{int(event['low']):,}–{int(event['high']):,}",
            event["text"],
        ]
        for event in found[:_MOST]
    ]
    rest = [f"and {len(found) - _MOST} more (--json)"] if len(found) > _MOST else []
    return [("what happened", [*render([*columns, Column("what", number=False)], rows), *rest])]


def short(path: Path, results: Sequence[ResultInfo], steps: dict[str, int]) -> list[str]:
    """Return the events of the newest result of each root, one a line; none where none was saved.

    Args:
        path: The trace.
        results: What is saved in it, oldest first.
        steps: The last step of each root.
    """
    from tscope_format import TscopeError, load_result

    newest = {info.root: info.id for info in results if info.metric == "events" and info.root in steps}
    lines = []
    for root, name in newest.items():
        try:
            result = load_result(path, "events", name, arrays=())
        except TscopeError as error:
            lines.append(f"the saved result cannot be read: {clean(error)}")
            continue
        of = "" if len(steps) == 1 else f"{clean(root)}: "
        found = _listed(result)
        lines += [f"{of}step {int(event['step']):,}: {clean(event['text'])}" for event in found[:_SHORT]]
        if len(found) > _SHORT:
            lines.append(f"{of}and {plural(len(found) - _SHORT, 'more event')}")
        elif not found:
            lines.append(f"{of}nothing stands out")
        seen = result.scalars.get("steps")
        if isinstance(seen, int) and seen < steps[root]:
            lines.append(f"{of}the run went on after step {seen:,}, as far as was looked")
        lines += [f"{of}{told}" for told in _since(result, results, root)]
    return lines


def _since(result: Result, results: Sequence[ResultInfo], root: str) -> list[str]:
    """Return which results that the search reads were saved after it, if any."""
    used = result.provenance.get("results")
    known = used if isinstance(used, dict) else {}
    missing = result.provenance.get("missing")
    lacking = [item.get("event") for item in missing or () if isinstance(item, dict)]
    read = (*_READ, _INSTEAD) if "grokking" in lacking else _READ
    newest = {info.metric: info.id for info in results if info.root == root and info.metric in read}
    since = [metric for metric in read if metric in newest and newest[metric] != known.get(metric)]
    told = f"{' and '.join(since)} saved since: `--metric events` looks again"
    return [told] if since else []


def reading(result: Result) -> tuple[str, ...]:
    """Return what was found, in words, and what each kind of event is."""
    found = _listed(result)
    if not found:
        return ("Nothing stands out in what was looked at.",)
    delay = result.scalars.get("grokking_delay")
    told = []
    if delay is not None:
        fitted = result.scalars.get("interpolation")
        told = [
            f"Training examples are fitted at step {fitted:,}, and held-out ones follow {delay:,} steps "
            "later: grokking."
        ]
    known = result.provenance.get("definitions")
    definitions = known if isinstance(known, dict) else {}
    kinds = dict.fromkeys(event["kind"] for event in found if event["kind"] in definitions)
    return (*told, *(f"{kind}: {definitions[kind]}" for kind in kinds))


def _listed(result: Result) -> list[dict[str, Any]]:
    """Return the events of a result; of a damaged one, those that can be shown."""
    found = result.provenance.get("events")
    wanted = {"step", "kind", "confidence", "low", "high", "text"}
    return [e for e in found if isinstance(e, dict) and wanted <= set(e)] if isinstance(found, list) else []


VIEW = View(
    coordinate="step",
    columns=(
        Curve("fit_train", "fit of training ex.", share=True),
        Curve("fit_test", "fit of held-out ex.", share=True),
        Curve("loss", "loss"),
    ),
    panels=(
        Panel(
            "how well examples are predicted", (Curve("fit_train", "training"), Curve("fit_test", "held-out"))
        ),
        Panel("training loss", (Curve("loss", "loss"),), log=True),
    ),
    reading=reading,
)
