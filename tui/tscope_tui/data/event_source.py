"""All events of a run: recorded facts, those of a saved search, and quick rules for what it did not see."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tscope_format.errors import TscopeError, clean

from tscope_tui.data import saved_events
from tscope_tui.data.curve import Curve
from tscope_tui.data.effective import Effective
from tscope_tui.data.events import Event, in_order
from tscope_tui.data.kernel import Kernel
from tscope_tui.data.quick_events import crossing, flag_events, fork_events, loss_facts, spikes, worst_event
from tscope_tui.data.saved import Saved
from tscope_tui.data.saved_events import Found
from tscope_tui.data.steps import Steps
from tscope_tui.data.telescoping import Telescoping

if TYPE_CHECKING:
    from tscope_format import RootReader

_FLAGS = (
    ("skipped", "k", "optimizer skipped the step"),
    ("foreign", "f", "weights changed outside the optimizer"),
)


class EventSource:
    """Reads the events of one trace."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved = Saved(path, saved_events.METRIC, saved_events.from_result)

    def read(
        self,
        root: RootReader,
        steps: Steps,
        facts: Mapping[str, Any],
        loss: Curve | None,
        shown: tuple[Telescoping | None, Effective | None, Kernel | None],
        problems: list[str],
    ) -> tuple[tuple[Event, ...], Found | None, str]:
        """Return the events by step, the saved search, and why another one may find more.

        Args:
            root: The root that is shown.
            steps: The steps of its rows.
            facts: Those of the run.
            loss: Its loss.
            shown: What else is shown of it.
            problems: What cannot be read is added.
        """
        telescoping, parameters, kernels = shown
        events = [*fork_events(facts), *self._flagged(root, steps, problems)]
        if loss is not None:
            events += [*loss_facts(loss), *spikes(loss)]
        if telescoping is not None:
            events += worst_event(telescoping.worst(1))
            if telescoping.stopped is not None:
                events.append(Event(telescoping.stopped, "!", "predictions are not finite"))
            accuracy = telescoping.accuracy.get("actual")
            if accuracy is not None:
                events += crossing(telescoping.step, accuracy, telescoping.probe)
        if parameters is not None:
            events += parameters.events()
        if kernels is not None:
            events += kernels.events()
        found = self._saved.read(root.name, problems)
        if found is None:
            return in_order(events), None, ""
        try:
            stale = found.stale(self._path, root.name, steps.last)
        except (TscopeError, OSError) as error:
            problems.append(clean(error))
            stale = ""
        return found.among(events), found, stale

    def _flagged(self, root: RootReader, steps: Steps, problems: list[str]) -> list[Event]:
        """Return the steps that the recorder flagged."""
        events: list[Event] = []
        for name, kind, text in _FLAGS:
            if name not in root.arrays():
                continue
            try:
                rows = np.flatnonzero(root.read(name, 0, steps.rows))
            except TscopeError as error:
                problems.append(clean(error).removeprefix(f"{clean(self._path)}: "))
                continue
            events += flag_events(steps.of(rows), kind, text)
        return events
