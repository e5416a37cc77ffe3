"""Neural collapse of a recorded classifier along its run, from the trace to the result.

`docs/metrics/neural-collapse.md` says how to read it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tscope_format.errors import AnalysisError, MissingDataError, clean
from tscope_format.results import Array, Result

from tscope.analyses.collapse.classifier import Classifier, find_classifier
from tscope.analyses.collapse.measures import RTOL, Means, duality, simplex, variability
from tscope.analyses.effective.setup import held_out
from tscope.analyses.kernel.options import Options as KernelOptions
from tscope.analyses.kernel.setup import Examples, Setup, prepare
from tscope.analyses.kernel.states import KernelState, plain_states
from tscope.analyses.standing import standing
from tscope.program import evaluate
from tscope.replay.memory import examples_that_fit

if TYPE_CHECKING:
    from tscope.analyses.collapse.options import Options
    from tscope.analyses.metric import Watch
    from tscope.trace import Trace

_LEAST = 2  # examples of a class: one has no spread
_MORE = {
    "training": "record a run with more of it, or take more of the examples (`--train`)",
    "held-out": "give more with `--probe FILE.npz` (x, y)",
}
_SAME = 1e-3  # labels of one class differ by no more of their size; inferred ones hold rounding


def analyse(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric.

    Raises:
        MissingDataError: The trace lacks training examples, or their classes.
        AnalysisError: The model has no last linear layer with an output for each class, labels are not
            classes, or one of them has too few examples.
        UsageError: The options do not fit the trace.
    """
    began = time.monotonic()
    setup = _opened(trace, options)
    classifier = find_classifier(setup.program, setup.functional, setup.outputs)
    remarks: list[str] = []
    sets = _sets(setup, options, remarks)
    rows: list[dict[str, float]] = []
    for state in plain_states(trace, setup.rows, setup.dtype):
        found = _row(classifier, state, sets, setup, options)
        if found is None:
            break
        rows.append(found)
        watch.progress(len(rows), len(setup.rows))
    if not rows:
        raise AnalysisError(
            "the run or its features are NaN or infinite at step 0; there is nothing to measure"
        )
    return _result(trace, setup, classifier, sets, rows, remarks, time.monotonic() - began)


def _opened(trace: Trace, options: Options) -> Setup:
    probe = held_out(trace, options.probe)
    count = int(trace.reader.arrays()["examples/hash"].shape[0])
    chosen = KernelOptions(
        at=options.at,
        every=options.every,
        train=options.train or count,
        test=options.test or (None if probe is None else probe.examples),
        probe=options.probe,
        seed=options.seed,
        loss=options.loss,
        labels=options.labels,
        dtype=options.dtype,
    )
    return prepare(trace, chosen)


def _sets(setup: Setup, options: Options, remarks: list[str]) -> dict[str, tuple[Examples, Tensor]]:
    """Return the sets of examples with their classes (example,).

    Held-out examples that cannot be measured are left out with a remark, unless they were asked for.

    Raises:
        MissingDataError: Classes of the training examples are not known.
        AnalysisError: Labels are not classes, or a class has too few examples.
    """
    why = "; ".join(setup.unknown) or "the trace does not tell them"
    if setup.train.labels is None:
        raise MissingDataError(
            f"neural collapse needs the classes of the training examples: {why}; give them with `--labels "
            "FILE.npz` (x, y)"
        )
    found = {"train": (setup.train, _classes(setup.train.labels, "training"))}
    if setup.test is None:
        remarks.append("no held-out examples: give some with `--probe FILE.npz` (x, y)")
        return found
    try:
        if setup.test.labels is None:
            raise MissingDataError(why)
        found["test"] = (setup.test, _classes(setup.test.labels, "held-out"))
    except (AnalysisError, MissingDataError) as error:
        if options.probe is not None or options.test is not None:
            raise
        remarks.append(f"no held-out examples: {error}")
    return found


def _classes(labels: Tensor, what: str) -> Tensor:
    """Return the class of each example from its label's largest entry.

    Raises:
        AnalysisError: Labels are not those of classes, or a class has fewer than two examples.
    """
    classes = labels.argmax(1)
    C = labels.shape[1]
    counts = torch.bincount(classes, minlength=C)
    sums = torch.zeros(C, C, dtype=labels.dtype).index_add_(0, classes, labels)
    off = (labels - (sums / counts[:, None])[classes]).abs().max()
    if float(off) > _SAME * float(labels.abs().max()):
        raise AnalysisError(
            f"the labels of the {what} examples are not classes: some with the same largest entry differ by "
            f"{float(off):.2g}; neural collapse is of classifiers"
        )
    few = torch.nonzero(counts < _LEAST).flatten().tolist()
    if few:
        more = f" (and {len(few) - 1} more classes)" if len(few) > 1 else ""
        raise AnalysisError(
            f"class {few[0]} has {int(counts[few[0]])} {what} example(s){more}; neural collapse needs "
            f"two of each of the model's classes at least, for their spread; {_MORE[what]}"
        )
    return classes


