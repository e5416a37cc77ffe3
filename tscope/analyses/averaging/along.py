"""Averages along one run: tails, SWA, EMA and LAWA, the best of each family found by a search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tscope_format.errors import MissingDataError, clean
from tscope_format.results import Array

from tscope.analyses.averaging.between import Found, Scalars
from tscope.analyses.averaging.members import Member, check_finite
from tscope.analyses.averaging.scores import Score
from tscope.averaging import Schedule, State, combine
from tscope.averaging.schedules import FAMILIES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.analyses.averaging.options import Options
    from tscope.analyses.averaging.stage import Stage
    from tscope.analyses.metric import Watch
    from tscope.trace import Trace

    Places = NDArray[np.int64]

_ROWS = 16  # of the curves
_CHECKPOINTS = 20  # in a run without epochs


@dataclass(frozen=True, eq=False)
class _Halves:
    """Which examples averages are chosen on, and on which the chosen ones are reported.

    Attributes:
        parts: The examples' places by the name of the part: train, select, test.
        source: The set that each part is of.
        chosen_on: The part that averages are chosen on.
    """

    parts: dict[str, Places]
    source: dict[str, str]
    chosen_on: str

    def scores(self, stage: Stage, state: State) -> dict[str, Score]:
        """Return the scores of a model on each part."""
        outputs = stage.outputs(stage.settled(state))
        found = {}
        for part, places in self.parts.items():
            labels = stage.splits[self.source[part]].labels
            if labels is not None:
                found[part] = stage.scored(outputs[self.source[part]][places], labels[places])
        return found


def along(stage: Stage, trace: Trace, options: Options, watch: Watch) -> Found:
    """Search averages along a run.

    Raises:
        MissingDataError: The run has no step.
        AnalysisError: Its last state is not finite.
    """
    last = trace.rows - 1
    if last < 1:
        raise MissingDataError(f"{clean(trace.path)} holds no training step; let the run go on")
    final = Member(trace, last)
    state = final.state(stage.dtype)
    check_finite(final, state)
    every, notes = _every(trace, options)
    halves = _halves(stage, options, notes)
    schedules = _candidates(last, every, options)
    watch.say(f"{len(schedules)} averages along {last} rows, checkpoints every {every} rows")
    memory = options.max_memory_mb * 1e6
    weights = [schedule.weights(last) for schedule in schedules]
    known = [own for own in weights if own is not None]
    scores = []
    for averaged in combine(trace, known, stage.dtype, memory):
        scores.append(halves.scores(stage, averaged))
        watch.progress(len(scores), len(known))
    run = halves.scores(stage, state)
    best = _best(schedules, scores, halves.chosen_on)
    arrays = _table(schedules, scores)
    arrays |= _curves(stage, trace, halves, {name: schedules[place] for name, place in best.items()}, memory)
    scalars: Scalars = {
        "checkpoint_rows": every,
        "candidates": len(schedules),
        "chosen_on": "half of the held-out examples" if halves.chosen_on == "select" else "training examples",
        "recalibrated": stage.recalibration is not None,
    }
    scalars |= _named("run", run)
    for family, place in best.items():
        scalars[f"{family}_{_VALUES[family]}"] = _value(trace, schedules[place])
        scalars |= _named(family, scores[place])
    winner = min(best, key=lambda family: _loss(scores[best[family]], halves.chosen_on))
    better = _loss(scores[best[winner]], halves.chosen_on) < _loss(run, halves.chosen_on)
    scalars["best"] = _described(trace, schedules[best[winner]]) if better else "the run itself"
    provenance = {"candidates": [_described(trace, schedule) for schedule in schedules]}
    return Found(scalars, arrays, provenance, tuple(notes))


_VALUES = {"tail": "from_step", "swa": "from_step", "ema": "decay", "lawa": "count"}


def _every(trace: Trace, options: Options) -> tuple[int, list[str]]:
    """Return how many rows checkpoints are apart: an epoch, as far as the run has two of them."""
    last = trace.rows - 1
    if options.every is not None:
        return min(options.every, last), []
    present = trace.reader.arrays()
    if "batch/size" in present:
        sizes = trace.reader.read("batch/size", 1, trace.rows).clip(min=0)
        batch = float(sizes.reshape(len(sizes), -1).sum(1).mean())
        gap = int(trace.steps[-1]) / last
        if batch > 0:
            rows = max(1, round(present["examples/hash"].shape[0] / batch / gap))
            if 2 * rows <= last:
                return rows, []
    rows = max(1, last // _CHECKPOINTS)
    return rows, [
        "the run did not come to every training example twice, so it has no epochs: checkpoints are "
        f"{rows} rows apart (`--every K`)"
    ]


def _halves(stage: Stage, options: Options, notes: list[str]) -> _Halves:
    """Split the held-out examples: what a search chose on flatters what it chose."""
    train = np.arange(stage.splits["train"].count)
    held = stage.splits.get("test")
    if held is None or held.labels is None or held.count < 2:
        notes.append(
            "averages were chosen on training examples: give held-out ones with labels (`--probe FILE.npz`)"
        )
        return _Halves({"train": train}, {"train": "train"}, "train")
    order = np.random.default_rng(options.seed).permutation(held.count)
    half = held.count // 2
    notes.append(
        f"averages were chosen by their loss on {half} of the held-out examples; held-out figures are of the "
        f"other {held.count - half}"
    )
    parts = {"train": train, "select": np.sort(order[:half]), "test": np.sort(order[half:])}
    return _Halves(parts, {"train": "train", "select": "test", "test": "test"}, "select")


def _candidates(last: int, every: int, options: Options) -> list[Schedule]:
    """Return every average that the run is long enough for."""
    starts = [max(1, round(share * last)) for share in options.fractions]
    found = [Schedule("tail", start) for start in starts]
    if every > 1:  # else SWA is the tail
        found += [Schedule("swa", start, every) for start in starts]
    found += [Schedule("ema", decay) for decay in options.rates]
    found += [Schedule("lawa", count, every) for count in options.numbers]
    return [schedule for schedule in dict.fromkeys(found) if schedule.weights(last) is not None]


def _best(schedules: Sequence[Schedule], scores: Sequence[dict[str, Score]], part: str) -> dict[str, int]:
    """Return the place of the best average of each family."""
    found: dict[str, int] = {}
    for family in FAMILIES:
        places = [place for place, schedule in enumerate(schedules) if schedule.family == family]
        if places:
            found[family] = min(places, key=lambda place: _loss(scores[place], part))
    return found


def _loss(scores: dict[str, Score], part: str) -> float:
    loss = scores[part].loss
    return loss if math.isfinite(loss) else math.inf


def _table(schedules: Sequence[Schedule], scores: Sequence[dict[str, Score]]) -> dict[str, Array]:
    """Return the scores of every candidate, in the order of the search."""
    found = {
        "candidate": Array(("candidate",), np.arange(len(schedules), dtype=np.int64)),
        "candidate_value": Array(("candidate",), np.array([float(schedule.value) for schedule in schedules])),
    }
    for part in scores[0] if scores else ():
        own = [score[part] for score in scores]
        found[f"candidate_loss_{part}"] = Array(("candidate",), np.array([score.loss for score in own]))
        if own[0].accuracy is not None:
            values = np.array([score.accuracy for score in own], dtype=np.float64)
            found[f"candidate_accuracy_{part}"] = Array(("candidate",), values)
    return found


def _curves(
    stage: Stage, trace: Trace, halves: _Halves, chosen: dict[str, Schedule], memory: float
) -> dict[str, Array]:
    """Return the scores of the run and of the chosen averages along it; NaN before an average begins."""
    last = trace.rows - 1
    rows = np.unique(np.linspace(1, last, _ROWS).round().astype(np.int64))
    one = np.zeros(last + 1)
    jobs: list[tuple[str, int, NDArray[np.float64]]] = []
    for place, row in enumerate(rows.tolist()):
        alone = one[: row + 1].copy()
        alone[row] = 1.0
        jobs.append(("run", place, alone))
        for family, schedule in chosen.items():
            weights = schedule.weights(row)
            if weights is not None:
                jobs.append((family, place, weights))
    found = {"step": Array(("step",), trace.steps[rows])}
    averages = combine(trace, [weights for _, _, weights in jobs], stage.dtype, memory)
    for (family, place, _), state in zip(jobs, averages, strict=True):
        for part, own in halves.scores(stage, state).items():
            if part == "select":
                continue
            for what, value in (("loss", own.loss), ("accuracy", own.accuracy)):
                if value is not None:
                    blank = Array(("step",), np.full(len(rows), np.nan))
                    found.setdefault(f"{what}_{family}_{part}", blank).data[place] = value
    return found


def _named(name: str, scores: dict[str, Score]) -> Scalars:
    """Return the scores of one model as scalars."""
    found: Scalars = {}
    for part, own in scores.items():
        found[f"loss_{name}_{part}"] = own.loss
        if own.accuracy is not None:
            found[f"accuracy_{name}_{part}"] = own.accuracy
    return found


def _value(trace: Trace, schedule: Schedule) -> float | int:
    """Return an average's parameter as the user knows it: a step, a decay, or a number of checkpoints."""
    if schedule.family in ("tail", "swa"):
        return int(trace.steps[int(schedule.value)])
    return schedule.value if schedule.family == "ema" else int(schedule.value)


def _described(trace: Trace, schedule: Schedule) -> str:
    """Return what an average is, in words."""
    value = _value(trace, schedule)
    return {
        "tail": f"tail from step {value}",
        "swa": f"SWA from step {value}",
        "ema": f"EMA of decay {value}",
        "lawa": f"LAWA of {value} checkpoints",
    }[schedule.family]
