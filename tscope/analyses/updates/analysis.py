"""What the optimizer's steps did to the predictions of a probe set, from the trace to the result.

Forward, each step is taken apart into terms (`terms`), each projected on the probe set layer by layer;
backward, the part that gradients made is traced to the training examples (`influence`).
`docs/metrics/updates.md` says how to read it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tscope_format.errors import AnalysisError, UsageError, clean
from tscope_format.results import Array, Result

from tscope.analyses.updates.checks import Checks
from tscope.analyses.updates.influence import Influence, rows_that_fit, trace_back
from tscope.analyses.updates.notes import notes
from tscope.analyses.updates.run import Run, open_run, visited
from tscope.analyses.updates.series import Series
from tscope.analyses.updates.terms import TERMS
from tscope.analyses.updates.walk import Walk

if TYPE_CHECKING:
    from torch import Tensor

    from tscope.analyses.metric import Watch
    from tscope.analyses.updates.options import Options
    from tscope.trace import Trace

_TRACED = 8


def analyse(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric.

    Raises:
        MissingDataError: The trace lacks what the steps are replayed from.
        AnalysisError: The run cannot be followed, or a check fails.
        UsageError: The options do not fit the trace.
    """
    began = time.monotonic()
    run = open_run(trace, options)
    traced, untraced = _traced(run, options), None
    try:
        pieces = list(torch.split(traced, rows_that_fit(run))) if len(traced) else []
    except AnalysisError as error:
        # Nobody asked for them by name: the terms are worth more.
        if options.influence is not None:
            raise
        pieces, untraced = [], f"no influences: {error}"
    if len(pieces) > 1:
        watch.say(
            f"{len(traced)} probe examples are traced in {len(pieces)} walks back: memory is for "
            f"{len(pieces[0])} at a time (`--max-memory MB`)"
        )
    work = _Work(watch, run.last, len(pieces))
    walk, checks = Walk(run, work.forward), Checks(run)
    series = Series(tuple(run.probe.layers), full=options.full)
    last = 0
    for interval in walk:
        if not interval.finite:
            walk.stopped = interval.last.step
            break
        checks.add(interval)
        series.add(interval)
        last = interval.last.row
    if not series.steps:
        raise AnalysisError(
            f"the run, or what its first step does to the predictions, is NaN or infinite at step "
            f"{walk.stopped}; there is no step before it to look at"
        )
    train = torch.unique(torch.cat(list(visited(run, last))))
    found = [trace_back(run, rows, train, options.top, last, work.backward) for rows in pieces]
    arrays = series.arrays() | _influences(found)
    off = _off(found, series)
    remark = None if off is None else checks.influence(off)
    scalars: dict[str, float | int | str | bool | None] = {
        "probe": clean(run.held.name),
        "from_step": int(trace.steps[run.first]),
        "steps": series.steps[-1],
        **series.scalars(),
        "adapter_residual": checks.function.value,
        "adapter_rounding": checks.rounding.value,
        "adapter_state": walk.state,
        "determinism_residual": walk.output,
        "influence_check": off,
        "stopped": walk.stopped,
    }
    provenance: dict[str, Any] = {
        "probe": {"examples": run.held.examples, "in_sample": run.held.in_sample, **run.held.attributes},
        "terms": list(TERMS),
        "layers": [clean(name) for name in run.probe.layers],
        "optimizer": walk.optimizer,
        "functional": run.probe.evaluation.functional.kind,
        "functional_note": run.note,
        "dtype": str(run.dtype).removeprefix("torch."),
        "every": run.every,
        "seconds": time.monotonic() - began,
        "torch": torch.__version__,
    }
    said = notes(run, walk, scalars, [text for text in (remark, untraced) if text is not None])
    return Result("updates", scalars, arrays, provenance, said)


class _Work:
    """Tells how far the walks are."""

    def __init__(self, watch: Watch, rows: int, walks: int) -> None:
        self._watch = watch
        self._total = rows * (1 + walks)
        self._rows = rows
        self._done = 0

    def forward(self, done: int, total: int) -> None:
        """Say how far the walk forward is."""
        self._watch.progress(int(self._rows * done / total), self._total)

    def backward(self) -> None:
        """Say that a walk back took one more step."""
        self._done += 1
        self._watch.progress(min(self._rows + self._done, self._total), self._total)


def _traced(run: Run, options: Options) -> Tensor:
    """Return the probe examples to trace.

    Raises:
        UsageError: There is no such example.
    """
    total = run.probe.examples
    if options.influence == "none":
        return torch.empty(0, dtype=torch.int64)
    if options.influence is None or options.influence == "all":
        return torch.arange(total if options.influence else min(_TRACED, total))
    chosen = sorted({int(number) for number in options.influence.split(",")})
    if chosen[-1] >= total:
        raise UsageError(
            f"--influence {options.influence}: the probe set {clean(run.held.name)} has the examples 0 to "
            f"{total - 1}"
        )
    return torch.tensor(chosen)


def _influences(found: list[Influence]) -> dict[str, Array]:
    """Name what was traced as the result's arrays."""
    if not found:
        return {}
    visits = list(zip(*(part.visits for part in found), strict=True))
    example = torch.stack([torch.cat([part.example for part in row]) for row in visits])
    influence = torch.stack([torch.cat([part.influence for part in row]) for row in visits])
    direct, later = (torch.cat([getattr(part, kind) for part in found]) for kind in ("direct", "later"))
    dims = ("traced", "output", "train")
    return {
        "traced": Array(("traced",), torch.cat([part.rows for part in found]).numpy()),
        "train": Array(("train",), found[0].train.numpy()),
        "influence": Array(dims, (direct + later).numpy()),
        "influence_memory": Array(dims, later.numpy()),
        "top_example": Array(("step", "traced", "rank"), example.numpy()),
        "top_influence": Array(("step", "traced", "rank", "output"), influence.numpy()),
    }


def _off(found: list[Influence], series: Series) -> float | None:
    """Return by how much the influences do not add up to what gradients did, relative to the latter.

    The two were computed in different ways: terms step by step forward, influences by adjoints back.
    """
    if not found:
        return None
    rows = np.concatenate([part.rows.numpy() for part in found])
    sums = np.concatenate([(part.direct + part.later).sum(2).numpy() for part in found])
    whole = float(series.moved[rows].max())
    off = float(np.abs(sums - series.learned[rows]).max())
    return off / whole if whole > 0 else off
