"""What `tscope record` is asked to do, checked before the command is started."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tscope_format.errors import RecordError, clean

from tscope.record.fork import Fork

LARGEST_OUTPUT = 1 << 20  # bytes a step of outputs and output gradients, see design.md §3
COLUMNS = (16, 65_536)  # of sketches: an error of about 1/4, and of 1/256
NO_PROBE = "none"  # as `--probe none`; a file of that name is `./none`
_SUFFIXES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class RecordOptions:
    """How to record.

    Attributes:
        out: The trace to write; None is `runs/<script>-<YYYYmmdd-HHMMSS>.zarr`.
        force: Replace the trace if there is one.
        every: Record every K-th step only (the last one always).
        probe: An `.npz` file or `module:function` with the rows to follow; None lets the recorder choose, and
            "none" follows none: no projections while the run goes on (replay makes them later).
        output: Path of the model's output to follow when it returns several ("logits", "0").
        outputs: Bytes a step up to which outputs and their gradients are recorded; 0 none, -1 all.
        probe_output: "full", "logprob", "loss", the index of one output, or None for a choice by size.
        max_examples: Input rows beyond this many different ones are not identified.
        name: A name for the run, shown beside its path.
        updates: Keep the parameters at every row; otherwise at the first, at powers of two, and at the last.
        fork: Where this run parts from one that was recorded before; None: it is changed in nothing.
        sketch: Columns of the sketches of the probe sets' Jacobians; None: none are taken.
        durable: fsync every commit.
        quiet: Say nothing but errors.
    """

    out: Path | None = None
    force: bool = False
    every: int = 1
    probe: str | None = None
    output: str | None = None
    outputs: int = LARGEST_OUTPUT
    probe_output: str | None = None
    max_examples: int = 100_000
    name: str | None = None
    updates: bool = True
    sketch: int | None = None
    fork: Fork | None = None
    durable: bool = False
    quiet: bool = False

    @property
    def follows(self) -> bool:
        """Whether predictions are followed on a probe set while the run goes on."""
        return self.probe != NO_PROBE

    def __post_init__(self) -> None:
        if self.every < 1:
            raise RecordError(f"--every must be at least 1, got {self.every}")
        if self.max_examples < 0:
            raise RecordError(f"--max-examples must not be negative, got {self.max_examples}")
        if self.outputs < -1:
            raise RecordError(f"--outputs must be none, all or a number of bytes, got {self.outputs}")
        if self.probe_output is not None and not re.fullmatch(r"full|logprob|loss|\d+", self.probe_output):
            raise RecordError(
                "--probe-output must be full, logprob, loss or the index of one output, got "
                f"{clean(self.probe_output)!r}"
            )
        if self.sketch is not None:
            self._check_sketch(self.sketch)

    def _check_sketch(self, columns: int) -> None:
        low, high = COLUMNS
        if not low <= columns <= high:
            raise RecordError(f"--sketch must be {low} to {high} columns, got {columns}")
        if not self.follows:
            raise RecordError("--sketch sketches the probe set, and --probe none takes none: leave one out")
        if self.probe_output in ("logprob", "loss"):
            raise RecordError(
                f"--sketch is of the model's outputs, not of their {self.probe_output}: --probe-output must "
                "be full or the index of one output"
            )


def parse_updates(text: str) -> bool:
    """Return whether updates are kept: `all` or `none`."""
    if text not in ("all", "none"):
        raise RecordError(f"--updates must be all or none, got {clean(text)!r}")
    return text == "all"


def parse_outputs(text: str) -> int:
    """Return the bytes meant by `none`, `all`, or a number with an optional K, M or G behind it."""
    if text in ("none", "all"):
        return 0 if text == "none" else -1
    match = re.fullmatch(r"(\d+)([KMG]?)", text.upper())
    if match is None:
        raise RecordError(f"--outputs must be none, all or a number of bytes such as 4M, got {clean(text)!r}")
    return int(match[1]) * _SUFFIXES.get(match[2], 1)


def default_out(command: Sequence[str], now: float) -> Path:
    """Return `runs/<script>-<YYYYmmdd-HHMMSS>.zarr`, named after the script within `command`."""
    name = re.sub(r"[^\w.-]+", "_", script_name(command)).strip("._-") or "run"
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}.zarr"


def script_name(command: Sequence[str]) -> str:
    """Return what a person would call this command: the script, the module after -m, else the program."""
    for position, argument in enumerate(command):
        if argument.endswith((".py", ".sh")):
            return Path(argument).stem
        if argument == "-m" and position + 1 < len(command):
            return command[position + 1].rpartition(".")[2]
    return Path(command[0]).stem


def check_out(out: Path, *, force: bool) -> None:
    """Refuse an output that exists, or that could not be written, before anything is started.

    Raises:
        RecordError: There is something at `out` (with `force`: something that is not a trace), or its folder
            cannot be written.
    """
    if out.exists() or out.is_symlink():
        if not force:
            raise RecordError(f"{clean(out)} exists already; give another -o, or --force to replace it")
        # The writer's own check; it loads numpy, which a recording otherwise does while the command starts.
        from tscope_format import is_trace

        if not is_trace(out):
            raise RecordError(f"{clean(out)} is not a trace, so --force does not replace it; give another -o")
    folder = out.absolute().parent
    for parent in out.absolute().parents:
        if (parent / "zarr.json").exists():
            raise RecordError(f"{clean(out)} would be inside the trace {clean(parent)}; give another -o")
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise RecordError(f"{clean(out)} cannot be written: {clean(folder)} is not a folder")
    # Asked by doing it: permission bits say nothing on a read-only or full file system.
    trial = folder / f".tscope-{os.getpid()}"
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError as error:
        raise RecordError(
            f"{clean(out)} cannot be written: {clean(error.strerror)} in {clean(folder)}"
        ) from error
