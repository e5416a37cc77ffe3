"""What each layer of a recorded network did along the run, from the trace to the result.

Norms, spectra and balancedness are of θ alone; contributions to predictions and to the loss are replayed on a
probe set; the batches' losses and the check of balancedness come from the training steps themselves.
`docs/metrics/layers.md` says how to read it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tscope_format.errors import AnalysisError, MissingDataError, clean
from tscope_format.results import Array, Result

from tscope.analyses.effective.plan import seconds
from tscope.analyses.layers import layers
from tscope.analyses.layerwise.balance import Balance, balanced_pairs
from tscope.analyses.layerwise.contributions import Contributions
from tscope.analyses.layerwise.descent import Descent, Expected
from tscope.analyses.layerwise.norms import Norms
from tscope.analyses.layerwise.notes import notes
from tscope.analyses.layerwise.probe_loss import read_probe_loss
from tscope.analyses.layerwise.spectra import arithmetic, matrices
from tscope.analyses.metric import Watch
from tscope.analyses.telescoping import Options as ProbeChoice
from tscope.analyses.telescoping import choose_probe
from tscope.optimizers import training_functional, training_steps
from tscope.replay import Replay, probing, replay_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.analyses.layerwise.options import Options
    from tscope.analyses.layerwise.pairs import Pair
    from tscope.probes import ProbeSet
    from tscope.trace import Trace

    Tensors = Mapping[str, Tensor]

_ROWS = 200  # by default, at most


def analyse(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric.

    Raises:
        MissingDataError: The trace lacks what a part needs that was asked for by name.
        AnalysisError: Such a part cannot be computed, or the run is not finite from its beginning.
        UsageError: The options do not fit the trace.
    """
    return _Analysis(trace, options, watch).result()


def describe(trace: Trace, options: Options) -> str:
    """Return what would be computed and what its spectra cost, in words."""
    return _Analysis(trace, options, Watch()).described()


