"""What is known of a root's optimizers: their groups, hyper-parameters, and the columns of the `lr` array."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from tscope_format.dtypes import JSON

from tscope.record.frames import Frame, FrameError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Cyclic momentum changes hyper-parameters at every step, and the attributes are rewritten at every commit.
MOST_CHANGES = 4096


class Optimizers:
    """The optimizers of one root, as their frames announce them."""

    def __init__(self) -> None:
        self._columns: dict[tuple[int, int], int] = {}
        self._known: dict[int, dict[str, Any]] = {}
        self._changes: list[JSON] = []
        self.dropped_changes = 0

    @property
    def groups(self) -> int:
        """The number of columns that `lr` has so far."""
        return len(self._columns)

    def announce(self, frame: Frame) -> None:
        """Take in an `optimizer` frame: the first of an optimizer describes it, further ones are changes."""
        index = frame.integer("optimizer")
        groups = [_group(frame, group) for group in frame.items("groups")]
        for position in range(len(groups)):
            self._columns.setdefault((index, position), len(self._columns))
        known = self._known.get(index)
        if known is None:
            step = frame.fields.get("step")
            self._known[index] = {"class": frame.text("class"), "step": step if isinstance(step, int) else 0}
        elif len(self._changes) < MOST_CHANGES:
            self._changes.append(
                {"optimizer": index, "step": frame.integer("step"), "groups": _changed(known["now"], groups)}
            )
        else:
            self.dropped_changes += 1
        self._known[index].setdefault("groups", groups)
        self._known[index]["now"] = groups

    def rates(self, frame: Frame) -> NDArray[np.float64]:
        """Return the learning rates (group,) of a `step` frame, NaN for groups it does not mention."""
        pairs: dict[int, float] = {}
        for index, rates in enumerate(frame.items("lr")):
            if not isinstance(rates, list):
                raise FrameError("a `step` frame must list the learning rates of each optimizer as `lr`")
            for position, rate in enumerate(rates):
                column = self._columns.setdefault((index, position), len(self._columns))
                pairs[column] = float(rate) if isinstance(rate, int | float) else np.nan
        lr = np.full(len(self._columns), np.nan)
        for column, rate in pairs.items():
            lr[column] = rate
        return lr

    def attributes(self) -> dict[str, JSON]:
        """Return what readers need: classes, groups, columns of `lr`, and changes over the run."""
        listed: list[JSON] = [
            {
                "optimizer": index,
                "class": known["class"],
                "step": known["step"],
                "groups": known["groups"],
                "columns": [self._columns[index, position] for position in range(len(known["now"]))],
            }
            for index, known in sorted(self._known.items())
        ]
        return {
            "optimizers": listed,
            "optimizer_changes": self._changes,
            "optimizer_changes_dropped": self.dropped_changes,
        }


def _group(frame: Frame, group: object) -> dict[str, JSON]:
    if not isinstance(group, dict) or not isinstance(group.get("hyper"), dict):
        raise FrameError(f"an `{frame.kind}` frame must give the hyper-parameters of each group as `hyper`")
    tensors = group.get("tensors")
    hyper = {str(name): _plain(value) for name, value in group["hyper"].items()}
    return {"hyper": hyper, "tensors": tensors if isinstance(tensors, list) else []}


def _plain(value: JSON) -> JSON:
    """Return the value as strict JSON can hold it: infinities and NaN become their names."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _changed(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[JSON]:
    """Return, group by group, the hyper-parameters that differ from `before`; new groups whole."""
    listed: list[JSON] = []
    for position, group in enumerate(after):
        if position >= len(before):
            listed.append({"group": position, "hyper": group["hyper"], "tensors": group["tensors"]})
            continue
        old = before[position]["hyper"]
        hyper = {
            name: value for name, value in group["hyper"].items() if name not in old or old[name] != value
        }
        hyper.pop("lr", None)
        if hyper:
            listed.append({"group": position, "hyper": hyper})
    return listed
