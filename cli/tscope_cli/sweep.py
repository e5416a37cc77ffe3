"""A fork sweep: what the saved results say of each fork of a run, and the computation of what they lack."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tscope_format.errors import AnalysisError, MissingDataError, UsageError, clean

if TYPE_CHECKING:
    from tscope_format import Result, ResultInfo, TraceReader

AVERAGES = "weight-averaging"
GRADIENTS = "gradients"
SETS = ("train", "test")
_SERIES = tuple(f"change_end_{part}{name}" for part in ("", "layer_") for name in SETS)
# What chooses steps and runs: the rest of the options should be the same for all forks.
_OWN = frozenset({"against", "at", "since", "every"})


@dataclass(frozen=True)
class Change:
    """How far one run's gradients moved from t' to its end.

    Attributes:
        values: E‖∇f_T − ∇f_t'‖²/E‖∇f_t'‖² by the name of the examples, `train` or `test`.
        layers: The same of each layer, by the name of the examples, then of the layer.
    """

    values: Mapping[str, float]
    layers: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Fork:
    """One fork.

    Attributes:
        base: The run that it parts from.
        trace: Its trace.
        step: Where it was asked to part.
        seed: What it was reseeded with.
        same_until: t', the last step at which its parameters are those of its base.
        batches_from: The first step with another batch; None where there is none, or it is not known.
        result: Name of the saved average that the values are of; None if there is none.
        values: Scalars of it.
        changes: Of gradients from t' on, by run: `base` and `fork`.
        options: Of each result that was used, by metric.
    """

    base: Path
    trace: Path
    step: int
    seed: int
    same_until: int
    batches_from: int | None
    result: str | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    changes: Mapping[str, Change] = field(default_factory=dict)
    options: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)

    def change(self, name: str, layer: str | None = None) -> float:
        """Return the change of gradients on one set of examples, the mean of both runs; NaN if unknown."""
        found = [
            own.values.get(name, math.nan) if layer is None else own.layers.get(name, {}).get(layer, math.nan)
            for own in self.changes.values()
        ]
        return sum(found) / len(found) if len(found) == 2 else math.nan

    def layers(self, name: str) -> list[str]:
        """Return the layers whose changes are known on one set of examples."""
        known = (own.layers.get(name, {}) for own in self.changes.values())
        return list(dict.fromkeys(layer for layers in known for layer in layers))


def read_forks(base: Path, *, compute: bool, gradients: bool) -> list[Fork]:
    """Return the forks of a run with what is saved of them, in the order of their steps and seeds.

    Args:
        base: The run's trace.
        compute: Compute, and save, what is not there yet.
        gradients: … changes of gradients too.

    Raises:
        UsageError: It is a fork itself, or another trace is in the place of a fork.
        MissingDataError: It has no forks, or a trace lacks what is to be computed.
        AnalysisError: What is to be computed cannot be.
        TraceError: A trace is gone, or damaged.
    """
    from tscope_format import open_trace

    reader = open_trace(base)
    found = [_opened(base, reader, entry) for entry in _listed(base, reader)]
    if compute:
        for fork, own in found:
            if _average(fork, own, reader) is None:
                _run(fork.trace, AVERAGES, against=str(base))
    if compute and gradients:
        try:
            _add_changes(base, reader, {fork.same_until for fork, _ in found})
            for fork, own in found:
                _add_changes(fork.trace, own, {fork.same_until})
        except (AnalysisError, MissingDataError) as error:
            raise type(error)(f"{clean(error)} (`--no-gradients` leaves gradients out)") from error
    return [_filled(fork, own, reader) for fork, own in found]


def disagreements(forks: Iterable[Fork]) -> dict[str, list[str]]:
    """Return by metric the names of options that not all results of it were computed with."""
    used: dict[str, list[Mapping[str, Any]]] = {}
    for fork in forks:
        for metric, own in fork.options.items():
            used.setdefault(metric, []).extend(own)
    found = {}
    for metric, options in used.items():
        names = sorted({name for own in options for name in own} - _OWN)
        differ = [name for name in names if any(each.get(name) != options[0].get(name) for each in options)]
        if differ:
            found[metric] = differ
    return found


def _listed(path: Path, base: TraceReader) -> Sequence[Mapping[str, Any]]:
    """Return the forks that a trace knows of, in the order of their steps and seeds.

    Raises:
        UsageError: It is a fork itself.
        MissingDataError: It knows of none.
    """
    listed = base.facts.get("forks") or ()
    if listed:
        return sorted(listed, key=lambda fork: (fork["step"], fork["seed"]))
    if base.facts.get("fork"):
        whole = path.parent / str(base.facts["fork"].get("base"))
        raise UsageError(f"{path} is a fork itself: tscope forks {clean(whole)} lists all of that run")
    raise MissingDataError(
        f"{path} has no forks; record some: tscope record --fork-at STEP,… --seeds SEED,… -- COMMAND"
    )


def _opened(path: Path, base: TraceReader, entry: Mapping[str, Any]) -> tuple[Fork, TraceReader]:
    """Open a fork's trace.

    Raises:
        TraceError: It is gone, or damaged.
        UsageError: There is another trace in its place.
    """
    from tscope_format import open_trace

    place = path.parent / Path(str(entry["trace"])).name  # beside it, whatever the trace says
    reader = open_trace(place)
    facts = reader.facts.get("fork") or {}
    if facts.get("base_id") != base.facts.get("id") or not facts.get("verified"):
        raise UsageError(f"{place} is another trace than the fork of {path} that was recorded there")
    first, same = facts.get("batches_from"), int(facts["same_until"])
    return Fork(path, place, int(entry["step"]), int(entry["seed"]), same, first), reader


def _filled(fork: Fork, own: TraceReader, base: TraceReader) -> Fork:
    """Return a fork with what is saved of it and of its base."""
    average = _average(fork, own, base)
    name, values = None, {}
    options: dict[str, tuple[Mapping[str, Any], ...]] = {}
    if average is not None:
        info, result = average
        name = info.id
        values = {key: _number(value) for key, value in result.scalars.items() if not _is_text(value)}
        options[AVERAGES] = (_options(info),)
    changes = {}
    for run, path, reader in (("base", fork.base, base), ("fork", fork.trace, own)):
        found = _change(path, reader, fork.same_until)
        if found is not None:
            changes[run] = found[1]
            options[GRADIENTS] = (*options.get(GRADIENTS, ()), _options(found[0]))
    return Fork(
        fork.base,
        fork.trace,
        fork.step,
        fork.seed,
        fork.same_until,
        fork.batches_from,
        name,
        values,
        changes,
        options,
    )


def _average(fork: Fork, own: TraceReader, base: TraceReader) -> tuple[ResultInfo, Result] | None:
    """Return the newest saved average of a fork's last state and its base's."""
    from tscope_format import list_results, load_result

    both = {own.fingerprint, base.fingerprint}
    for info in reversed(list_results(fork.trace)):
        members = info.provenance.get("members") or ()
        if (
            info.metric == AVERAGES
            and {member["trace"] for member in members} == both
            and _options(info).get("at") is None
        ):
            return info, load_result(fork.trace, AVERAGES, info.id, arrays=())
    return None


def _change(path: Path, reader: TraceReader, since: int) -> tuple[ResultInfo, Change] | None:
    """Return the newest saved change of a run's gradients from a step to its end."""
    from tscope_format import list_results, load_result

    root = reader.root()
    last = int(root.read("step")[-1])
    for info in reversed(list_results(path)):
        if info.metric != GRADIENTS or info.root != root.name:
            continue
        result = load_result(path, GRADIENTS, info.id, arrays=("since", *_SERIES))
        places = np.flatnonzero(np.asarray(result.arrays["since"].data) == since)
        if places.size and result.scalars.get("stopped") is not None:
            return info, Change({}, {})  # the run diverged: it has no gradients at its end
        if places.size and result.scalars.get("steps") == last:
            return info, _read_change(result, int(places[0]))
    return None


def _read_change(result: Result, place: int) -> Change:
    """Return one t' of a result."""
    names = [clean(name) for name in result.provenance.get("layers") or ()]
    values, layers = {}, {}
    for name in SETS:
        if f"change_end_{name}" in result.arrays:
            values[name] = float(result.arrays[f"change_end_{name}"].data[place])
            own = result.arrays[f"change_end_layer_{name}"].data[place]
            layers[name] = dict(zip(names, (float(value) for value in own), strict=True))
    return Change(values, layers)


def _add_changes(path: Path, reader: TraceReader, steps: Iterable[int]) -> None:
    """Compute and save the changes of a run's gradients from those steps that have none saved."""
    missing = sorted(step for step in steps if _change(path, reader, step) is None)
    if missing:
        _run(path, GRADIENTS, since=",".join(map(str, missing)))


def _run(path: Path, metric: str, **options: object) -> None:
    from tscope_cli.analysis import compute, save

    save(compute(path, metric, None, options, quiet=False), path, None)


def _options(info: ResultInfo) -> Mapping[str, Any]:
    found: Mapping[str, Any] = info.provenance.get("options") or {}
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str | bool)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
