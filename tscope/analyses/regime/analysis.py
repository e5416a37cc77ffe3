"""Whether a run was lazy or rich, from the trace to the result.

Kernels are those of the metric `kernel`; `docs/metrics/regime.md` says how to read it all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from tscope_format.errors import AnalysisError, MissingDataError, clean
from tscope_format.results import Array, Result

from tscope.analyses.kernel.analysis import analyse as kernels
from tscope.analyses.kernel.setup import prepare, taken
from tscope.analyses.regime.chain import Chain, check_chain, find_chain
from tscope.analyses.regime.features import Features
from tscope.analyses.regime.modes import (
    Modes,
    balanced,
    crossing,
    half_time,
    single,
    unbalanced,
    unbalanced_half_time,
)
from tscope.analyses.standing import standing
from tscope.optimizers import infer_loss, read_labels
from tscope.optimizers.batches import ExampleInputs
from tscope.replay import Replay
from tscope.replay.memory import examples_that_fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.analyses.kernel.setup import Examples
    from tscope.analyses.metric import Watch
    from tscope.analyses.regime.options import Options
    from tscope.trace import Trace

    Values = NDArray[np.floating[Any]]
    Tensors = Mapping[str, Tensor]

_T = TypeVar("_T")

_BLOCK = 4096  # rows of batches at once
_MIXED = 0.05  # of a mode's frequency, above which the inputs count as correlating it with others


def analyse(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric.

    Raises:
        MissingDataError: The trace lacks what a part needs that was asked for by name.
        AnalysisError: Such a part is not defined for the model, or the run is not finite from its beginning.
        UsageError: The options do not fit the trace.
    """
    return _Analysis(trace, options, watch).result()


