"""How a trace stands, as far as a reader of any result must know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tscope_format.errors import clean

if TYPE_CHECKING:
    from tscope.trace import Trace


def standing(trace: Trace) -> list[str]:
    """Return the notes on a trace that holds more than was analysed, or does not hold all of it yet."""
    found = []
    if len(trace.roots) > 1:
        others = ", ".join(clean(name) for name in trace.roots if name != trace.name)
        found.append(f"this is {clean(trace.name)}; the trace also holds {others} (`--root`)")
    if trace.status == "recording":
        found.append("the run is still being recorded: these are the rows so far")
    return found
