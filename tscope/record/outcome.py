"""What became of a recording, and the lines that say so."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tscope_format.errors import clean

CUT = (
    "the recorder lost the script before its end (it closed the connection, or ended by os._exit or exec): "
    "the last steps may be missing"
)
_BYPASSING = frozenset("IES")  # options of python that keep it from loading the bootstrap


@dataclass
class Outcome:
    """What became of a recording.

    Attributes:
        path: The trace, None if nothing was recorded.
        failure: Why recording stopped before the run did.
        cut: Whether a process that trained left without a word, so that its last steps may be missing.
        models: Number of models that were recorded.
        programs: How many of them as data.
        steps: Steps recorded, over all roots.
        rows: Rows recorded, over all roots, without those before training.
        projected: Rows of them that were projected.
        probes: The probe sets that were followed.
        updates: Whether the parameters were kept at every row.
        columns: Of sketches; None if none were asked for.
        sketched: Rows that were sketched.
        unsketched: Rows that should have been.
        seconds: From the first model's start to its last step.
        hook_seconds: Time that the run spent in the observer's hooks.
        wait_seconds: Time of them that the run waited for the recorder.
        written: Bytes on disk.
        raw: Bytes recorded, uncompressed.
        hello: Whether a Python of the run loaded the bootstrap.
        torch: Whether it imported torch.
        trees: Whether it imported a library that fits ensembles of trees.
        refused: The first thing that was left out of the recording, and why.
    """

    path: Path | None = None
    failure: str | None = None
    cut: bool = False
    models: int = 0
    programs: int = 0
    steps: int = 0
    rows: int = 0
    projected: int = 0
    probes: list[str] = field(default_factory=list)
    updates: bool = True
    columns: int | None = None
    sketched: int = 0
    unsketched: int = 0
    seconds: float = 0.0
    hook_seconds: float = 0.0
    wait_seconds: float = 0.0
    written: int = 0
    raw: int = 0
    hello: bool = False
    torch: bool = False
    trees: bool = False
    refused: str | None = None

    @property
    def share(self) -> float:
        """The recorder's share of the run: time in hooks over time from the first to the last step."""
        # The first hooks ran before the first row was there: of a run of few steps they are most.
        return self.hook_seconds / max(self.seconds, self.hook_seconds) if self.hook_seconds > 0 else 0.0

    @property
    def skipped(self) -> int:
        """Recorded rows without a projection."""
        # The row before training is projected too, and is not one of the recorded steps.
        return self.rows - min(self.projected - 1, self.rows) if self.projected else self.rows


def lines(outcome: Outcome, command: Sequence[str], code: int) -> list[str]:
    """Return what the person is told at the end, each on a line of its own, with what to do next.

    Args:
        outcome: What became of the recording.
        command: What was run.
        code: How it ended, as `subprocess` reports it: negative for a signal.
    """
    said = account(outcome, command, code)
    if outcome.path is None or not outcome.rows:
        return said  # the state before training alone gives nothing to analyse
    return [*said, f"next: tscope {_next(outcome, shlex.quote(clean(outcome.path)))}"]


def _next(outcome: Outcome, path: str) -> str:
    """Return the command that makes most sense now; without updates there is nothing to replay."""
    if outcome.updates or outcome.projected:
        return f"analyze {path} --metric telescoping{_more(outcome)}"
    return f"analyze {path} --metric kernel" if outcome.sketched else f"browse {path}"


def account(outcome: Outcome, command: Sequence[str], code: int) -> list[str]:
    """Return what happened, for `lines` and for one run of several."""
    said = [] if code == 0 else [f"the script {ending(code)}"]
    if outcome.path is None:
        reason = outcome.failure or _why_nothing(outcome, command)
        return [*said, f"nothing was recorded: {reason}"]
    if outcome.failure is not None:
        said.append(f"recording stopped before the run did: {outcome.failure}")
    elif outcome.cut and code == 0:
        said.append(CUT)
    return [*said, f"{_figures(outcome)} → {clean(outcome.path)}"]


def _more(outcome: Outcome) -> str:
    """Return what the analysis of this trace cannot do without."""
    more = "" if outcome.probes else " --probe FILE.npz"
    if outcome.models and not outcome.programs:
        return f"{more} --model MODULE:FACTORY"
    # A sum over few long intervals would say more of the recorder than of the run.
    coarse = outcome.probes and outcome.projected and 2 * outcome.skipped > outcome.rows
    coarse = coarse and outcome.updates  # without them there is nothing to replay
    return " --replay" if coarse else more


def ending(code: int) -> str:
    """Return how a process with this return code ended."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}"


def size_text(count: float) -> str:
    """Return a number of bytes as a person reads it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def counted(number: int, what: str) -> str:
    """Return `1 step`, `1,000 steps`."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _figures(outcome: Outcome) -> str:
    ratio = outcome.raw / outcome.written if outcome.written else 1.0
    # After a failure `raw` counts what did not reach the disk; of a tiny run there is nothing to boast of.
    smaller = f", {ratio:.1f}× smaller than raw" if ratio > 1 and outcome.failure is None else ""
    parts = [
        counted(outcome.steps, "step") + (f" of {outcome.models} models" if outcome.models > 1 else ""),
        f"{size_text(outcome.written)}{smaller}",
        f"recorder {outcome.share:.1%} of the run",
        f"run waited {outcome.wait_seconds:.2f} s",
        _projections(outcome),
        *_sketches(outcome),
    ]
    return ", ".join(parts)


def _projections(outcome: Outcome) -> str:
    if not outcome.probes or not outcome.projected:
        return "no projections"
    done = outcome.rows - outcome.skipped
    filled = " (analyze --replay fills them)" if outcome.updates else ""
    rest = f", {outcome.skipped:,} skipped{filled}" if outcome.skipped else ""
    return f"{counted(done, 'row')} projected on {' and '.join(map(clean, outcome.probes))}{rest}"


def _sketches(outcome: Outcome) -> list[str]:
    """Return what became of the sketches, where they were asked for and there is a network."""
    if outcome.columns is None or not outcome.sketched + outcome.unsketched:
        return []
    if not outcome.sketched:
        return ["no sketches"]
    rest = f", {outcome.unsketched:,} skipped" if outcome.unsketched else ""
    return [f"{counted(outcome.sketched, 'row')} sketched in {outcome.columns:,} columns{rest}"]


def _why_nothing(outcome: Outcome, command: Sequence[str]) -> str:
    """Return how far the script got, which tells what to do about it."""
    if outcome.refused is not None:
        return outcome.refused
    if outcome.trees and not outcome.torch:
        return "a library of tree ensembles was imported, but none was fitted"
    if outcome.torch:
        return "torch was imported, but no optimizer made a step"
    if outcome.hello:
        return "Python started, but torch was never imported"
    options = next((word for word in command[1:] if _bypasses(word)), None)
    if options is not None and "python" in os.path.basename(command[0]):
        return f"python {clean(options)} ignores the recorder's bootstrap (-I, -E and -S do); leave it out"
    return (
        "no Python loaded the recorder's bootstrap: the command runs none, or one with -I, -E, -S or a "
        "cleared environment"
    )


def _bypasses(word: str) -> bool:
    return word.startswith("-") and not word.startswith("--") and bool(_BYPASSING & set(word[1:]))
