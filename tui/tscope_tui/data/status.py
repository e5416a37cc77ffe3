"""The state a run is in, told from its commit record."""

from __future__ import annotations

from enum import Enum

# The recorder commits every 2 s while rows arrive. Without a commit for this long the run, or its recorder,
# is stuck or gone; slow steps get ten times their own length.
STALLED_SECONDS = 30.0


class State(Enum):
    """The state of a run, as shown and as filtered by (`state:live`)."""

    LIVE = "live"
    STALLED = "stalled"
    DONE = "done"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    BAD = "BAD"

    @property
    def tone(self) -> str:
        """The tone it is shown in."""
        return {"live": "good", "done": "text", "BAD": "bad", "failed": "bad"}.get(self.value, "warn")


def state_of(status: str, silent: float, seconds_per_row: float = 0.0) -> State:
    """Return the state of a readable trace.

    Args:
        status: The status in its commit record.
        silent: Seconds since the last commit.
        seconds_per_row: The mean time of a row so far.
    """
    if status == "recording":
        return State.LIVE if silent < max(STALLED_SECONDS, 10 * seconds_per_row) else State.STALLED
    return {"complete": State.DONE, "interrupted": State.INTERRUPTED}.get(status, State.FAILED)


def age(seconds: float) -> str:
    """Return a span of time in at most four characters: `now`, `45s`, `12m`, `5h`, `3d`."""
    if seconds < 5:
        return "now"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def size(count: float) -> str:
    """Return a number of bytes in at most five characters: `812B`, `4.1K`, `96M`."""
    if count < 1000:
        return f"{int(count)}B"
    for unit in "KMGT":
        count /= 1024
        if count < 999.5:
            return f"{count:.1f}{unit}" if count < 9.95 else f"{count:.0f}{unit}"
    return f"{count / 1024:.0f}P"
