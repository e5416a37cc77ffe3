"""`tscope record`: run a training script, unmodified, and record it as a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def record(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- COMMAND...", help="What to run, as always.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="OUT", help="The trace to write. [default: runs/<script>-<time>.zarr]"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the trace if there is one.")] = False,
    every: Annotated[int, typer.Option(metavar="K", help="Record every K-th step only.")] = 1,
    probe: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.npz|module:function|none",
            help="Rows to follow the predictions on: arrays x (or x0, x1, …) and y; none leaves that to "
            "replay. [default: held-out rows]",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which output to follow when the model returns several."),
    ] = None,
    outputs: Annotated[
        str, typer.Option(metavar="none|all|BYTES", help="Record batch outputs up to so many bytes a step.")
    ] = "1M",
    probe_output: Annotated[
        str | None,
        typer.Option(
            metavar="full|logprob|loss|INDEX", help="What to follow of the output. [default: by its size]"
        ),
    ] = None,
    max_examples: Annotated[
        int, typer.Option(metavar="N", help="Identify at most N different training rows.")
    ] = 100_000,
    updates: Annotated[
        str,
        typer.Option(
            metavar="all|none",
            help="Keep the parameters at every row; none: at a few, for models too large for more.",
        ),
    ] = "all",
    sketch: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Sketch the probe set's tangent kernel in K columns while the run goes on.",
        ),
    ] = None,
    fork_at: Annotated[
        str | None,
        typer.Option(
            metavar="STEP,…",
            help="Record once more for each step and seed, with random generators reseeded after the step.",
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="SEED,…", help="What to reseed with at --fork-at. [default: 1]")
    ] = None,
    reseed_generators: Annotated[
        bool,
        typer.Option(
            "--reseed-generators",
            help="At --fork-at, reseed generators that the script made itself, too.",
        ),
    ] = False,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="A name for the run.")] = None,
    durable: Annotated[bool, typer.Option("--durable", help="Survive a power cut: fsync commits.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> int:
    """Run a training script, unmodified, and record it as a trace.

    The exit code is the command's own.

    Example: tscope record -- python train.py --lr 0.1
    """
    from tscope_format.errors import RecordError

    from tscope.record import RecordOptions
    from tscope.record import record as run
    from tscope.record.options import parse_outputs, parse_updates

    options = RecordOptions(
        out=out,
        force=force,
        every=every,
        probe=probe,
        output=output,
        outputs=parse_outputs(outputs),
        probe_output=probe_output,
        max_examples=max_examples,
        updates=parse_updates(updates),
        sketch=sketch,
        name=name,
        durable=durable,
        quiet=quiet,
    )
    if fork_at is not None:
        from tscope.record.fork import Forks, parse_numbers
        from tscope.record.fork_runs import record_forks

        forks = Forks(
            parse_numbers("--fork-at", fork_at), parse_numbers("--seeds", seeds or "1"), reseed_generators
        )
        return record_forks(command or [], options, forks)
    if seeds is not None or reseed_generators:
        given = "--seeds" if seeds is not None else "--reseed-generators"
        raise RecordError(f"{given} is of forks: give --fork-at STEP, or leave it out")
    return run(command or [], options)