@dataclass
class _Analysis:
    """The parts of an analysis, which are independent, and what there is to say of each."""

    trace: Trace
    options: Options
    watch: Watch
    remarks: list[str] = field(default_factory=list)
    arrays: dict[str, Array] = field(default_factory=dict)
    scalars: dict[str, float | int | str | bool | None] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        last = self.trace.rows - 1
        self.real = [entry for entry in self.trace.parameters if "float" in entry.dtype]
        self.groups = layers(self.real)
        self.every = self.options.every or max(1, -(-last // _ROWS))
        self.rows = sorted({*range(0, last, self.every), last})
        self.pairs: tuple[Pair, ...] = ()
        replayed = any(map(self.options.wants, ("steps", "balance")))
        walks = 1 + self.options.wants("contributions") + replayed
        self._done, self._total = 0, walks * len(self.rows)

    def described(self) -> str:
        """Return how many rows are taken, and about how long their singular values take."""
        found = matrices(self.real) if self.options.wants("spectra") else ()
        took = seconds(len(self.rows) * arithmetic(found), torch.float64) if found else 0.0
        span = f"{took:.0f} s" if took < 100 else f"{took / 60:.0f} min"
        spectra = f", singular values of {len(found)} matrices: about {span} of arithmetic" if found else ""
        return f"{len(self.groups)} layers at {len(self.rows)} rows{spectra}"

    def result(self) -> Result:
        """Compute the parts one after the other."""
        trace = self.trace
        self.watch.say(self.described())
        began = time.monotonic()
        stopped = self._parameters()
        probe = self._tried("contributions", self._contributions)
        if self.pairs or self.options.wants("steps"):
            self._tried("steps", self._steps)
        whole = {name: array for name, array in self.arrays.items() if name.endswith("_all")}
        self.scalars = {
            "layers": len(self.groups),
            "steps": int(trace.steps[self.rows[-1]]),
            "every": self.every,
            **{name.removesuffix("_all"): float(array.data[-1]) for name, array in whole.items()},
            **self.scalars,
            "stopped": stopped,
        }
        self.arrays = {"step": Array(("step",), trace.steps[self.rows]), **self.arrays}
        provenance = {
            "layers": [clean(name) for name in self.groups],
            **self.provenance,
            "seconds": time.monotonic() - began,
            "torch": torch.__version__,
        }
        left = len(trace.parameters) - len(self.real)
        found = notes(trace, self.scalars, self.remarks, probe, left)
        return Result("layers", self.scalars, self.arrays, provenance, found)

    def _tried(self, part: str, compute: Callable[[], ProbeSet | None]) -> ProbeSet | None:
        """Compute a part; one that cannot be, and that nobody asked for by name, is left out with a remark.

        The training steps are walked for balancedness too, which is worth something without them.
        """
        asked = self.options.asked
        if part != "steps" and not self.options.wants(part):
            return None
        try:
            return compute()
        except (AnalysisError, MissingDataError) as error:
            if asked is not None and part in asked:
                raise
            lost = [_TITLES[part]] if self.options.wants(part) else []
            lost += ["check of balancedness"] if part == "steps" and self.pairs else []
            self.remarks.append(f"no {' and no '.join(lost)}: {clean(error)}")
            return None

    def _parameters(self) -> int | None:
        """Walk θ: norms, spectra and balancedness. Returns the step at which it stopped being finite."""
        options = self.options
        norms = Norms(self.trace, self.groups, options.singular_values if options.wants("spectra") else 0)
        balance = self._balance()
        stopped = None
        for count, (_, theta, _) in enumerate(Replay(self.trace, dtype=torch.float64).at(self.rows)):
            if not norms.finite(theta):
                stopped = int(self.trace.steps[self.rows[count]])
                self.rows = self.rows[:count]
                break
            norms.add(theta)
            if balance is not None:
                balance.add(theta)
            self._tell()
        if not self.rows:
            raise AnalysisError("the parameters are NaN or infinite at step 0: there is nothing to measure")
        self.arrays |= norms.arrays(self.rows)
        if options.wants("spectra"):
            self.provenance["matrices"] = [clean(entry.name) for entry in norms.matrices]
        if balance is not None:
            for name, values in {
                "balance": balance.norm,
                "balance_drift": balance.drift,
                "balance_size": balance.size,
            }.items():
                self.arrays[name] = Array(("step", "pair"), np.stack(values))
            self.provenance["pairs"] = [clean(pair) for pair in balance.pairs]
            self.provenance["linear_pairs"] = [pair.linear for pair in balance.pairs]
        self.pairs = () if balance is None else balance.pairs
        return stopped

    def _balance(self) -> Balance | None:
        found: list[Balance] = []

        def prepare() -> None:
            limit = self.options.max_memory_mb * 1e6
            found.append(Balance(balanced_pairs(self.trace.program(), limit)))

        self._tried("balance", prepare)
        return found[0] if found else None

    def _contributions(self) -> ProbeSet:
        """Walk the probe set: what each layer did to its predictions and its loss."""
        trace, options = self.trace, self.options
        dtype = replay_dtype(trace, options.dtype)
        probe = choose_probe(trace, ProbeChoice(probe=options.probe))
        evaluation, shape, note = probing(
            trace, probe, dtype=dtype, output=options.probe_output, max_bytes=options.max_memory_mb * 1e6
        )
        loss, why = read_probe_loss(trace, options, probe, evaluation.functional.kind, shape)
        if loss is None:
            self.remarks.append(f"no part in the loss of the probe set: {why}")
        else:
            self.provenance["loss"] = loss.kind
        parts = Contributions(evaluation, self.groups, loss)
        for _ in parts.walk(Replay(trace, dtype=dtype).at(self.rows)):
            self._tell()
        arrays = parts.arrays()
        self._end("the predictions of the probe set", arrays["residual_relative"].data)
        self.arrays |= arrays
        self.scalars["probe"] = clean(probe.name)
        if "loss_change" in arrays:
            self.scalars["loss_change"] = float(arrays["loss_change"].data.sum())
            self.scalars["loss_first_order"] = float(arrays["loss_contribution"].data.sum())
        self.provenance |= {
            "probe": {"examples": probe.examples, "in_sample": probe.in_sample, **probe.attributes},
            "functional": evaluation.functional.kind,
            "functional_note": note,
            "dtype": str(dtype).removeprefix("torch."),
        }
        return probe

    def _steps(self) -> None:
        """Walk the training steps: the batches' losses, and what Q should be."""
        trace = self.trace
        if len(self.rows) < 2:
            raise MissingDataError(f"{clean(trace.path)} holds no training step")
        program = trace.program().to(replay_dtype(trace, None))
        functional = training_functional(trace, program)
        steps = training_steps(trace, program, functional, dtype=torch.float64, stop_row=self.rows[-1] + 1)
        _, theta, _ = next(Replay(trace, dtype=torch.float64).rows(0, 1))
        descent = Descent(self.groups, self.rows, [Expected(pair, theta) for pair in self.pairs])
        last = self.rows[-1]
        for row in descent.walk(steps):
            self.watch.progress(self._done + int((row / last) * len(self.rows)), self._total)
        if self.options.wants("steps"):
            self.arrays["batch_loss_contribution"] = Array(("step", "layer"), self._padded(descent.loss))
            self._end("the gradients of the training steps", self.arrays["batch_loss_contribution"].data)
        self.scalars["optimizer"] = clean(steps.optimizer)
        if not self.pairs:
            return
        off, flow = self._padded(descent.off), self._padded(descent.flow)
        self.arrays["balance_off"] = Array(("step", "pair"), off)
        start = self.arrays["balance"].data[0]
        self.arrays["balance_flow"] = Array(("step", "pair"), flow * start)
        # A pair that the identity fails at some step is not checked by the rows before it.
        whole = [part.broken is None for part in descent.expected]
        relative = (off / self.arrays["balance_size"].data)[:, whole]
        self.scalars["balance_check"] = float(np.nanmax(relative)) if np.isfinite(relative).any() else None
        broken = [part.broken for part in descent.expected if part.broken is not None]
        if broken:
            more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
            self.arrays["balance_flow"].data[:, np.logical_not(whole)] = np.nan
            self.remarks.append(
                f"the balancedness of {broken[0]}{more}: the identity of gradient descent is not checked"
            )

    def _padded(self, rows: list[NDArray[Any]]) -> NDArray[np.float64]:
        """Return rows as an array, NaN behind the last; a walk may end before the parameters are infinite."""
        found = np.full((len(self.rows), *rows[0].shape), np.nan)
        found[: len(rows)] = rows
        return found

    def _end(self, what: str, values: NDArray[Any]) -> None:
        """Remark on a series that is not finite to its end."""
        finite = np.isfinite(values.reshape(len(values), -1)).all(1)
        if not finite.all():
            first = self.trace.steps[self.rows[int(finite.argmin())]]
            self.remarks.append(f"{what} are not finite from step {first}")

    def _tell(self) -> None:
        self._done += 1
        self.watch.progress(self._done, self._total)


_TITLES = {
    "contributions": "part in the predictions",
    "steps": "part in the losses of batches",
    "balance": "balancedness",
}
