"""How well training and held-out examples are predicted along a recorded run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tscope_format.errors import AnalysisError, MissingDataError, UsageError, clean

from tscope.analyses.decision import decision
from tscope.analyses.events.losses import WINDOW
from tscope.analyses.events.onsets import Fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.analyses.events.event import Values
    from tscope.analyses.events.options import Options
    from tscope.trace import Trace

    Numbers = NDArray[np.floating[Any]]

_BYTES = 64 << 20  # of outputs that are read at once
_EXAMPLES = 1024  # at most, in the window of a batch accuracy


@dataclass(frozen=True, eq=False)
class Score:
    """How predictions are scored against labels.

    Attributes:
        basis: "accuracy", or "variance" where the labels are those of a regression.
        target: The labels (example, …).
        threshold: The border between the classes of a single output.
    """

    basis: str
    target: NDArray[Any]
    threshold: float | None

    @classmethod
    def of(cls, target: NDArray[Any], outputs: int, threshold: float | None) -> Score | None:
        """Return the score that the labels allow; None where they do not fit the outputs, or do not vary."""
        chosen = decision(target, outputs, threshold)
        if chosen is not None and chosen.labels is not None:
            return cls("accuracy", chosen.labels, chosen.threshold)
        flat = target.reshape(len(target), -1).astype(np.float64)
        return cls("variance", flat, None) if flat.shape[1] == outputs and flat.var(0).sum() > 0 else None

    def each(self, outputs: Numbers, numbers: NDArray[np.int64] | None = None) -> Values:
        """Return 1 or 0 for each example told right or wrong, or its squared error over the labels' variance.

        Args:
            outputs: (…, example, output)
            numbers: Which examples they are; None: all, in their order.
        """
        target = self.target if numbers is None else self.target[numbers]
        if self.basis == "accuracy":
            told = outputs.argmax(-1) if self.threshold is None else outputs[..., 0] > self.threshold
            return np.asarray(told == target, dtype=np.float64)
        off = np.square(outputs.astype(np.float64) - target).sum(-1)
        return np.asarray(off / self.target.var(0).sum())

    def value(self, mean: Values) -> Values:
        """Return the value of a fit from means of `each`."""
        return mean if self.basis == "accuracy" else np.maximum(0.0, 1 - mean)


def of_probe(trace: Trace, name: str, threshold: float | None) -> Fit | None:
    """Return the fit of a recorded probe set; None where its labels or outputs were not recorded.

    Rows whose outputs are not finite are left out.
    """
    path, present = f"probe/{name}", trace.reader.arrays()
    target = trace.probes[name].target
    kind = trace.probes[name].attributes.get("functional", "full")
    if target is None or kind != "full" or not {f"{path}/output", f"{path}/probe_step"} <= set(present):
        return None
    rows, examples, outputs = present[f"{path}/output"].shape
    score = Score.of(np.asarray(target), outputs, threshold)
    if score is None or rows < 2:
        return None
    block = max(1, _BYTES // max(1, 8 * examples * outputs))
    values, finite = np.empty(rows), np.empty(rows, dtype=bool)
    for start in range(0, rows, block):
        part = trace.reader.read(f"{path}/output", start, min(start + block, rows))
        finite[start : start + block] = np.isfinite(part).all((1, 2))
        with np.errstate(over="ignore", invalid="ignore"):
            values[start : start + block] = score.each(part).mean(-1)
    step = trace.reader.read(f"{path}/probe_step").astype(np.int64)
    finite &= np.isfinite(values)
    return Fit(step[finite], score.value(values[finite]), examples, score.basis, f"probe set {clean(name)}")


def of_batches(trace: Trace, options: Options) -> Fit:
    """Return the fit of the training examples from the outputs of the batches, and labels inferred or given.

    A value is the mean over a row and so many rows before it that they hold min(n, 1024) examples: outputs of
    parameters before their steps, in training mode.

    Raises:
        MissingDataError: The outputs of the batches were not recorded, or hardly.
        AnalysisError: The labels cannot be told.
        UsageError: The labels that were given do not fit.
    """
    from tscope.optimizers import infer_loss, read_labels

    loss = infer_loss(
        trace,
        kind=None if options.loss == "auto" else options.loss,
        labels=None if options.labels is None else read_labels(trace, options.labels),
    )
    labels = loss.labels.numpy()
    visited = np.isfinite(labels).all(1)
    score = Score.of(labels[visited], labels.shape[1], 0.0 if loss.kind == "bce" else options.threshold)
    if score is None:
        raise AnalysisError("the labels of the training examples do not vary")
    places = np.cumsum(visited) - 1
    total, count = np.zeros(trace.rows), np.zeros(trace.rows)
    shape = trace.reader.arrays()["batch/output"].shape
    block = max(1, _BYTES // max(1, 8 * shape[1] * shape[2]))
    for start in range(1, trace.rows, block):
        stop = min(start + block, trace.rows)
        example, output = (trace.reader.read(f"batch/{name}", start, stop) for name in ("example", "output"))
        known = (example >= 0) & np.isfinite(output).all(-1)
        known[known] = visited[example[known]]
        with np.errstate(over="ignore", invalid="ignore"):
            each = score.each(output[known], places[example[known]])
        row = np.nonzero(known)[0]
        total[start:stop] = np.bincount(row, each, minlength=stop - start)
        count[start:stop] = known.sum(1)
    rows = np.flatnonzero(count > 0)
    if rows.size < 2:
        raise MissingDataError("outputs of fewer than two batches were recorded")
    examples = min(int(visited.sum()), _EXAMPLES)
    window = min(len(rows), max(1, -(-examples // max(1, int(np.median(count[rows]))))))
    sums = [np.concatenate([[0.0], np.cumsum(values[rows])]) for values in (total, count)]
    right, seen = (values[window:] - values[:-window] for values in sums)
    return Fit(
        trace.steps[rows[window - 1 :]],
        score.value(right / seen),
        examples,
        score.basis,
        "outputs of the batches",
        window,
    )


def of_loss(steps: NDArray[np.int64], loss: Values) -> Fit | None:
    """Return 1 − the training loss over its level at the start, the median of its first 24 rows.

    None of a loss that is not positive, or of fewer rows.
    """
    if len(loss) < 2 * WINDOW or loss.min() <= 0:
        return None
    level = float(np.median(loss[:WINDOW]))
    return Fit(steps, np.maximum(0.0, 1 - loss / level), 1, "loss", "the training loss")


def training(trace: Trace, options: Options) -> tuple[Fit | None, str]:
    """Return the fit of the training examples, and why it is not known.

    Of an in-sample probe set with labels, else of the batches' outputs.

    Raises:
        UsageError: Labels or a loss were given that do not fit.
        AnalysisError: The same.
        MissingDataError: The same.
    """
    asked = options.labels is not None or options.loss != "auto"
    if not asked:
        for name, probe in trace.probes.items():
            found = of_probe(trace, name, options.threshold) if probe.in_sample else None
            if found is not None and len(found.value) > 1:
                return found, ""
    if trace.kind == "trees":
        return None, "an ensemble of trees has no outputs of batches"
    try:
        return of_batches(trace, options), ""
    except (AnalysisError, MissingDataError) as error:
        if asked:
            raise
        return None, clean(error)


def held_out(trace: Trace, options: Options) -> Fit | None:
    """Return the fit of held-out examples: of the probe set asked for, or the first not in-sample.

    Raises:
        UsageError: There is no such probe set, or its labels or outputs were not recorded.
    """
    if options.probe is None:
        names = [name for name, probe in trace.probes.items() if not probe.in_sample]
        found = (of_probe(trace, name, options.threshold) for name in names)
        return next((fit for fit in found if fit is not None and len(fit.value) > 1), None)
    if options.probe not in trace.probes:
        there = ", ".join(clean(name) for name in trace.probes) or "none"
        raise UsageError(f"--probe {clean(options.probe)}: no such probe set was recorded; there is {there}")
    fit = of_probe(trace, options.probe, options.threshold)
    if fit is None:
        raise UsageError(
            f"--probe {clean(options.probe)}: its labels or its full outputs were not recorded, so it is not "
            "known how well it is predicted"
        )
    return fit
