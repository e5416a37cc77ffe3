"""Numbers as people read them: sizes, durations, counts, and a fixed count of significant digits."""

from __future__ import annotations

import math


def significant(value: float, digits: int = 4) -> str:
    """Return `value` with `digits` significant digits: 0.04213, 12.35, 1.235e-06."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value == 0:
        return "0"
    if 1e-4 <= abs(value) < 10 ** max(digits, 6):
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:.{decimals}f}"
    return f"{value:.{digits - 1}e}"


def size(count: float) -> str:
    """Return a number of bytes in decimal units: 512 B, 1.8 kB, 32.7 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} PB"


def duration(seconds: float) -> str:
    """Return a time span in its two largest units: 3.2 s, 4 min 10 s, 2 h 5 min, 3 d 4 h."""
    if not math.isfinite(seconds) or seconds < 0:
        return "-"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, below, span, part in (("min", "s", 60, 1), ("h", "min", 3600, 60), ("d", "h", 86400, 3600)):
        if whole < span * (24 if unit == "h" else 60) or unit == "d":
            rest = whole % span // part
            return f"{whole // span} {unit} {rest} {below}" if rest else f"{whole // span} {unit}"
    raise AssertionError("the last unit takes everything")


def count(number: int) -> str:
    """Return an integer with thousands separated: 157,410."""
    return f"{number:,}"


def percent(share: float) -> str:
    """Return a share as a percentage: 0.62 %, 4.3 %, 99.4 %, 100 %."""
    if not math.isfinite(share):
        return "-"
    value = 100 * share
    decimals = 0 if abs(value) >= 99.95 or value == 0 else 1 if abs(value) >= 0.995 else 2
    return f"{value:.{decimals}f} %"


def plural(number: int, noun: str) -> str:
    """Return the number with its noun: 1 step, 1,000 steps."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
