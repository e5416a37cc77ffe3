"""The metrics there are, and the one way to run them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tscope_format.errors import TscopeError, UsageError, clean
from tscope_format.results import save_result

import tscope
from tscope.analyses import (
    averaging,
    boosting,
    collapse,
    effective,
    events,
    gradients,
    kernel,
    layerwise,
    regime,
    telescoping,
    updates,
)
from tscope.analyses.metric import Metric, Progress, Watch
from tscope.trace import Trace
from tscope.trace import open as open_trace

if TYPE_CHECKING:
    from tscope_format.results import Result

_METRICS = {
    metric.name: metric
    for metric in (
        telescoping.METRIC,
        effective.METRIC,
        kernel.METRIC,
        updates.METRIC,
        boosting.METRIC,
        layerwise.METRIC,
        gradients.METRIC,
        collapse.METRIC,
        averaging.METRIC,
        events.METRIC,
        regime.METRIC,
    )
}


def metrics() -> tuple[Metric, ...]:
    """Return every metric."""
    return tuple(_METRICS.values())


def metric(name: str) -> Metric:
    """Return the metric called `name`.

    Raises:
        UsageError: There is none; the message lists those there are.
    """
    if name not in _METRICS:
        raise UsageError(f"unknown metric {clean(name)!r}; there is {', '.join(sorted(_METRICS))}")
    return _METRICS[name]


def analyze(
    trace: Trace | str | Path,
    name: str,
    *,
    root: str | None = None,
    save: bool = True,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> Result:
    """Run one metric on a trace.

    Args:
        trace: An open trace, or its path.
        name: The metric.
        root: Which of the trace's models, when it holds several.
        save: Keep the result in the trace. Where that fails (a read-only trace), a note of the result says
            so.
        progress: Called with (rows done, rows in all).
        say: Called with a line of text: what a long analysis will cost, and coarse answers on the way.
        **options: The metric's own options.

    Returns:
        The result; its provenance says from which trace, with which options, and what was recorded or
        replayed.

    Raises:
        UsageError: Unknown metric, unknown option, or a value out of range.
        MissingDataError: The trace lacks what the metric needs.
        TraceError: The trace cannot be read.
    """
    chosen = metric(name)
    opened, settings = _ready(chosen, trace, root, options)
    silent = Watch()
    watch = Watch(progress or silent.progress, say or silent.say)
    run = chosen.trees if opened.kind == "trees" and chosen.trees is not None else chosen.run
    result = run(opened, settings, watch)
    provenance = {
        "trace": opened.fingerprint,
        "path": opened.path.name,
        "root": opened.name,
        "version": tscope.__version__,
        "options": {key: _plain(value) for key, value in asdict(settings).items()},
        **result.provenance,
    }
    result = replace(result, provenance=provenance)
    return _saved(opened, result) if save else result


def plan(trace: Trace | str | Path, name: str, *, root: str | None = None, **options: Any) -> str | None:
    """Say how `analyze` would compute a metric with these arguments, and about what it costs.

    Returns:
        One line; None for a metric that is cheap enough to be simply run.

    Raises:
        TscopeError: As from `analyze`.
    """
    chosen = metric(name)
    if chosen.plan is None:
        return None
    opened, settings = _ready(chosen, trace, root, options)
    return None if opened.kind == "trees" else chosen.plan(opened, settings)


def _ready(
    chosen: Metric, trace: Trace | str | Path, root: str | None, options: dict[str, Any]
) -> tuple[Trace, Any]:
    """Return the open trace and the metric's options, both checked."""
    known = {field.name for field in fields(chosen.options)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise UsageError(
            f"{chosen.name} has no option {', '.join(clean(option) for option in unknown)}; it has "
            f"{', '.join(sorted(known))}"
        )
    settings = chosen.options(**options)
    opened = trace if isinstance(trace, Trace) else open_trace(trace)
    if root is not None:
        opened = opened.root(root)
    chosen.check(opened, settings)
    return opened, settings


def _saved(trace: Trace, result: Result) -> Result:
    try:
        save_result(trace.path, result, trace.name)
    except (OSError, TscopeError) as error:
        # The figures are worth more than the place they are kept in: a trace on a read-only disk can be
        # analysed.
        note = f"not saved in the trace: {clean(error)}"
        return replace(result, notes=(*result.notes, note))
    return result


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)
