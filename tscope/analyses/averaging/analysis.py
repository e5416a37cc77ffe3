"""Weight averaging, from the traces to the result.

`docs/metrics/weight-averaging.md` says how to read it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tscope_format.errors import clean
from tscope_format.results import Result

from tscope.analyses.averaging.along import along
from tscope.analyses.averaging.between import between
from tscope.analyses.averaging.members import read_members
from tscope.analyses.averaging.scores import score
from tscope.analyses.averaging.stage import Stage, prepare
from tscope.analyses.standing import standing

if TYPE_CHECKING:
    from tscope.analyses.averaging.options import Options
    from tscope.analyses.metric import Watch
    from tscope.trace import Trace


def analyse(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric.

    Raises:
        UsageError: The options do not fit the traces, or these are of different models.
        MissingDataError: A trace lacks what an average needs.
        AnalysisError: A model is not finite, its loss cannot be told, or its units cannot be matched.
    """
    members = read_members(trace, options)
    others = list({id(member.trace): member.trace for member in members[1:]}.values())
    stage = prepare(trace, options, [other for other in others if other is not trace])
    if members:
        form = "between two" if len(members) == 2 else "among several"
        watch.say(f"averages {form}: " + ", ".join(member.name for member in members))
        found = between(stage, members, options, watch)
    else:
        form = "along a run"
        found = along(stage, trace, options, watch)
    scalars = {
        "form": form,
        "loss": stage.kind,
        **({} if stage.positions is None else {"positions": stage.positions.count}),
        "examples_train": stage.splits["train"].count,
        "examples_test": stage.splits["test"].count if "test" in stage.splits else 0,
        **found.scalars,
    }
    provenance = {
        "dtype": str(stage.dtype).removeprefix("torch."),
        "probe": None if stage.probe is None else clean(stage.probe.name),
        "batch_of_recalibration": None if stage.recalibration is None else stage.batch,
        **found.provenance,
    }
    notes = (*stage.notes, *_notes(stage), *found.notes, *standing(trace))
    return Result("weight-averaging", scalars, found.arrays, provenance, notes)


def _notes(stage: Stage) -> list[str]:
    found = []
    if stage.recalibration is not None:
        found.append(
            f"BatchNorm's statistics of every model, the trained ones too, are those of the "
            f"{stage.splits['train'].count} training examples in batches of {stage.batch} "
            "(`--no-recalibrate`: averages of the recorded ones)"
        )
    if stage.probe is not None and stage.probe.in_sample:
        found.append(f"probe set {clean(stage.probe.name)} is in-sample: its examples were trained on")
    known = [examples.labels for examples in stage.splits.values() if examples.labels is not None]
    if stage.positions is not None:
        ignored = sum(int((labels < 0).sum()) for labels in known)
        found.append(
            f"the loss is a cross-entropy at each of {stage.positions.count} positions; figures are means "
            f"over positions, without the {ignored} of {sum(labels.numel() for labels in known)} that do not "
            "count"
        )
    # Of the labels themselves, for the loss alone: are they classes?
    elif all(score(stage.kind, labels, labels, stage.threshold).accuracy is None for labels in known):
        found.append("the labels are values, not classes: there is no accuracy")
    return found
