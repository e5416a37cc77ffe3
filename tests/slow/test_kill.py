"""kill -9, at any moment, of the script or of the recorder.

TSCOPE_KILLS is the number of trials of each kind.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tscope_format import MissingDataError, RootReader, open_trace, verify

import tscope

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("TSCOPE_KILLS", "50"))
AT_ONCE = 2
STEPS = 1500
SCRIPT = Path(__file__).with_name("kill_script.py")
ENTRY = struct.Struct("<dq")
COMMIT = 2.0  # seconds between two commits
SLACK = 1.0  # for a machine that is busy with the other trials


def environment(folder: Path) -> dict[str, str]:
    # A folder of its own for what a killed recorder leaves behind.
    return {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}


# Forward-mode differentiation is one for the whole process.
ANALYSES = threading.Lock()


@dataclass(frozen=True)
class Bare:
    """The run without a recorder: θ after each step, and how it ends."""

    states: np.ndarray
    final: bytes


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    folder = tmp_path_factory.mktemp("bare")
    arguments = [str(folder / "log"), str(folder / "final"), str(STEPS), str(folder / "states")]
    subprocess.run([sys.executable, str(SCRIPT), *arguments], env=environment(folder), check=True)
    states = np.fromfile(folder / "states", np.uint32).reshape(STEPS + 1, -1)
    return Bare(states, (folder / "final").read_bytes())


class Trial:
    """One recording, until it is killed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.log, self.final, self.trace = folder / "log", folder / "final", folder / "t.zarr"
        record = [sys.executable, "-m", "tscope_cli", "record", "-o", str(self.trace), "--quiet", "--"]
        script = [sys.executable, str(SCRIPT), str(self.log), str(self.final), str(STEPS)]
        self.recorder = subprocess.Popen(
            [*record, *script],
            env=environment(folder),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def entries(self) -> list[tuple[float, int]]:
        """Return, for each step that the script made, when, and how many frames waited to be sent."""
        data = self.log.read_bytes() if self.log.exists() else b""
        return list(ENTRY.iter_unpack(data[: len(data) // ENTRY.size * ENTRY.size]))

    def await_step(self, step: int) -> None:
        while len(self.entries()) < step and self.recorder.poll() is None:
            time.sleep(0.005)

    def processes(self) -> list[int]:
        """Return the ids of the processes that the recorder started."""
        found: list[int] = []
        for thread in Path(f"/proc/{self.recorder.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
                found += [int(child) for child in (thread / "children").read_text().split()]
        return found

    def script(self) -> int:
        """Return the script's process id."""
        return next(p for p in self.processes() if str(SCRIPT) in Path(f"/proc/{p}/cmdline").read_text())


def alive(process: int) -> bool:
    """Return whether a process is neither gone nor only waiting for its exit code to be read."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def check(trace: Path, bare: Bare) -> RootReader:
    """Open, verify and analyse a trace, and compare every row with the bare run's."""
    report = verify(trace)
    assert report.ok, report.problems
    root = open_trace(trace).root()
    steps = root.read("step")
    assert steps.tolist() == list(range(root.rows))
    for start, block in root.theta_blocks():
        found = np.ascontiguousarray(block["float32"]).view(np.uint32)
        assert (found == bare.states[start : start + len(found)]).all()
    try:
        with ANALYSES:
            tscope.analyze(trace, "telescoping")
    except MissingDataError:
        # Killed before the model, or a probe set, was there.
        assert root.program() is None or not root.probes or "probe/heldout/output" not in root.arrays()
    return root


def kill_script(folder: Path, seed: int, bare: Bare) -> None:
    trial = Trial(folder)
    trial.await_step(random.Random(seed).randrange(1, STEPS))
    os.kill(trial.script(), signal.SIGKILL)
    assert trial.recorder.wait(timeout=60) == 128 + signal.SIGKILL
    entries = trial.entries()
    if not trial.trace.exists():
        # Killed while its very first frames waited.
        assert len(entries) <= entries[-1][1] + 2
        return
    root = check(trial.trace, bare)
    assert open_trace(trial.trace).status == "interrupted"
    # Lost: what waited after the last step that was logged, the frame on its way, and a step not logged yet.
    lost = len(entries) - (root.rows - 1)
    assert lost <= max(entries[-1][1], 0) + 2


def kill_recorder(folder: Path, seed: int, bare: Bare) -> None:
    trial = Trial(folder)
    trial.await_step(random.Random(seed).randrange(1, STEPS - 50))
    started = trial.processes()
    killed = time.time()
    trial.recorder.kill()
    trial.recorder.wait(timeout=60)
    deadline = time.monotonic() + 120
    # What projects ends by itself too: at the lowest priority, it would else be there until the last trial.
    while not trial.final.exists() or any(alive(process) for process in started):
        assert time.monotonic() < deadline, "the script or what projects did not come to its end"
        time.sleep(0.02)
    assert trial.final.read_bytes() == bare.final
    entries = trial.entries()
    assert len(entries) == STEPS
    old = sum(when < killed - COMMIT - SLACK for when, _ in entries)
    if not trial.trace.exists() or not open_trace(trial.trace).roots:
        assert old == 0
        return
    root = check(trial.trace, bare)
    assert open_trace(trial.trace).status == "recording"
    assert root.rows - 1 >= old


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kill", [kill_script, kill_recorder], ids=["script", "recorder"])
def test_no_kill_damages_what_was_committed(
    tmp_path: Path, bare: Bare, kill: Callable[[Path, int, Bare], None]
) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        trials = [pool.submit(kill, tmp_path / f"{seed}", seed, bare) for seed in range(KILLS)]
        for trial in trials:
            trial.result()
