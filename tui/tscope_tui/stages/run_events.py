"""The pane of the events: what they are, and what would tell more of them."""

from __future__ import annotations

import shlex

from tscope_tui.data.run import RunData
from tscope_tui.data.saved_events import METRIC
from tscope_tui.panes.events import EventsPane


def events_pane(data: RunData, *, loaded: bool) -> EventsPane:
    """Return the pane.

    Args:
        data: The run.
        loaded: Whether saved results have been looked for.
    """
    if not loaded or data.problems or data.steps is None:
        return EventsPane(data.events, reason="" if data.problems else "reading …")
    if data.found is None:
        quick = any(event.source == "quick" for event in data.events)
        told = "~ quick rules; a here looks for all" if quick else "a here looks for more"
        command = f"tscope analyze {shlex.quote(str(data.path))} --metric {METRIC}"
        return EventsPane(data.events, told, reason=f"none by quick rules, or: {command}")
    if data.stale:
        return EventsPane(data.events, f"{data.stale}: a here looks again", warns=True)
    return EventsPane(data.events, reason="nothing stands out in what was looked at (r: its notes)")
