"""`tscope record`: run a command, and record what its training does, without being part of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tscope_format.errors import RecordError, clean

from tscope.record.child import Child, exit_code, signals
from tscope.record.ingest import Ingest, Status
from tscope.record.options import RecordOptions, check_out, default_out
from tscope.record.outcome import Outcome, ending, lines
from tscope.record.session import open_session

if TYPE_CHECKING:
    from tscope.record.probe_source import ProbeArrays

# 128 + n: a shell in between (bash run.sh) reports the signal that ended its own child so.
_SIGNALLED = frozenset({129, 130, 131, 137, 138, 140, 143})


def record(command: Sequence[str], options: RecordOptions | None = None) -> int:
    """Run `command` and record its training.

    Args:
        command: The program and its arguments.
        options: How to record.

    Returns:
        The command's exit code, 128 + n if a signal n ended it: recording never changes it.

    Raises:
        RecordError: The command was not started: there is none, the output exists or cannot be written, the
            probe set is unusable. A `StartError` if the command cannot be executed.
    """
    options = options or RecordOptions()
    if not command:
        raise RecordError("no command: tscope record [options] -- python train.py …")
    out = options.out or default_out(command, time.time())
    check_out(out, force=options.force)
    code, outcome = run(command, options, out)
    tell(outcome, lines(outcome, command, code), options)
    return exit_code(code)


def run(command: Sequence[str], options: RecordOptions, out: Path) -> tuple[int, Outcome]:
    """Run `command`, recording it in `out`; return its code (negative for a signal) and what became of it."""
    child = Child()
    with signals(child), open_session(options) as session:
        probe = _probe(options.probe, command, session.folder) if options.follows else None
        child.start(command, session.environment)
        ingest = Ingest(
            session,
            out,
            options,
            probe=probe,
            command=command,
            pid=child.pid,
            say=_nothing if options.quiet else say,
        )
        ingest.start()
        code = child.wait()
        return code, ingest.finish(*_status(code))


def tell(outcome: Outcome, said: Sequence[str], options: RecordOptions) -> None:
    """Say the lines of a recording that has ended."""
    if not options.quiet or outcome.failure is not None:
        for line in said:
            say(line)


def say(text: str) -> None:
    """Tell the person something: on stderr, prefixed, on one line; stdout is the command's."""
    try:
        sys.stderr.write(f"tscope: {clean(text)}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # the terminal is gone, or stderr closed: the recording goes on


def _nothing(text: str) -> None:
    """Say nothing (`--quiet`); failures of the recording are said at the end."""


def _probe(spec: str | None, command: Sequence[str], folder: Path) -> ProbeArrays | None:
    """Load the probe set that the person named."""
    if spec is None:
        return None
    # numpy is needed only now: a recording without a probe set starts the command at once.
    from tscope.record.probe_source import is_function, load_file, load_function

    return load_function(spec, command, folder) if is_function(spec) else load_file(Path(spec))


def _status(code: int) -> tuple[Status, str | None]:
    """Return the status of a trace whose command ended with `code`, and the reason."""
    if code == 0:
        return "complete", None
    kind: Literal["interrupted", "failed"] = "interrupted" if code < 0 or code in _SIGNALLED else "failed"
    return kind, f"the script {ending(code)}"
