"""Which steps are compared with which, and what that takes in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from tscope_format.errors import AnalysisError, MissingDataError, UsageError, clean

from tscope.analyses.kernel.cost import megabytes
from tscope.analyses.kernel.options import Options as KernelOptions
from tscope.analyses.kernel.setup import Examples, Setup, drawn, prepare

if TYPE_CHECKING:
    from tscope.analyses.gradients.options import Options
    from tscope.trace import Trace

_SINCE, _ROWS = 5, 12  # by default, beside row 0
_EXAMPLES, _LARGEST = 64, 640  # of each set, and so many gradients of them
# Gradients of few examples at once are mostly overhead; those of many fit in no cache.
_TOGETHER, _ROW_BYTES, _ALL_BYTES = 32, 32e6, 256e6
# The gradients of a row, what they are made of, and their difference to those of one t'.
_WORKING = 5


@dataclass(frozen=True, eq=False)
class Plan:
    """What is compared.

    Attributes:
        setup: The run with its examples.
        since: The rows t'.
        rows: All rows, increasing: those, and the later ones.
        names: The parameters that gradients are with respect to: those that training moves.
        layers: Of them, by layer.
        together: How many examples are taken at once.
        memory: Bytes that this takes.
    """

    setup: Setup
    since: list[int]
    rows: list[int]
    names: list[str]
    layers: dict[str, tuple[str, ...]]
    together: int
    memory: float


def plan_for(trace: Trace, options: Options) -> Plan:
    """Open a trace, and choose the rows and examples.

    Raises:
        UsageError: The options do not fit the trace.
        AnalysisError: Training moves no parameter of the model, or not even one example's gradients fit.
        MissingDataError: There are no training steps or examples.
    """
    if trace.rows < 2:
        raise MissingDataError(f"{clean(trace.path)} holds no training step; let the run go on")
    since, rows = _since(trace, options), _later(trace, options)
    rows = sorted({*since, *(row for row in rows if row >= since[0])})
    if rows == since[:1]:
        raise UsageError(
            f"no row that was chosen follows step {trace.steps[since[0]]}, the first to compare with; choose "
            "later ones with `--at`, or an earlier one with `--since`"
        )
    chosen = KernelOptions(
        at=",".join(str(int(trace.steps[row])) for row in rows),
        train=options.train,
        test=options.test,
        probe=options.probe,
        probe_output=options.probe_output,
        seed=options.seed,
        dtype=options.dtype,
    )
    setup = _fewer(prepare(trace, chosen), options)
    trained = {entry.name for entry in trace.parameters if entry.requires_grad}
    names = [name for name in setup.program.parameters if name in trained]
    if not names:
        raise AnalysisError(
            "training moves none of the parameters that the model uses: there is no gradient to compare"
        )
    layers = {layer: tuple(n for n in own if n in trained) for layer, own in setup.layers.items()}
    layers = {layer: own for layer, own in layers.items() if own}
    together, memory = _together(trace, setup, names, len(since), len(rows), options.max_memory_mb * 1e6)
    return Plan(setup, since, rows, names, layers, together, memory)


def _since(trace: Trace, options: Options) -> list[int]:
    """Return the rows t', increasing."""
    last = trace.rows - 1
    if options.since is not None:
        found = sorted({_row(trace, step) for step in options.since.split(",")})
        if found == [last]:
            raise UsageError(
                f"--since {options.since}: no row follows step {trace.steps[last]}, so there is nothing to "
                "compare its gradients with"
            )
        return found
    return sorted({0, *np.geomspace(1, last, _SINCE + 1).round().astype(int).tolist()[:-1]})


def _later(trace: Trace, options: Options) -> list[int]:
    last = trace.rows - 1
    if options.at is not None:
        return [_row(trace, step) for step in options.at.split(",")]
    if options.every is not None:
        return [*range(0, last, options.every), last]
    return [0, *np.geomspace(1, last, _ROWS).round().astype(int).tolist()]


def _row(trace: Trace, step: str) -> int:
    return trace.rows - 1 if step == "last" else trace.row(int(step))


def _together(
    trace: Trace, setup: Setup, names: list[str], since: int, rows: int, limit: float
) -> tuple[int, float]:
    """Return how many examples are taken at once, and the bytes that this takes."""
    size = {entry.name: entry.size for entry in trace.parameters}
    item = torch.empty(0, dtype=setup.dtype).element_size()
    states = float(rows * item * sum(size.values()))
    each = float((since + _WORKING) * item * setup.outputs * sum(size[name] for name in names))
    if states + each > limit:
        raise AnalysisError(
            f"gradients of {setup.outputs} outputs by {sum(size[n] for n in names):,} parameters at {since} "
            f"steps t' need {megabytes(each)} for one example, and the parameters of {rows} rows "
            f"{megabytes(states)}, of the {megabytes(limit)} allowed (`--max-memory MB`); take fewer: "
            "`--since 0`, `--at last`, `--probe-output 0`"
        )
    fit = min(_ROW_BYTES / (each / (since + _WORKING)), _ALL_BYTES / each)
    most = max(1, min(_TOGETHER, setup.train.count, int(fit)))
    together = min(most, int((limit - states) / each))
    return together, states + together * each


def _fewer(setup: Setup, options: Options) -> Setup:
    """Return the setup with as many examples as gradients are compared of, where no number was asked for."""
    most = max(1, min(_EXAMPLES, _LARGEST // setup.outputs))
    train, test = setup.train, setup.test
    if options.train is None and train.count > most:
        train = _some(train, most, setup.outputs, options.seed)
    if test is not None and options.test is None and test.count > most:
        test = _some(test, most, setup.outputs, options.seed)
    return replace(setup, train=train, test=test)


def _some(examples: Examples, count: int, outputs: int, seed: int) -> Examples:
    chosen = drawn("train", "training", examples.count, count, outputs, seed)
    labels = None if examples.labels is None else examples.labels[chosen]
    return Examples(examples.numbers[chosen], tuple(value[chosen] for value in examples.inputs), labels)
