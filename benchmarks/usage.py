"""What a command and the processes under it take: time, and memory at their peak together."""

from __future__ import annotations

import os
import resource
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.workloads import ROOT

EACH = 0.25  # seconds between two looks at the memory


@dataclass(frozen=True)
class Usage:
    """One run of a command.

    Attributes:
        wall: Seconds.
        cpu: Seconds of user and system time of all its processes.
        memory: Bytes of all its processes at their peak, pages they share counted once; None where the
            system does not tell.
        output: What it printed on standard output.
    """

    wall: float
    cpu: float
    memory: int | None
    output: str


def run(words: Sequence[str], environment: Mapping[str, str]) -> Usage:
    """Run a command to its end."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak: list[int] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(EACH):
            found = memory_of(process.pid)
            if found is not None:
                peak[:] = [max([found, *peak])]

    watcher = threading.Thread(target=look)
    watcher.start()
    output, errors = process.communicate()
    ended.set()
    watcher.join()
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(words)}: exit code {process.returncode}\n{errors}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Usage(wall, cpu, peak[0] if peak else None, output)


def memory_of(process: int) -> int | None:
    """Bytes of a process and those under it: Pss, in which each shared page counts once in all."""
    total = 0
    for pid in [process, *_under(process)]:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            if pid == process:
                return None  # it has ended, or there is no /proc
            continue
        total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    return total


def _under(process: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = [int(word) for word in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *_under(child)]
    return found
