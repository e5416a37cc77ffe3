"""Why the panes of an analysis are empty, and what would fill them."""

from __future__ import annotations

from collections.abc import Sequence

from tscope_tui.data.run import RunData


def unread(data: RunData, *, loaded: bool = True) -> tuple[str, ...]:
    """Return why it is not known what there is: what cannot be read, or that it is being read; else nothing.

    Args:
        data: The run.
        loaded: Whether what is read after the curves has been looked for.
    """
    if data.problems:
        return data.problems
    return () if loaded and data.steps is not None else ("reading …",)


def absence(data: RunData, what: str, lacks: Sequence[str], command: str, *, loaded: bool) -> tuple[str, ...]:
    """Return the lines that an empty pane shows.

    Args:
        data: The run.
        what: What is not there, in a few words.
        lacks: What the trace lacks for it.
        command: What computes it.
        loaded: Whether saved results have been looked for.
    """
    waiting = unread(data, loaded=loaded)
    if waiting:
        return waiting
    if lacks:
        return (f"this trace cannot give {what}:", *lacks)
    return (f"no {what} {'are' if what.endswith('s') else 'is'} saved", "press a, or run:", command)


def noted(told: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return such lines as facts, for a pane of labels and texts."""
    return tuple(("" if index else "none", text) for index, text in enumerate(told))
