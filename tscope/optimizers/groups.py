"""The parameter groups of a run's optimizer, with the hyper-parameters and learning rates of every row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tscope_format.errors import AnalysisError, MissingDataError, TraceError, clean

from tscope.optimizers.adapters import Hyper, adapter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.trace import Trace


@dataclass(frozen=True)
class Group:
    """A parameter group during one step.

    Attributes:
        names: its parameters.
        hyper: its hyper-parameters, except for the learning rate.
        lr: the learning rate that the step used.
    """

    names: tuple[str, ...]
    hyper: Hyper
    lr: float


class Groups:
    """The groups of the one optimizer that trained a root.

    Attributes:
        optimizer: The name of its class; there is an adapter for it.

    Raises:
        AnalysisError: The root was trained by none, by several, or by one without an adapter.
    """

    def __init__(self, trace: Trace) -> None:
        known = trace.reader.attributes.get("optimizers") or []
        names = ", ".join(clean(entry.get("class")) for entry in known)
        if len(known) != 1:
            what = f"{len(known)} optimizers ({names})" if known else "no optimizer that was seen to step"
            raise AnalysisError(
                f"{clean(trace.path)}: {clean(trace.name)} was trained by {what}; the steps of exactly one "
                "of torch.optim can be followed, so give all parameters to one optimizer as groups"
            )
        self.optimizer = str(known[0]["class"])
        self.adapter = adapter(self.optimizer)
        self._trace = trace
        self._parameters = [entry.name for entry in trace.reader.parameters]
        try:
            self._columns = [int(column) for column in known[0]["columns"]]
            self._first = [self._group(group) for group in known[0]["groups"]]
            changes = trace.reader.attributes.get("optimizer_changes") or []
            self._changes = sorted(
                ((int(change["step"]), change["groups"]) for change in changes), key=lambda entry: entry[0]
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise TraceError(
                f"{clean(trace.path)}: the optimizer's description is damaged ({clean(error)})"
            ) from error
        self._dropped = int(trace.reader.attributes.get("optimizer_changes_dropped") or 0)

    @property
    def stateless(self) -> bool:
        """Whether no step depends on an earlier one through the optimizer's state."""
        settings = [group.hyper.values for group in self._first]
        settings += [part.get("hyper", {}) for _, parts in self._changes for part in parts]
        return self.optimizer == "SGD" and not any(values.get("momentum") for values in settings)

    def rows(self, start: int, stop: int) -> Iterator[tuple[Group, ...]]:
        """Yield the groups of the rows start … stop − 1.

        Raises:
            MissingDataError: The changes of the hyper-parameters were too many to be recorded.
        """
        lr = self._trace.reader.read("lr", start, stop)
        steps = self._trace.steps
        groups, place = list(self._first), 0
        for row in range(start, stop):
            step = int(steps[row])
            # A change is announced with the number of steps that were done before it.
            while place < len(self._changes) and self._changes[place][0] < step:
                groups = self._changed(groups, self._changes[place][1])
                place += 1
            if self._dropped and place == len(self._changes):
                raise MissingDataError(
                    f"step {step}: the hyper-parameters changed more often than is recorded ({place} "
                    "changes), so this optimizer's steps are only known up to there; analyse fewer rows"
                )
            yield tuple(self._with_rate(group, lr[row - start], k) for k, group in enumerate(groups))

    def _group(self, entry: Mapping[str, Any]) -> Group:
        names = tuple(self._parameters[index] for index in entry["tensors"])
        return Group(names, Hyper(entry["hyper"], self.optimizer), math.nan)

    def _changed(self, groups: Sequence[Group], changes: Sequence[Mapping[str, Any]]) -> list[Group]:
        after = list(groups)
        for change in changes:
            place = int(change["group"])
            if place >= len(after):
                after.append(self._group(change))
                continue
            values = {**after[place].hyper.values, **change["hyper"]}
            after[place] = replace(after[place], hyper=Hyper(values, self.optimizer))
        return after

    def _with_rate(self, group: Group, lr: NDArray[Any], place: int) -> Group:
        return replace(group, lr=float(lr[self._columns[place]]) if place < len(self._columns) else math.nan)