@dataclass(eq=False)
class _Analysis:
    """The parts, which are independent of each other."""

    trace: Trace
    options: Options
    watch: Watch
    remarks: list[str] = field(default_factory=list)
    arrays: dict[str, Array] = field(default_factory=dict)
    scalars: dict[str, float | int | str | bool | None] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def result(self) -> Result:
        """Compute the parts one after the other."""
        trace, options = self.trace, self.options
        self.setup = prepare(trace, options.kernel())
        self.rows = self.setup.rows
        features = self._tried("features", lambda: Features(self.setup.program, self.setup.functional))
        modes = self._tried("modes", self._modes)
        self._walk(features, modes)
        self._tried("kernel", self._kernel)
        if modes is not None:
            self._told(modes)
        last = {
            name: float(array.data[-1])
            for name, array in self.arrays.items()
            if array.dims == ("step",) and name not in ("step", "time")
        }
        self.arrays = {"step": Array(("step",), trace.steps[self.rows]), **self.arrays}
        self.scalars = {**last, **self.scalars, "steps": int(trace.steps[self.rows[-1]])}
        return Result("regime", self.scalars, self.arrays, self.provenance, (*self.remarks, *standing(trace)))

    def _tried(self, part: str, compute: Callable[[], _T]) -> _T | None:
        """Compute a part; one that cannot be, and was not asked for by name, is left out with a remark."""
        if not self.options.wants(part):
            return None
        try:
            return compute()
        except (AnalysisError, MissingDataError) as error:
            if self.options.asked is not None:
                raise type(error)(f"{error} (without `--parts` there is what can be computed)") from error
            self.remarks.append(f"no {part}: {clean(error)}")
            return None

    def _modes(self) -> Modes:
        """Open the modes of a linear network, of all its training examples."""
        trace, options = self.trace, self.options
        chain = find_chain(self.setup.program)
        self.loss = infer_loss(
            trace,
            kind=None if options.loss == "auto" else options.loss,
            labels=None if options.labels is None else read_labels(trace, options.labels),
        )
        known = torch.isfinite(self.loss.labels).all(1)
        numbers = np.flatnonzero(known.numpy())
        inputs = taken(trace, ExampleInputs(trace), numbers, torch.float64)
        _, theta, _ = next(Replay(trace, dtype=torch.float64).rows(0, 1))
        check_chain(chain, trace.program().to(torch.float64), theta, inputs)
        return Modes(chain, inputs[0], self.loss.labels[known], self._visits()[known])

    def _visits(self) -> Tensor:
        """Return how often each training example was in a batch (example,); equal ones are held once."""
        reader, rows = self.trace.reader, self.trace.rows
        found = np.zeros(reader.arrays()["examples/hash"].shape[0], np.int64)
        for start in range(1, rows, _BLOCK):
            batches = reader.read("batch/example", start, min(start + _BLOCK, rows))
            found += np.bincount(batches[batches >= 0], minlength=len(found))
        return torch.from_numpy(found).double()

    def _walk(self, features: Features | None, modes: Modes | None) -> None:
        """Walk θ: parameters, features, modes; up to where it stops being finite."""
        names = [entry.name for entry in self.trace.parameters if "float" in entry.dtype]
        sets = {"train": self.setup.train, "test": self.setup.test}
        start: dict[str, Tensor] = {}
        moved: dict[str, list[float]] = {}
        chunks: dict[str, int] = {}
        for count, (_, theta, buffers) in enumerate(Replay(self.trace, dtype=torch.float64).at(self.rows)):
            found = {"movement": torch.cat([theta[name].reshape(-1) for name in names])}
            if features is not None:
                at, held = _cast(theta, self.setup.dtype), _cast(buffers, self.setup.dtype)
                for name, examples in sets.items():
                    if examples is not None:
                        if name not in chunks:
                            chunks[name] = self._chunk(features, at, held, examples)
                        found[f"feature_movement_{name}"] = features.at(
                            at, held, examples.inputs, chunks[name]
                        )
            if not all(bool(torch.isfinite(values).all()) for values in found.values()):
                self.scalars["stopped"] = int(self.trace.steps[self.rows[count]])
                step = self.scalars["stopped"]
                self.remarks.append(f"the run is not finite at step {step}; figures end before")
                self.rows = self.rows[:count]
                break
            start = start or found
            for name, values in found.items():
                moved.setdefault(name, []).append(_relative(values, start[name]))
            if modes is not None:
                modes.add(theta)
            self.watch.progress(count + 1, len(self.rows))
        if not self.rows:
            raise AnalysisError("the run holds NaN or infinite values from its beginning")
        self.arrays |= {name: Array(("step",), np.array(values)) for name, values in moved.items()}
        if features is not None:
            self.provenance["features"] = features.layer

    def _chunk(self, features: Features, theta: Tensors, buffers: Tensors, examples: Examples) -> int:
        """Return how many examples go through the model at once."""

        def run(count: int) -> Tensor:
            return features.at(theta, buffers, [value[:count] for value in examples.inputs], count)

        return examples_that_fit(run, examples.count, self.options.max_memory_mb * 1e6)

    def _kernel(self) -> None:
        """Compute the kernels of the rows that are finite."""
        steps = ",".join(str(step) for step in self.trace.steps[self.rows])
        options = replace(self.options.kernel(), at=steps, every=None)
        found = kernels(self.trace, options, self.watch)
        for series in ("movement", "distance", "alignment"):
            for name in ("train", "test"):
                array = found.arrays.get(f"{series}_{name}")
                if array is not None:
                    padded = np.full(len(self.rows), np.nan)
                    padded[: len(array.data)] = array.data
                    self.arrays[f"kernel_{series}_{name}"] = Array(("step",), padded)
        self.remarks += [note for note in found.notes if note not in (*self.remarks, *standing(self.trace))]

    def _told(self, modes: Modes) -> None:
        """Put the modes beside what theory says of them."""
        strength, target = np.stack(modes.strength), modes.target
        steps = self.trace.steps[self.rows].astype(np.float64)
        self.arrays["target"] = Array(("mode",), target)
        self.arrays["frequency"] = Array(("mode",), modes.frequency)
        self.arrays["strength"] = Array(("step", "mode"), strength)
        self.arrays["half_step"] = Array(("mode",), crossing(steps, strength, target / 2))
        self.scalars |= {
            "depth": len(modes.chain.names),
            "modes": len(target),
            "whiteness": modes.whiteness,
            "mixing": modes.mixing,
        }
        self.provenance["chain"] = [clean(name) for name in modes.chain.names]
        if modes.imbalance:
            index = np.stack(modes.imbalance) / target
            self.arrays["index"] = Array(("step", "mode"), index)
            self.scalars["index"] = float(index[0, 0])
        reason = self._not_gradient_descent(modes.chain)
        if reason:
            self.remarks.append(f"no closed forms: {reason}")
            return
        if modes.mixing > _MIXED:
            self.remarks.append(
                f"the inputs correlate the modes (XᵀX/n takes one off itself by {modes.mixing:.2g} of its "
                "frequency): the closed forms are those of modes that learn apart, as of whitened inputs"
            )
        time, all_times = self._times()
        self.arrays["time"] = Array(("step",), time)
        if len(modes.chain.names) == 1:
            closed = single(target, strength[0], time, modes.frequency)
        else:
            closed = balanced(target, strength[0], time, modes.frequency)
            given = target, strength[0], modes.invariant[0], modes.frequency
            for name, half in (
                ("closed", half_time(target, strength[0], modes.frequency)),
                ("unbalanced", unbalanced_half_time(*given)),
            ):
                at = np.interp(half, all_times, self.trace.steps, left=np.nan, right=np.nan)
                self.arrays[f"half_step_{name}"] = Array(("mode",), at)
            guided = unbalanced(target, strength[0], modes.invariant[0], time, modes.frequency)
            self.arrays["strength_unbalanced"] = Array(("step", "mode"), guided)
            self.scalars["unbalanced_off"] = _off(strength, guided, target)
        self.arrays["strength_closed"] = Array(("step", "mode"), closed)
        self.scalars["closed_off"] = _off(strength, closed, target)

    def _times(self) -> tuple[Values, Values]:
        """Return t = c·Σ γ of every row taken, and of all: the loss is c·½‖Σ − W‖² but for a constant."""
        rates = np.nan_to_num(self.trace.reader.read("lr")[:, 0].astype(np.float64))
        size = 1.0
        if self.loss.reduction == "sum":
            sizes = self.trace.reader.read("batch/size").astype(np.float64)
            size = float(np.median(sizes.sum(1)[1:]))
        spans = np.diff(self.trace.steps, prepend=0)
        whole = self.loss.factor * size * np.cumsum(rates * spans)
        return whole[self.rows], whole

    def _not_gradient_descent(self, chain: Chain) -> str:
        """Return why the closed forms do not hold for this run; empty where they may."""
        if self.loss.kind != "mse":
            return f"they are those of squared error, and the loss is {self.loss.kind}"
        if len(chain.names) > 2:
            return f"they are those of one or two layers, and there are {len(chain.names)}"
        attributes = self.trace.reader.attributes
        known = attributes.get("optimizers") or []
        groups = [group for entry in known for group in entry.get("groups") or []]
        hyper = groups[0].get("hyper") or {} if groups else {}
        plain = not any(hyper.get(name) for name in ("momentum", "weight_decay", "nesterov"))
        if len(groups) != 1 or known[0].get("class") != "SGD" or not plain:
            names = ", ".join(clean(entry.get("class")) for entry in known) or "not known"
            return (
                "they are those of plain gradient descent with one learning rate, and the optimizer is "
                f"{names}"
            )
        changed = bool(attributes.get("optimizer_changes"))
        return "the optimizer's settings changed during the run" if changed else ""


def _relative(values: Tensor, start: Tensor) -> float:
    """Return ‖x − x_0‖/‖x_0‖; NaN where x_0 is zero."""
    size = float(start.norm())
    return float((values - start).norm()) / size if size > 0 else math.nan


def _off(strength: Values, closed: Values, target: Values) -> float:
    """Return the largest |strength − closed form| of its target; NaN without a closed form."""
    off = np.abs(strength - closed) / target
    return float(np.nanmax(off)) if np.isfinite(off).any() else math.nan


def _cast(values: Tensors, dtype: torch.dtype) -> dict[str, Tensor]:
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in values.items()}