def _row(
    classifier: Classifier,
    state: KernelState,
    sets: dict[str, tuple[Examples, Tensor]],
    setup: Setup,
    options: Options,
) -> dict[str, float] | None:
    """Return the numbers of one row; None where features are not finite."""
    found: dict[str, float] = {}
    W = classifier.matrix(state.theta)
    centres: Means | None = None
    for name, (examples, classes) in sets.items():
        h, f = classifier.evaluate(
            state.theta, state.buffers, examples.inputs, _chunk(setup, state, examples, options)
        )
        h = h.double()
        if not (bool(torch.isfinite(h).all()) and bool(torch.isfinite(f).all())):
            return None
        means = Means.of(h, classes, setup.outputs)
        centres = centres or means
        nearest, predicted = centres.nearest(h), f.argmax(1)
        numbers = dict(zip(_NC1, variability(h, means), strict=True))
        numbers |= dict(zip(_NC2, simplex(means), strict=True))
        numbers["nc3"] = duality(W, means)
        numbers["nc4"] = float((predicted != nearest).double().mean())
        numbers["accuracy"] = float((predicted == classes).double().mean())
        numbers["accuracy_nearest"] = float((nearest == classes).double().mean())
        found |= {f"{kind}_{name}": float(value) for kind, value in numbers.items()}
    return found


_NC1 = ("nc1", "within", "between", "rank")
_NC2 = ("nc2_norm", "nc2_cosine_sd", "nc2_angle")


def _chunk(setup: Setup, state: KernelState, examples: Examples, options: Options) -> int:
    """Return how many examples go through the model at once."""

    def run(count: int) -> Tensor:
        inputs = [value[:count] for value in examples.inputs]
        return evaluate(setup.program, setup.functional, state.theta, state.buffers, inputs)

    return examples_that_fit(run, examples.count, options.max_memory_mb * 1e6)


def _result(
    trace: Trace,
    setup: Setup,
    classifier: Classifier,
    sets: dict[str, tuple[Examples, Tensor]],
    rows: list[dict[str, float]],
    remarks: list[str],
    took: float,
) -> Result:
    """Name what was found."""
    steps = trace.steps[setup.rows[: len(rows)]]
    arrays = {"step": Array(("step",), steps)}
    for kind in rows[0]:
        values = np.array([row[kind] for row in rows])
        whole = kind.startswith("rank_")
        arrays[kind] = Array(("step",), values.astype(np.int64) if whole else values)
    for name, (examples, classes) in sets.items():
        arrays[name] = Array((name,), examples.numbers)
        arrays[f"class_{name}"] = Array((name,), classes.numpy())
    stopped = int(trace.steps[setup.rows[len(rows)]]) if len(rows) < len(setup.rows) else None
    scalars: dict[str, float | int | str | bool | None] = {
        **{kind: float(value) for kind, value in rows[-1].items() if not kind.startswith("rank_")},
        "layer": clean(classifier.layer),
        "classes": setup.outputs,
        "features": classifier.width,
        "examples_train": setup.train.count,
        "examples_test": sets["test"][0].count if "test" in sets else 0,
        "steps": int(steps[-1]),
        "probe": clean(setup.probe.name) if setup.probe is not None and "test" in sets else None,
        "stopped": stopped,
    }
    provenance = {
        "layer": clean(classifier.layer),
        "pinv_rtol": RTOL,
        "dtype": str(setup.dtype).removeprefix("torch."),
        "seconds": took,
        "torch": torch.__version__,
    }
    return Result(
        "neural-collapse", scalars, arrays, provenance, _notes(trace, setup, sets, remarks, stopped)
    )


def _notes(
    trace: Trace,
    setup: Setup,
    sets: dict[str, tuple[Examples, Tensor]],
    remarks: list[str],
    stopped: int | None,
) -> tuple[str, ...]:
    found = list(remarks)
    for name, what in (("train", "training"), ("test", "held-out")):
        if name in sets:
            counts = torch.bincount(sets[name][1])
            if int(counts.max()) > 2 * int(counts.min()):
                found.append(
                    f"classes of the {what} examples have {int(counts.min())} to {int(counts.max())} each; "
                    "every class counts the same"
                )
    if setup.probe is not None and setup.probe.in_sample and "test" in sets:
        found.append(f"probe set {clean(setup.probe.name)} is in-sample: its examples were trained on")
    if trace.reader.buffers_move:
        found.append("features are those of the model in evaluation mode, with the buffers of each row")
    if stopped is not None:
        found.append(f"the run or its features are not finite at step {stopped}; figures end before")
    return (*found, *standing(trace))
