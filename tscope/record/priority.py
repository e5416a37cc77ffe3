"""Priorities of the recorder's work: the run first, then what it may have to wait for, then projections."""

from __future__ import annotations

import contextlib
import os
import threading

_BELOW_THE_RUN = 5
_LOWEST = 19


def lower_priority() -> None:
    """Put the calling thread (only it, on Linux) below the run, which may have to wait for it."""
    _raise_niceness(_BELOW_THE_RUN)


def lowest_priority() -> None:
    """Give the calling thread what time nobody else wants.

    On Linux a core that only does such work counts as idle: threads of the run and the recorder that wake up
    go there, instead of sharing one with each other. A high niceness alone does not do that.
    """
    _raise_niceness(_LOWEST)
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def end_lowest_priority(process: int) -> None:
    """Let a process take part again, at its niceness: the run is over, and it is in nobody's way."""
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(process, os.SCHED_OTHER, os.sched_param(0))


def _raise_niceness(niceness: int) -> None:
    thread = threading.get_native_id()
    with contextlib.suppress(OSError):
        if os.getpriority(os.PRIO_PROCESS, thread) < niceness:
            os.setpriority(os.PRIO_PROCESS, thread, niceness)
