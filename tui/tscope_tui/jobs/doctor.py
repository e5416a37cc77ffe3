"""Verifying traces, one after the other, and the report in lines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from tscope_format.errors import TscopeError, clean

from tscope_tui.spans import Line, Span

_MOST_PROBLEMS = 50


class Cancelled(Exception):
    """The reader asked to stop."""


class Doctor:
    """`tscope_format.verify` on some traces; `run` blocks, `cancel` may be called from any thread."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._stop = threading.Event()

    def cancel(self) -> None:
        """Stop at the next report of progress."""
        self._stop.set()

    def run(self, progress: Callable[[str], None]) -> list[Line]:
        """Verify and return the report."""
        lines: list[Line] = []
        for path in self.paths:
            try:
                lines += self._one(path, progress)
            except Cancelled:
                return [*lines, (Span("cancelled", "warn"),)]
            lines.append(())
        return lines[:-1]

    def _one(self, path: Path, progress: Callable[[str], None]) -> list[Line]:
        from tscope_format import verify

        name = clean(path.name)

        def report(done: float, total: float, what: str = "") -> None:
            if self._stop.is_set():
                raise Cancelled
            progress(f"verifying {name}: {done / max(total, 1):.0%} {clean(what)}")

        try:
            found = verify(path, report)
        except (TscopeError, OSError) as error:
            return [
                (Span(name, "title"), Span("  cannot be read", "bad")),
                (Span(f"  {clean(error)}", "bad"),),
            ]
        verdict = (
            Span("  no problem found", "good")
            if found.ok
            else Span(f"  {len(found.problems)} problems", "bad")
        )
        lines: list[Line] = [(Span(name, "title"), verdict)]
        for problem in found.problems[:_MOST_PROBLEMS]:
            rows = f" rows {problem.rows[0]}–{problem.rows[1] - 1}" if problem.rows else ""
            lines.append(
                (Span(f"  {clean(problem.where)}{rows}: ", "label"), Span(clean(problem.what), "bad"))
            )
        if len(found.problems) > _MOST_PROBLEMS:
            lines.append((Span(f"  and {len(found.problems) - _MOST_PROBLEMS} more", "dim"),))
        counts = {clean(what): count for what, count in dict(found.checked).items()}
        checked = ", ".join(
            f"{count:,} {what.removesuffix('s') if count == 1 else what}" for what, count in counts.items()
        )
        return [*lines, (Span(f"  checked: {checked}", "dim"),)]
