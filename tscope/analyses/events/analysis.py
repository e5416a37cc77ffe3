"""The events of a recorded run, from what was recorded and what other metrics saved.

No parameter is read and no model evaluated. `docs/metrics/events.md` has the definitions.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from tscope_format.errors import clean
from tscope_format.results import Array, Result

from tscope.analyses.events.definitions import definitions
from tscope.analyses.events.event import KINDS, Event
from tscope.analyses.events.fits import held_out, of_loss, training
from tscope.analyses.events.losses import WINDOW, divergence, spikes
from tscope.analyses.events.onsets import Fit, grokking, interpolation
from tscope.analyses.events.saved import Saved
from tscope.analyses.standing import standing

if TYPE_CHECKING:
    from tscope.analyses.events.event import Steps, Values
    from tscope.analyses.events.options import Options
    from tscope.trace import Trace

_CURVE = 512  # rows of the curves in a result
_FEW = 12  # rows, below which a course of held-out examples is not told


def analyse(trace: Trace, options: Options) -> Result:
    """Find the events of a run.

    Raises:
        UsageError: The options do not fit the trace.
        AnalysisError: A loss or labels were given that are not those of the run.
        MissingDataError: The same, of a trace that does not hold the outputs of its batches.
    """
    return _Search(trace, options).result()


@dataclass(frozen=True)
class Missing:
    """What could not be looked for.

    Attributes:
        event: Its kind.
        lacks: Why.
        remedy: What would provide it; empty if nothing does after the run.
    """

    event: str
    lacks: str
    remedy: str


@dataclass(eq=False)
class _Search:
    """What was found so far, and what there was to look at."""

    trace: Trace
    options: Options
    events: list[Event] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.saved = Saved(self.trace, self.options.sure)
        self.command = f"tscope analyze {shlex.quote(clean(self.trace.path))} --metric"

    def result(self) -> Result:
        """Look for every kind of event."""
        trace, options = self.trace, self.options
        fit, reason = training(trace, options)
        other = self._held_out()
        steps, loss = self._losses([known for known in (fit, other) if known is not None])
        if fit is None:
            finite = np.isfinite(loss)
            fit = of_loss(steps[finite], loss[finite])
            if fit is not None:
                self.notes.append(f"the fit of training examples is told from their loss: {reason}")
        if fit is None:
            lack = f"how well training examples are predicted: {reason}"
            self._lacks("interpolation", lack, "tscope record --outputs all -- …")
        if other is None:
            lack = "outputs of held-out examples with labels"
            self._lacks("grokking", lack, f"{self.command} telescoping --probe FILE.npz (x and y)")
        elif len(other.step) < min(_FEW, trace.rows):
            # A recorder that shares its processor with much else projects few rows.
            lack = f"outputs of held-out examples at more than {len(other.step):,} of {trace.rows:,} rows"
            self._lacks("grokking", lack, f"{self.command} telescoping --replay")
        fitted = None if fit is None else interpolation(fit, options.fit, options.sure)
        followed = None
        if fitted is not None:
            self.events.append(fitted)
            followed = None if other is None else grokking(fitted, other, options.rise, options.sure)
        self.events += [] if followed is None else [followed]
        self._saved()
        self.events.sort(key=lambda event: (event.step, KINDS.index(event.kind)))
        self._remark()
        first = {kind: next((e.step for e in self.events if e.kind == kind), None) for kind in KINDS}
        return Result(
            "events",
            {
                "events": len(self.events),
                **{kind.replace(" ", "_").replace("-", "_"): step for kind, step in first.items()},
                "grokking_delay": None if followed is None or fitted is None else followed.step - fitted.step,
                "loss_spikes": sum(event.kind == "loss spike" for event in self.events),
                "fit_basis": None if fit is None else fit.basis,
                "steps": int(trace.steps[-1]),
            },
            {**self._arrays(), **_curves(trace.steps, fit, other, steps, loss)},
            {
                "kinds": list(KINDS),
                "definitions": definitions(options),
                "events": [asdict(event) for event in self.events],
                "missing": [asdict(item) for item in self.missing],
                "source_train": None if fit is None else fit.source,
                "source_test": None if other is None else other.source,
                "results": self.saved.used,
            },
            tuple(self.notes),
        )

    def _held_out(self) -> Fit | None:
        """Return the fit of held-out examples: of a recorded probe set, or of a result of more rows."""
        recorded = held_out(self.trace, self.options)
        if self.options.probe is not None:
            return recorded
        known = [fit for fit in (recorded, self.saved.held_out()) if fit is not None]
        return max(known, key=lambda fit: len(fit.step), default=None)

    def _losses(self, fits: list[Fit]) -> tuple[Steps, Values]:
        """Look at the training loss, and return it where it was recorded (row,)."""
        options, steps = self.options, self.trace.steps
        loss = np.asarray(self.trace.reader.read("loss"), dtype=np.float64)
        seen = np.flatnonzero(np.isfinite(loss))
        if not seen.size:
            for kind in ("loss spike", "divergence"):
                self._lacks(kind, "the training loss, which no step of the run showed", "")
            return steps[:0], loss[:0]
        steps, loss = steps[seen[0] :], loss[seen[0] :]
        last = int(seen[-1] - seen[0])
        # A run that goes on to predict finite values has not diverged: its loss was not seen. Outputs may
        # stay finite for some steps longer than their loss.
        middle = (steps[min(last + 1, len(steps) - 1)] + steps[-1]) / 2
        goes_on = any(fit.step[-1] >= middle for fit in fits)
        if last < len(loss) - 1 and np.isnan(loss[last + 1 :]).all() and goes_on:
            self.notes.append(f"the training loss was not recorded after step {steps[last]}")
            steps, loss = steps[: last + 1], loss[: last + 1]
        finite = np.isfinite(loss)
        gaps = int((~finite[: last + 1]).sum())
        if gaps:
            self.notes.append(f"{gaps} losses between finite ones are not finite, and are passed over")
        if loss[finite].min() <= 0:
            self.notes.append("the training loss is not always positive: no spikes are looked for")
        elif finite.sum() < 2 * WINDOW:
            self.notes.append(f"spikes need {2 * WINDOW} rows of the loss; there are {int(finite.sum())}")
        self.events += spikes(steps[finite], loss[finite], options.spike, options.sure)
        diverged = divergence(steps, loss, options.diverge, options.sure)
        self.events += [] if diverged is None else [diverged]
        return steps, loss

    def _saved(self) -> None:
        """Look at the results of other metrics."""
        peaks, jumps = self.saved.peaks(), self.saved.jumps()
        if peaks is None:
            # The recursion needs every row, whatever is kept.
            whole = self.trace.reader.theta_rows is None
            remedy = (
                f"{self.command} effective-params" if whole else "a run recorded without `--updates none`"
            )
            self._lacks("effective-parameter peak", "a saved effective-params result", remedy)
        if jumps is None and self.saved.has("kernel"):
            lack = "the alignment with labels in the saved kernel result"
            self._lacks("alignment jump", lack, f"{self.command} kernel --labels FILE.npz (x and y)")
        elif jumps is None:
            self._lacks("alignment jump", "a saved kernel result", f"{self.command} kernel")
        self.events += [*(peaks or ()), *(jumps or ())]

    def _lacks(self, event: str, lacks: str, remedy: str) -> None:
        self.missing.append(Missing(event, lacks, remedy))

    def _remark(self) -> None:
        """Add what is missing to the notes, and how the trace stands."""
        self.notes += self.saved.problems
        for item in self.missing:
            remedy = f"; {item.remedy} provides it" if item.remedy else ""
            self.notes.append(f"not looked for: {item.event}. It lacks {item.lacks}{remedy}")
        self.notes += standing(self.trace)

    def _arrays(self) -> dict[str, Array]:
        """Return the events as columns (event,)."""
        columns = {
            "event_kind": [KINDS.index(event.kind) for event in self.events],
            "event_step": [event.step for event in self.events],
            "event_low": [event.low for event in self.events],
            "event_high": [event.high for event in self.events],
        }
        values = {
            "event_confidence": [event.confidence for event in self.events],
            "event_before": [event.before for event in self.events],
            "event_value": [event.value for event in self.events],
        }
        return {
            **{name: Array(("event",), np.array(column, dtype=np.int64)) for name, column in columns.items()},
            **{name: Array(("event",), np.array(column, np.float64)) for name, column in values.items()},
        }


def _curves(
    steps: Steps, fit: Fit | None, other: Fit | None, loss_steps: Steps, loss: Values
) -> dict[str, Array]:
    """Return what was looked at, at 512 rows at most: the last value known at each of their steps."""
    rows = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _CURVE)).round().astype(np.int64))
    at = steps[rows]
    found = {"step": at}
    for name, known, values in (
        ("loss", loss_steps, loss),
        ("fit_train", *((fit.step, fit.value) if fit is not None else (steps[:0], loss[:0]))),
        ("fit_test", *((other.step, other.value) if other is not None else (steps[:0], loss[:0]))),
    ):
        if known.size:
            place = np.searchsorted(known, at, side="right") - 1
            found[name] = np.where(place >= 0, values[place], np.nan)
    return {name: Array(("step",), np.asarray(values)) for name, values in found.items()}
