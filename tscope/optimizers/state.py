"""The optimizer's own state, carried along by replayed gradients and held against what was recorded."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tscope_format.chain import group_name
from tscope_format.errors import AnalysisError, clean

from tscope.optimizers.adapters import Memory, Row, weight_decay
from tscope.optimizers.groups import Group, Groups
from tscope.optimizers.step import LinearStep, Tensors
from tscope.replay.flat import tensor

if TYPE_CHECKING:
    from tscope.trace import Trace

_PREFIX, _SCALARS = "optimizer", "optimizer_scalar"
_COUNTERS = ("step", "mu_product")


class OptimizerState:
    """Momentum, second moments and step counters of every parameter, each in the parameter's own dtype.

    Args:
        trace: The run.
        groups: Its optimizer.
    """

    def __init__(self, trace: Trace, groups: Groups) -> None:
        self._trace = trace
        self._adapter = groups.adapter
        self._memory: dict[str, Memory] = {}
        self._anchor_rows = int(trace.reader.attributes.get("anchor_rows", 256))
        self._names = _state_names(trace)
        self._scalars = _scalar_dtype(trace)

    @property
    def empty(self) -> bool:
        """Whether no step was taken and no state was recorded yet."""
        return not self._memory

    def last_anchor(self, row: int) -> int:
        """Return the last row up to `row` whose state was recorded; 0, where there is none, needs none."""
        for index in range(row // self._anchor_rows, 0, -1):
            if next(self._recorded(index), None) is not None:
                return index * self._anchor_rows
        return 0

    def advance(
        self, groups: Sequence[Group], theta: Tensors, gradient: Tensors, rho: Mapping[str, float], step: int
    ) -> tuple[LinearStep, dict[str, Tensor]]:
        """Return the step's linear map and its Δθ by parameter name, and keep the state after it.

        Args:
            groups: The parameter groups.
            theta: θ_{t−1}.
            gradient: J_bᵀg.
            rho: What the gradient was multiplied with, of the parameters that had one.
            step: For messages.

        Raises:
            AnalysisError: A parameter has no learning rate, or a hyper-parameter is no number.
        """
        rows: dict[str, Row] = {}
        decays: dict[str, tuple[float, float]] = {}
        signed: dict[str, float] = {}
        rates: dict[str, float] = {}
        change: dict[str, Tensor] = {}
        for group in groups:
            for name in (name for name in group.names if name in rho):
                if not math.isfinite(group.lr):
                    raise AnalysisError(f"step {step}: no learning rate was recorded for {clean(name)}")
                factor = -rho[name] if group.hyper.flag("maximize") else rho[name]
                decay = weight_decay(group.hyper, group.lr)
                used = factor * gradient[name]
                if decay[0]:
                    # As torch does it: where the two nearly cancel, rounding is what is left.
                    used = used.add(theta[name], alpha=decay[0])
                row, delta = self._apply(name, group, used)
                if decay[1]:
                    delta = delta - decay[1] * theta[name]
                rows[name], decays[name], signed[name], change[name] = row, decay, factor, delta
                rates[name] = group.lr if row.rate is None else row.rate
        return _linear(rows, decays, signed, rates, theta), change

    def _apply(self, name: str, group: Group, used: Tensor) -> tuple[Row, Tensor]:
        """Return the row, and −D_out∘(aM + bG)."""
        memory = self._of(name)
        memory.step += 1
        row = self._adapter(group.hyper, group.lr, memory, used)
        inner = used if row.d_in is None else used * row.d_in
        moment = row.nu * inner
        if row.moment is not None:
            before = memory.tensors.get(row.moment)
            if before is not None:
                moment = moment + row.mu * before
            memory.tensors[row.moment] = moment
        delta = -row.a * moment - row.b * used
        return row, delta if row.d_out is None else delta * row.d_out

    def settle(self, row: int) -> dict[str, float]:
        """At an anchor, return how far the state is from the recorded one, and take that over.

        Returns:
            ‖mine − recorded‖ / ‖recorded‖ by the state's name; empty where nothing was recorded.

        Raises:
            AnalysisError: The optimizer counted other steps.
        """
        if row % self._anchor_rows or row == 0:
            return {}
        self._check_counts(row)
        off: dict[str, float] = {}
        whole: dict[str, float] = {}
        for name, state, value in list(self._recorded(row // self._anchor_rows)):
            mine = self._of(name).tensors.get(state)
            difference = value if mine is None else mine - value
            off[state] = off.get(state, 0.0) + float(difference.square().sum())
            whole[state] = whole.get(state, 0.0) + float(value.square().sum())
        self.load(row)
        return {
            state: math.sqrt(square / whole[state]) if whole[state] else math.sqrt(square)
            for state, square in off.items()
        }

    def _check_counts(self, row: int) -> None:
        """Refuse an optimizer that had a state before the recording began."""
        for state, numbers in self._numbers(row // self._anchor_rows):
            if state != "step":
                continue
            for entry, number in zip(self._trace.reader.parameters, numbers, strict=True):
                mine = self._of(entry.name).step
                if math.isfinite(number) and int(number) != mine:
                    raise AnalysisError(
                        f"step {int(self._trace.steps[row])}: the optimizer counts {int(number)} steps of "
                        f"{clean(entry.name)}, and {mine} were recorded: it went on from a checkpoint, whose "
                        "state is not in the trace; record from the run's beginning"
                    )

    def load(self, row: int) -> None:
        """Take over the state that was recorded at an anchor row; at row 0, there is none."""
        index = row // self._anchor_rows
        if index == 0:
            self._memory = {}
            return
        for name, state, value in self._recorded(index):
            self._of(name).tensors[state] = value
        for state, numbers in self._numbers(index):
            for entry, number in zip(self._trace.reader.parameters, numbers, strict=True):
                if state not in _COUNTERS or not math.isfinite(number):
                    continue
                if state == "step":
                    self._of(entry.name).step = int(number)
                else:
                    self._of(entry.name).mu_product = torch.tensor(number, dtype=self._scalars)

    def _of(self, name: str) -> Memory:
        return self._memory.setdefault(name, Memory(torch.ones((), dtype=self._scalars)))

    def _recorded(self, index: int) -> Iterator[tuple[str, str, Tensor]]:
        """Yield (parameter, state, value) of an anchor, of what was recorded there."""
        reader = self._trace.reader
        for dtype, names in self._names.items():
            for state in names:
                flat = reader.read(f"{group_name(_PREFIX, dtype)}/{state}", index, index + 1)
                if not len(flat):
                    continue
                vector = tensor(flat[0], dtype)
                for entry in (entry for entry in reader.parameters if entry.dtype == dtype):
                    part = vector[entry.offset : entry.offset + entry.size]
                    if part.numel() and not bool(torch.isnan(part).all()):
                        yield entry.name, state, part.view(entry.shape).clone()
        # Of a parameter that is a single number, the states are single numbers too.
        for state, numbers in self._numbers(index):
            for entry, number in zip(reader.parameters, numbers, strict=True):
                if state not in _COUNTERS and entry.shape == () and math.isfinite(number):
                    yield entry.name, state, torch.tensor(number, dtype=getattr(torch, entry.dtype))

    def _numbers(self, index: int) -> Iterator[tuple[str, list[float]]]:
        """Yield (state, a number for each parameter) of an anchor; NaN where it has none."""
        reader = self._trace.reader
        for path in reader.arrays():
            if path.startswith(_SCALARS + "/"):
                for numbers in reader.read(path, index, index + 1):
                    yield path[len(_SCALARS) + 1 :], numbers.tolist()


def _state_names(trace: Trace) -> dict[str, list[str]]:
    """Return the names of the recorded states by the dtype of the parameters they belong to."""
    found: dict[str, list[str]] = {}
    present = trace.reader.arrays()
    for dtype in dict.fromkeys(entry.dtype for entry in trace.reader.parameters):
        prefix = group_name(_PREFIX, dtype) + "/"
        found[dtype] = [path[len(prefix) :] for path in present if path.startswith(prefix)]
    return found


def _scalar_dtype(trace: Trace) -> torch.dtype:
    """Return the dtype of the run's scalar tensors: float64 only if that was torch's default dtype."""
    if "program/graph" not in trace.reader.arrays():
        return torch.float32
    graph = json.loads(trace.reader.read("program/graph").tobytes())
    return torch.float64 if graph.get("default_dtype") == "float64" else torch.float32


def _linear(
    rows: Mapping[str, Row],
    decays: Mapping[str, tuple[float, float]],
    rho: Mapping[str, float],
    rate: Mapping[str, float],
    theta: Tensors,
) -> LinearStep:
    def diagonal(values: Mapping[str, Tensor | None]) -> dict[str, Tensor] | None:
        if all(value is None for value in values.values()):
            return None
        return {n: torch.ones_like(theta[n]) if value is None else value for n, value in values.items()}

    return LinearStep(
        mu={name: row.mu for name, row in rows.items()},
        nu={name: row.nu for name, row in rows.items()},
        a={name: row.a for name, row in rows.items()},
        b={name: row.b for name, row in rows.items()},
        coupled={name: decay[0] for name, decay in decays.items()},
        decoupled={name: decay[1] for name, decay in decays.items()},
        rho=dict(rho),
        rate=dict(rate),
        d_in=diagonal({name: row.d_in for name, row in rows.items()}),
        d_out=diagonal({name: row.d_out for name, row in rows.items()}),
    )
