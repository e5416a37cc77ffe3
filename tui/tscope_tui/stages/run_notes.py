"""What a status line says of a saved result: beside its values, how many notes it has."""

from __future__ import annotations

from collections.abc import Sequence

from tscope_tui.spans import Span


def status(text: str, notes: Sequence[str], warning: str = "") -> list[Span]:
    """Return a status line, with how many notes the result has and the key that shows them.

    Args:
        text: What is known of the view.
        notes: The result's notes.
        warning: What stands before their number.
    """
    count = f" · {len(notes)} note{'' if len(notes) == 1 else 's'} (r)" if notes else ""
    return [Span(text, "dim"), Span(warning + count, "warn")]
