"""The events of the newest saved result of the metric `events`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tscope_format.errors import clean

from tscope_tui.data.events import NAMES, Event, in_order
from tscope_tui.data.saved import saved_results

if TYPE_CHECKING:
    from tscope_format import Result

METRIC = "events"
LETTERS = {NAMES[letter]: letter for letter in "igpKsD"}
"""The letter of each kind of the metric."""

# Metrics whose results the search reads: one that was saved later may tell of more. Telescoping tells of
# held-out examples where the run itself does not.
_READ = ("effective-params", "kernel")
_INSTEAD = "telescoping"
# What a rule of the browser's own looks for, where the metric has another name for it.
_LIKE = {"a": "g"}


@dataclass(frozen=True, eq=False)
class Found:
    """What a saved search found.

    Attributes:
        events: The events.
        seen: The last step that was looked at.
        letters: The kinds that were looked for.
        used: The results that were read: the id by metric.
        options: The options of the search.
        notes: What a reader has to know, such as what could not be looked for; cleaned.
    """

    events: tuple[Event, ...]
    seen: int
    letters: frozenset[str]
    used: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def replaces(self, event: Event) -> bool:
        """Whether an event of a quick rule gives way: its kind was looked for, and up to its step."""
        return _LIKE.get(event.kind, event.kind) in self.letters and event.step <= self.seen

    def among(self, events: Iterable[Event]) -> tuple[Event, ...]:
        """Return the events with these in the place of those of quick rules."""
        diverged = {event.step for event in self.events if event.kind == "D"}
        kept = [
            event
            for event in events
            if not (event.source == "quick" and self.replaces(event))
            and not (event.kind == "!" and event.step in diverged)
        ]
        return in_order([*kept, *self.events])

    def stale(self, path: Path, root: str, last: int) -> str:
        """Return why another search may find more, in words; empty while none would.

        Args:
            path: The trace.
            root: The root that is shown.
            last: Its last step.

        Raises:
            TraceError: The saved results cannot be listed.
            OSError: The same.
        """
        if self.seen < last:
            return f"looked up to step {self.seen:,} of {last:,}"
        for metric in (*_READ, *(() if "g" in self.letters else (_INSTEAD,))):
            results = saved_results(path, metric, root)
            if results and results[-1].id != self.used.get(metric):
                return f"a result of {metric} was saved since"
        return ""


def from_result(result: Result) -> Found:
    """Return the events of a saved result.

    Raises:
        KeyError: It lacks them.
        ValueError: They are not what the metric saves.
    """
    provenance = result.provenance
    definitions = _mapping(provenance.get("definitions"))
    try:
        missing = {entry["event"] for entry in provenance.get("missing") or ()}
        events = [_event(entry, definitions) for entry in provenance["events"]]
    except TypeError as error:
        raise ValueError("its events are not what the metric saves") from error
    seen = result.scalars["steps"]
    if not isinstance(seen, int):
        raise ValueError("its last step is no number")
    return Found(
        in_order(events),
        seen,
        frozenset(letter for name, letter in LETTERS.items() if name not in missing),
        _mapping(provenance.get("results")),
        _mapping(provenance.get("options")),
        tuple(clean(note) for note in result.notes),
    )


def _event(entry: Mapping[str, Any], definitions: Mapping[str, Any]) -> Event:
    kind = entry["kind"]
    return Event(
        int(entry["step"]),
        LETTERS[kind],
        clean(entry["text"]),
        "saved",
        (int(entry["low"]), int(entry["high"])),
        float(entry["confidence"]),
        clean(definitions.get(kind, "")),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
