"""One opened run: an immutable snapshot for the screen, and its source, which reads the trace in a worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tscope_format.errors import TscopeError, clean

from tscope_tui.data import boosting, collapse, effective, kernel, layers, regime, updates
from tscope_tui.data.averages import Averages, AveragesSource
from tscope_tui.data.boosting import Boosting
from tscope_tui.data.collapse import Collapse
from tscope_tui.data.curve import Curve, read_curve
from tscope_tui.data.effective import Effective
from tscope_tui.data.entry import Entry, read_entry
from tscope_tui.data.event_source import EventSource
from tscope_tui.data.events import Event
from tscope_tui.data.examples import Examples, Followed
from tscope_tui.data.facts import Facts, facts_of
from tscope_tui.data.kernel import Kernel
from tscope_tui.data.layers import Layers
from tscope_tui.data.regime import Regime
from tscope_tui.data.saved import Saved
from tscope_tui.data.saved_events import Found
from tscope_tui.data.shown import Shown, read_shown
from tscope_tui.data.steps import Steps
from tscope_tui.data.telescoping import Choice, Recorded, Telescoping, from_result
from tscope_tui.data.updates import Updates

if TYPE_CHECKING:
    from tscope_format import Result, ResultInfo, RootReader, TraceReader

CURVES = ("loss", "grad_norm", "update_norm", "theta_norm")
METRIC = "telescoping"


@dataclass(frozen=True, eq=False)
class RunData:
    """Everything the views show of one run at one commit.

    Attributes:
        entry: Its row in the browser.
        facts: What was recorded.
        root: The recorded model that is shown.
        steps: The step of each row; None before anything could be read.
        curves: The scalars over all rows.
        detail: The same within `window`, where all rows are too many to read exactly.
        window: The rows of `detail`.
        telescoping: Predictions of the probe set; None where there are none.
        effective: Effective parameters of the newest saved result; None where there is none.
        effective_lacks: What the trace lacks for them.
        kernel: Tangent kernels of the newest saved result; None where there is none.
        kernel_lacks: What the trace lacks for them.
        updates: Terms and influences of the newest saved result; None where there is none.
        updates_lacks: What the trace lacks for them.
        boosting: The comparison with trees of the newest saved result; None where there is none.
        trees: Whether the root is an ensemble of trees.
        examples: The examples of the shown probe set; None where none were recorded, or asked for.
        shown: The input of the chosen one.
        events: What happened, by step.
        found: The saved search for events; None where there is none.
        stale: Why another search may find more; empty while none would.
        problems: What could not be read; cleaned.
        layers: What each layer did, of the newest saved result; None where there is none.
        layers_lacks: What the trace lacks for it.
        regime: Movements and modes of the newest saved result; None where there is none.
        collapse: Neural collapse of the newest saved result; None where there is none.
        regime_lacks: What the trace lacks for these two.
        averages: Averages, changes of gradients and forks; None where they were not asked for.
    """

    entry: Entry
    facts: Facts = ()
    root: str = ""
    steps: Steps | None = None
    curves: Mapping[str, Curve] = field(default_factory=dict)
    detail: Mapping[str, Curve] = field(default_factory=dict)
    window: tuple[int, int] | None = None
    telescoping: Telescoping | None = None
    effective: Effective | None = None
    effective_lacks: tuple[str, ...] = ()
    kernel: Kernel | None = None
    kernel_lacks: tuple[str, ...] = ()
    updates: Updates | None = None
    updates_lacks: tuple[str, ...] = ()
    boosting: Boosting | None = None
    trees: bool = False
    examples: Examples | None = None
    shown: Shown | None = None
    events: tuple[Event, ...] = ()
    problems: tuple[str, ...] = ()
    found: Found | None = None
    stale: str = ""
    layers: Layers | None = None
    layers_lacks: tuple[str, ...] = ()
    regime: Regime | None = None
    collapse: Collapse | None = None
    regime_lacks: tuple[str, ...] = ()
    averages: Averages | None = None

    @property
    def path(self) -> Path:
        """The folder of the trace."""
        return self.entry.path

    @property
    def last(self) -> int:
        """The last step."""
        return self.steps.last if self.steps is not None else 0

    def curve(self, name: str, window: tuple[float, float] | None) -> Curve | None:
        """Return a scalar, in detail where the window on steps lies within what was read in detail."""
        if window is not None and self.window is not None and self.steps is not None and name in self.detail:
            low, high = self.steps.at(self.window[0]), self.steps.at(self.window[1] - 1)
            if low <= window[0] and (window[1] <= high or high == self.steps.last):
                return self.detail[name]
        return self.curves.get(name)


# The probe set of a telescoping result, its steps (row,) and the network's outputs (row, example, output).
Predictions = tuple[str, NDArray[np.float64], NDArray[np.float32]]


def _predictions_of(result: Result) -> Predictions:
    step = np.asarray(result.arrays["step"].data, dtype=np.float64)
    actual = np.asarray(result.arrays["actual"].data, dtype=np.float32)
    return str(result.scalars.get("probe", "")), step, actual


class RunSource:
    """Reads one trace; every method blocks, and runs in a thread that is not the screen's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._reader: TraceReader | None = None
        self._recorded: Recorded | None = None
        self._curves: dict[str, Curve] = {}
        self._rows = 0
        self._results: tuple[object, Telescoping | None] = (None, None)
        self._effective = Saved(path, effective.METRIC, effective.from_result)
        self._kernel = Saved(path, kernel.METRIC, kernel.from_result)
        self._updates = Saved(path, updates.METRIC, updates.from_result)
        self._boosting = Saved(path, boosting.METRIC, boosting.from_result)
        self._layers = Saved(path, layers.METRIC, layers.from_result)
        self._regime = Saved(path, regime.METRIC, regime.from_result)
        self._collapse = Saved(path, collapse.METRIC, collapse.from_result)
        self._averages = AveragesSource(path)
        self._events = EventSource(path)
        self._followed: Followed | None = None
        self._predictions = Saved(path, METRIC, _predictions_of)
        self._followed_result: Predictions | None = None

    def load(
        self,
        choice: Choice,
        window: tuple[float, float] | None,
        *,
        curves_only: bool = False,
        example: int | None = None,
        averages: bool = False,
    ) -> RunData:
        """Read what was committed since the last call, and the rows of a window on steps in detail.

        Args:
            choice: Which predictions to show.
            window: Steps to read in detail.
            curves_only: Leave the probe arrays for a later call, so that curves are shown first.
            example: Follow each example of the probe set, and read the input of this one; None leaves it out.
            averages: Read averages, changes of gradients, and the traces of all forks.

        Returns:
            A new snapshot. What cannot be read is named in its problems, and never raised.
        """
        with self._lock:
            entry = read_entry(self.path, time.time())
            try:
                return self._load(entry, choice, window, curves_only, example, averages)
            except (TscopeError, OSError, ValueError, KeyError, TypeError) as error:
                return RunData(entry, problems=(self._told(error),))

    def _told(self, error: Exception) -> str:
        """Return a message without the path of the trace, which stands above it."""
        return clean(error).removeprefix(f"{clean(self.path)}: ")

    def _load(
        self,
        entry: Entry,
        choice: Choice,
        window: tuple[float, float] | None,
        curves_only: bool,
        example: int | None,
        averages: bool,
    ) -> RunData:
        from tscope_format import open_trace

        if self._reader is None:
            self._reader = open_trace(self.path)
        else:
            self._reader.refresh()
        if not self._reader.roots:
            return RunData(entry, facts_of(self._reader, None), problems=("no model was trained yet",))
        root = self._reader.root(self._reader.roots[0])
        problems: list[str] = []
        steps = Steps.read(root, root.rows)
        self._extend(root, steps, problems)
        detail, rows = self._details(root, steps, window, problems)
        telescoping = None if curves_only else self._telescoping(root, choice, problems)
        parameters = None if curves_only else self._effective.read(root.name, problems)
        kernels = None if curves_only else self._kernel.read(root.name, problems)
        trees = root.attributes.get("kind") == "trees"
        layerwise = None if curves_only else self._layers.read(root.name, problems)
        moved = None if curves_only else self._regime.read(root.name, problems)
        collapsed = None if curves_only else self._collapse.read(root.name, problems)
        averaged = self._averages.read(self._reader, root, problems) if averages else None
        examples, shown = (None, None) if example is None else self._examples(root, example, problems)
        events, found, stale = self._events.read(
            root,
            steps,
            self._reader.facts,
            self._curves.get("loss"),
            (telescoping, parameters, kernels),
            problems,
        )
        return RunData(
            entry,
            facts_of(self._reader, root),
            clean(root.name),
            steps,
            dict(self._curves),
            detail,
            rows,
            telescoping,
            parameters,
            effective.lacks_of(root),
            kernels,
            kernel.lacks_of(root),
            None if curves_only else self._updates.read(root.name, problems),
            # The two analyses need the same, except that trees have no updates.
            updates.OF_TREES if trees else effective.lacks_of(root),
            None if curves_only else self._boosting.read(root.name, problems),
            trees,
            examples,
            shown,
            events,
            tuple(dict.fromkeys(problems)),
            found,
            stale,
            layers=layerwise,
            layers_lacks=layers.lacks_of(root),
            regime=moved,
            collapse=collapsed,
            regime_lacks=regime.lacks_of(root),
            averages=averaged,
        )

    def _extend(self, root: RootReader, steps: Steps, problems: list[str]) -> None:
        for name in CURVES:
            known = self._curves.get(name)
            try:
                if known is None or steps.rows < self._rows:
                    curve = read_curve(root, name, steps)
                elif steps.rows > self._rows:
                    start = self._rows - self._rows % known.block
                    new = read_curve(root, name, steps, start)
                    curve = None if new is None else known.joined(new, steps.at(start))
                    if curve is not None and curve.values.size > 2 * max(known.values.size, 1 << 18):
                        curve = read_curve(root, name, steps)
                else:
                    curve = known
            except TscopeError as error:
                problems.append(self._told(error))
                continue
            if curve is not None:
                self._curves[name] = curve
        self._rows = steps.rows

    def _details(
        self, root: RootReader, steps: Steps, window: tuple[float, float] | None, problems: list[str]
    ) -> tuple[dict[str, Curve], tuple[int, int] | None]:
        coarse = [name for name, curve in self._curves.items() if curve.block > 1]
        if window is None or not coarse:
            return {}, None
        # As much again on both sides, so that panning a little needs no reading.
        low, high = steps.row(window[0]), steps.row(window[1]) + 2
        room = max(1, high - low)
        rows = max(0, low - room), min(steps.rows, high + room)
        detail = {}
        for name in coarse:
            try:
                curve = read_curve(root, name, steps, *rows)
            except TscopeError as error:
                problems.append(self._told(error))
                continue
            if curve is not None:
                detail[name] = curve
        return detail, rows

    def _telescoping(self, root: RootReader, choice: Choice, problems: list[str]) -> Telescoping | None:
        saved = self._saved(choice, problems)
        probe = next((probe for probe in root.probes if Recorded.available(root, probe)), None)
        if probe is None:
            return saved
        try:
            if self._recorded is None or self._recorded.choice != choice or self._recorded.probe != probe:
                self._recorded = Recorded(root, probe, choice)
            self._recorded.advance(root)
            recorded = self._recorded.result()
        except TscopeError as error:
            self._recorded = None
            problems.append(self._told(error))
            return saved
        if recorded is None or saved is None:
            return recorded or saved
        # The saved result is the more exact one, unless the run went on after it.
        newer = recorded.step.size > 0 and (not saved.step.size or recorded.step[-1] > saved.step[-1])
        return recorded.with_layers(saved) if newer else saved

    def _examples(
        self, root: RootReader, example: int, problems: list[str]
    ) -> tuple[Examples | None, Shown | None]:
        """Return the examples of the probe set that is shown, and the input of one of them."""
        # The same set as the predictions are of, if it has any.
        able = [probe for probe in root.probes if Followed.available(root, probe)]
        able.sort(key=lambda probe: not Recorded.available(root, probe))
        try:
            if able:
                if self._followed is None or self._followed.probe != able[0]:
                    self._followed = Followed(root, able[0])
                self._followed.advance(root)
            else:
                self._from_result(root, problems)
            found = self._followed
            return (None, None) if found is None else (found.result(), read_shown(root, found.probe, example))
        except TscopeError as error:
            self._followed = None
            problems.append(self._told(error))
            return None, None

    def _from_result(self, root: RootReader, problems: list[str]) -> None:
        """Follow the examples of the newest saved telescoping result, where no outputs were recorded."""
        saved = self._predictions.read(root.name, problems)
        if saved is not None and saved is not self._followed_result:
            probe, step, actual = self._followed_result = saved
            self._followed = Followed(root, probe, (actual.shape[1], actual.shape[2]))
            self._followed.take(step, actual)

    def _saved(self, choice: Choice, problems: list[str]) -> Telescoping | None:
        from tscope_format import list_results

        try:
            found = [info for info in list_results(self.path) if info.metric == METRIC]
        except (TscopeError, OSError) as error:
            problems.append(self._told(error))
            return None
        known = choice, tuple(info.id for info in found)
        if self._results[0] != known:
            self._results = known, self._newest(found, choice, problems)
        return self._results[1]

    def _newest(self, found: Sequence[ResultInfo], choice: Choice, problems: list[str]) -> Telescoping | None:
        """Return the newest result, with the layers of the newest that has them."""
        from tscope_format import load_result

        newest: Telescoping | None = None
        for info in sorted(found, key=lambda info: info.created, reverse=True)[:8]:
            try:
                one = from_result(load_result(self.path, METRIC, info.id), "saved result", choice)
            except (TscopeError, OSError, KeyError, ValueError) as error:
                problems.append(self._told(error))
                continue
            newest = newest.with_layers(one) if newest is not None else one
            if newest.contribution is not None:
                break
        return newest
