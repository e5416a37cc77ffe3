"""`tscope record --fork-at`: a run, and runs of the same command that part from it."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tscope_format.amendment import amend
from tscope_format.dtypes import JSON
from tscope_format.errors import RecordError, TscopeError, clean

from tscope.record.child import exit_code
from tscope.record.fork import Fork, Forks
from tscope.record.options import RecordOptions, check_out, default_out
from tscope.record.outcome import account, counted
from tscope.record.recorder import run, say, tell

if TYPE_CHECKING:
    from tscope.record.fork_verdict import Verdict
    from tscope.trace import Trace

Place = tuple[int, int]  # step and seed

FAILED = 1  # the command ended well, and a fork is none


def record_forks(command: Sequence[str], options: RecordOptions, forks: Forks) -> int:
    """Record `command`, and once more for each fork, with its random generators reseeded at a step.

    Only the forks are changed, and only from their step on; the first run is recorded as any other.

    Args:
        command: The program and its arguments.
        options: How to record.
        forks: Where to part, and with which seeds.

    Returns:
        The first exit code of the command other than 0, after which no further run is started; else 1 if a
        fork turned out to be none (the script ignores the reseeding, does not repeat itself, or ends before
        it), and 0 if all are.

    Raises:
        RecordError: Nothing was started: as of `record`, for any of the traces.
    """
    if not command:
        raise RecordError("no command: tscope record --fork-at STEP [options] -- python train.py …")
    forks.check(options.every, updates=options.updates)
    base = options.out or default_out(command, time.time())
    outs = forks.outs(base)
    for out in (base, *outs.values()):
        check_out(out, force=options.force)
    options = dataclasses.replace(options, out=base)
    code, outcome = run(command, options, base)
    tell(outcome, account(outcome, command, code), options)
    if code or outcome.path is None or outcome.failure is not None:
        say(f"no fork was run, since the run to part from {'failed' if code else 'was not recorded'}")
        return exit_code(code) or FAILED
    return _forked(command, options, forks, base, outs)


def _forked(
    command: Sequence[str], options: RecordOptions, forks: Forks, base: Path, outs: Mapping[Place, Path]
) -> int:
    """Record the forks of a run that is recorded, and return the exit code."""
    try:
        end = int(_net(base).steps[-1])
    except TscopeError as error:
        say(f"no fork was run: {error}")
        return FAILED
    found: list[dict[str, JSON]] = []
    for number, ((step, seed), out) in enumerate(outs.items()):
        what = f"fork at step {step}, seed {seed}"
        if step >= end:
            where = "is the last of the run" if step == end else f"is beyond the run's last step, {end}"
            say(f"{what}: never reached: step {step} {where}; take an earlier one for `--fork-at`")
            continue
        fork = Fork(step, seed, forks.generators, base.name, _id(base))
        code, judged = _one(command, options, fork, base, out)
        if judged is None:
            say(f"{what}: no trace that could be compared with that of {clean(base.name)}")
        elif not (judged.verified and options.quiet):
            say(f"{what}: {judged.text}")
        if judged is not None and judged.verified:
            found.append({"trace": out.name, "step": step, "seed": seed, "same_until": judged.same_until})
            _note(base, {"forks": found}, durable=options.durable)
        if code:
            if left := len(outs) - number - 1:
                say(f"{counted(left, 'fork')} not run, since this one failed")
            return exit_code(code)
    if found and not options.quiet:
        say(f"next: tscope forks {clean(shlex.quote(str(base)))} --compute")
    return 0 if len(found) == len(outs) else FAILED


def _one(
    command: Sequence[str], options: RecordOptions, fork: Fork, base: Path, out: Path
) -> tuple[int, Verdict | None]:
    """Record one fork; return its code, and what came of it (None: it has no trace that could tell)."""
    name = None if options.name is None else f"{options.name}, fork at {fork.step}, seed {fork.seed}"
    options = dataclasses.replace(options, out=out, name=name, fork=fork)
    code, outcome = run(command, options, out)
    tell(outcome, account(outcome, command, code), options)
    if outcome.path is None:
        return code, None
    # Only now: torch and the reading of traces are not needed before a run has ended.
    from tscope.record.fork_comparison import parting
    from tscope.record.fork_verdict import verdict

    try:
        theirs = _net(out)
        reseeded = theirs.facts["fork"].get("reseeded")
        judged = verdict(fork, clean(base.name), parting(_net(base), theirs, fork.step), reseeded)
    except TscopeError as error:
        say(f"{clean(out.name)} cannot be compared with {clean(base.name)}: {error}")
        return code, None
    _note(out, {"fork": judged.facts}, durable=options.durable)
    return code, judged


def _note(path: Path, facts: Mapping[str, JSON], *, durable: bool) -> None:
    """Add to what a finished trace says of its run; that this fails is no reason to lose the other runs."""
    try:
        amend(path, facts, durable=durable)
    except RecordError as error:
        say(str(error))


def _net(path: Path) -> Trace:
    """Return the first network of a trace.

    Raises:
        TscopeError: There is none, or the trace cannot be read.
    """
    from tscope.trace import open as open_trace

    trace = open_trace(path)
    for name in trace.roots:
        if (found := trace.root(name)).kind == "net":
            return found
    raise RecordError(
        f"{clean(path)} holds ensembles of trees only, which take no optimizer steps to fork at"
    )


def _id(path: Path) -> str:
    return str(_net(path).facts["id"])
