"""CPU time of the commands that a person waits for, on a trace of 100 000 rows."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import pyte
from tscope_format import Row, TraceWriter, table

from benchmarks.report import Section, Table, run_alone

ROWS = 100_000
WIDTH, HEIGHT = 80, 24
LIMIT = 60.0  # seconds until a browser without a frame counts as broken

TEXT = f"""
CPU time (user and system) of the whole process, medians. `info` and `browse` open a trace of {ROWS:,} rows;
for `browse` it is the time until the first frame stood on an {WIDTH}x{HEIGHT} pseudo-terminal with the
trace's name in it, and until its first curve did. *Wall* is what a person waits. Aims: `--help` ≤ 200 ms,
`info` ≤ 400 ms, the first frame of `browse` ≤ 500 ms.
"""


def write_trace(path: Path, rows: int) -> None:
    """A long trace of a tiny model: a loss that falls, θ that walks."""
    rng = np.random.default_rng(0)
    parameters = table([("weight", (4, 3), "float32", (), True), ("bias", (4,), "float32", (), True)])
    theta = rng.normal(size=16).astype(np.float32)
    writer = TraceWriter.create(path, facts={"command": ["python", "train.py"]})
    root = writer.add_root(
        "model",
        parameters=parameters,
        buffers=(),
        groups=1,
        theta={"float32": theta},
        buffer={},
        time=0.0,
        attributes={"class": "Linear"},
    )
    loss = 1.0 / np.sqrt(np.arange(1, rows + 1)) * rng.lognormal(0.0, 0.3, size=rows)
    walk = theta + np.cumsum(rng.normal(0.0, 1e-3, size=(rows, 16)), axis=0).astype(np.float32)
    norms = rng.lognormal(size=(rows, 2)).astype(np.float32)
    lr = np.full(1, 1e-3)
    for k in range(rows):
        root.append(
            Row(
                step=k + 1,
                time=0.003 * (k + 1),
                loss=float(loss[k]),
                lr=lr,
                theta={"float32": walk[k]},
                buffer=None,
                grad_norm=norms[k],
                skipped=False,
                foreign=False,
                micro=(),
            )
        )
        writer.maybe_flush()
    writer.close("complete")


def command(*words: str) -> list[str]:
    """The installed `tscope`, which is what a person types."""
    return [str(Path(sys.executable).with_name("tscope")), *words]


def measure_command(words: Sequence[str]) -> tuple[float, float]:
    """Milliseconds of CPU and of wall time of one run to its end."""
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(words)}: exit code {process.returncode}\n{errors.decode()}")
    return 1e3 * (usage.ru_utime + usage.ru_stime), 1e3 * (time.perf_counter() - start)


def has_curve(text: str) -> bool:
    """Whether a braille curve is drawn: more dots than the border of an empty chart has."""
    return sum("\u2801" <= character <= "\u28ff" for character in text) > 20


def measure_browse(trace: Path) -> dict[str, tuple[float, float]]:
    """Milliseconds of CPU and of wall time until the first frame and until the first curve."""
    words = command("browse", str(trace))
    terminal, other_side = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    start = time.perf_counter()
    process = subprocess.Popen(
        words,
        stdin=other_side,
        stdout=other_side,
        stderr=other_side,
        env=environment,
        start_new_session=True,
    )
    os.close(other_side)
    screen = pyte.Screen(WIDTH, HEIGHT)
    stream = pyte.ByteStream(screen)
    seen: dict[str, tuple[float, float]] = {}
    wanted = {"frame": lambda text: trace.stem in text, "curve": has_curve}
    try:
        while len(seen) < len(wanted):
            if time.perf_counter() - start > LIMIT:
                raise SystemExit("browse drew nothing:\n" + "\n".join(screen.display))
            if select.select([terminal], [], [], 0.5)[0]:
                stream.feed(os.read(terminal, 65536))
            text = "\n".join(screen.display)
            now = (1e3 * cpu_seconds(process.pid), 1e3 * (time.perf_counter() - start))
            seen |= {name: now for name, test in wanted.items() if name not in seen and test(text)}
        os.write(terminal, b"q")
        drain(terminal)
    finally:
        os.close(terminal)  # hangs up a browser that did not quit
        process.wait()
    return seen


def drain(terminal: int) -> None:
    """Read until the process has closed its side."""
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:  # EIO: how Linux says that the other side of a pseudo-terminal is closed
        return


def cpu_seconds(pid: int) -> float:
    """CPU time of a running process, all threads: its CPU clock, numbered as clock_getcpuclockid(3) does."""
    return time.clock_gettime((~pid << 3) | 2)


def measure(quick: bool) -> Section:
    rows, repeats = (2_000, 1) if quick else (ROWS, 7)
    with tempfile.TemporaryDirectory() as name:
        trace = Path(name) / "long-run.zarr"
        write_trace(trace, rows)
        measured: dict[str, list[tuple[float, float]]] = {}
        for _ in range(repeats):
            once = {
                "`tscope --help`": measure_command(command("--help")),
                "`tscope info`": measure_command(command("info", str(trace))),
            }
            browse = measure_browse(trace)
            once["`tscope browse`, first frame"] = browse["frame"]
            once["`tscope browse`, first curve"] = browse["curve"]
            for label, times in once.items():
                measured.setdefault(label, []).append(times)
    cells = [
        [label, *(f"{median(values):.0f} ms" for values in zip(*times, strict=True))]
        for label, times in measured.items()
    ]
    return Section("cli", "How fast commands start", TEXT, [Table("", ["command", "CPU", "wall"], cells)])


if __name__ == "__main__":
    run_alone(measure, __doc__)
