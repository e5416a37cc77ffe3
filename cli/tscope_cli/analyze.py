"""`tscope analyze`: compute a metric, show it, and keep it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tscope_format.errors import UsageError, clean

from tscope_cli.analysis import compute, save, say_unless
from tscope_cli.terminal import out

if TYPE_CHECKING:
    pass


def analyze(
    trace: Annotated[
        Path | None, typer.Argument(metavar="TRACE", help="The trace: a folder, *.zarr.", show_default=False)
    ] = None,
    metric: Annotated[
        str, typer.Option("--metric", "-m", metavar="NAME", help="What to compute; --list shows the choice.")
    ] = "telescoping",
    list_metrics: Annotated[
        bool, typer.Option("--list", "--metrics", help="List the metrics and leave.")
    ] = False,
    root: Annotated[
        str | None, typer.Option(metavar="NAME", help="The recorded model, when there are several.")
    ] = None,
    probe: Annotated[
        str | None, typer.Option(metavar="NAME|FILE.npz", help="A recorded probe set, or a new one (x, y).")
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            metavar="left|midpoint|simpson|gauss3",
            help="Where along each step J, the Jacobian, is taken; all but left replay.",
        ),
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Recompute every step from the recorded parameters.")
    ] = False,
    dtype: Annotated[
        str | None, typer.Option(metavar="float32|float64", help="Precision of a replay.")
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Telescoping, updates, layers: K steps as one. All others: every K-th row.",
        ),
    ] = None,
    layers: Annotated[
        bool, typer.Option(help="Contributions per layer in a replay; on deep models they dominate its time.")
    ] = True,
    probe_output: Annotated[
        str | None,
        typer.Option(
            metavar="full|logprob|loss|INDEX",
            help="What to follow of each output of a new probe set; kernel: full or INDEX.",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(metavar="VALUE", help="The border between the classes of a model of one output."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FACTORY", help="Code that builds the model, if the trace has no program."
        ),
    ] = None,
    max_memory: Annotated[
        float | None,
        typer.Option(
            metavar="MB",
            help="Bound on the memory of a pass over the examples; of all of effective-params, kernel.",
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            metavar="auto|FORM",
            help="effective-params: kernel, parameter or probes (they estimate); kernel: exact or sketch.",
        ),
    ] = None,
    rtol: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="effective-params: standard error to reach with probes."),
    ] = None,
    test: Annotated[
        int | None,
        typer.Option(metavar="N", help="Draw N of the held-out examples."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="effective-params, kernel, boosting: of probes and drawn examples."),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="mse|cross_entropy|bce",
            help="The training loss, where a metric needs it and cannot infer it.",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="FILE.npz", help="Training examples x and labels y, if not inferred."),
    ] = None,
    decay: Annotated[
        str | None,
        typer.Option(metavar="propagated|frozen", help="effective-params: what weight decay acts on."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="effective-params: processes that compute. [default: 1]"),
    ] = None,
    smoother: Annotated[
        str | None,
        typer.Option(
            metavar="last|STEP,STEP,…", help="effective-params: keep the smoother S itself at these steps."
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="STEP,STEP,…",
            help="kernel, gradients, neural-collapse: the rows; `last` too. weight-averaging: the models.",
        ),
    ] = None,
    preconditioned: Annotated[
        bool,
        typer.Option("--preconditioned", help="kernel, boosting: with the optimizer's preconditioner."),
    ] = False,
    train: Annotated[
        int | None,
        typer.Option(metavar="N", help="Draw N of the training examples, but of effective-params."),
    ] = None,
    eigenvalues: Annotated[
        int | None, typer.Option(metavar="K", help="kernel: keep the K largest. [default: 10]")
    ] = None,
    matrix: Annotated[
        str | None,
        typer.Option(metavar="last|STEP,STEP,…", help="kernel: keep the matrix itself at these steps."),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST-LAST", help="updates: the steps to look at, both included. [default: all]"
        ),
    ] = None,
    influence: Annotated[
        str | None,
        typer.Option(
            metavar="none|all|N,N,…",
            help="updates: the probe examples to trace to training examples. [default: the first eight]",
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(metavar="K", help="updates: training examples to name for each row. [default: 5]"),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="OTHER.zarr,…",
            help="boosting: the trace of the ensemble of trees. weight-averaging: the traces of other runs.",
        ),
    ] = None,
    against_root: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="boosting: which of its ensembles. [default: the first]"),
    ] = None,
    irregularity: Annotated[
        str | None,
        typer.Option(
            metavar="pca|mahalanobis|FILE.npz:NAME",
            help="boosting: how irregular a test example is. [default: pca]",
        ),
    ] = None,
    irregular: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="boosting: the share of the test examples that counts as irregular. [default: 0.1]",
        ),
    ] = None,
    shares: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE,SHARE,…",
            help="boosting: shares of irregular examples in the drawn sets. [default: 0,0.1,…,1]",
        ),
    ] = None,
    draws: Annotated[
        int | None, typer.Option(metavar="N", help="boosting: sets to draw for each share. [default: 50]")
    ] = None,
    parts: Annotated[
        str | None,
        typer.Option(
            metavar="PART,PART,…",
            help="layers: norms, spectra, contributions, steps, balance. regime: kernel, features, modes.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="STEP,STEP,…", help="gradients: the steps that later ones are compared with."),
    ] = None,
    stable: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="gradients: change up to which they count as stable. [default: 0.1]"
        ),
    ] = None,
    singular_values: Annotated[
        int | None, typer.Option(metavar="K", help="layers: keep the K largest. [default: 5]")
    ] = None,
    fit: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="events: share of training examples that is a fit. [default: 0.99]"
        ),
    ] = None,
    rise: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="events: gain after the fit that is grokking. [default: 0.2]"),
    ] = None,
    spike: Annotated[
        float | None,
        typer.Option(metavar="FACTOR", help="events: of the level before, for a spike. [default: 2]"),
    ] = None,
    diverge: Annotated[
        float | None,
        typer.Option(metavar="FACTOR", help="events: of the lowest loss, for divergence. [default: 10]"),
    ] = None,
    sure: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="events: the least confidence. [default: 0.99]"),
    ] = None,
    points: Annotated[
        int | None, typer.Option(metavar="N", help="weight-averaging: places along α. [default: 11]")
    ] = None,
    match: Annotated[
        bool, typer.Option("--match", help="weight-averaging: put hidden units in the first model's order.")
    ] = False,
    recalibrate: Annotated[
        bool, typer.Option(help="weight-averaging, gradients: compute BatchNorm's statistics anew.")
    ] = True,
    starts: Annotated[
        str | None,
        typer.Option(metavar="SHARE,…", help="weight-averaging along a run: where tails and SWA may start."),
    ] = None,
    decays: Annotated[
        str | None, typer.Option(metavar="DECAY,…", help="weight-averaging along a run: decays of EMA.")
    ] = None,
    counts: Annotated[
        str | None, typer.Option(metavar="K,…", help="weight-averaging along a run: checkpoints of LAWA.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    csv: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the result as CSV, one file a table.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.svg|png", help="Draw a figure (extra: plot).")
    ] = None,
    save_to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the result in this folder, not in the trace.")
    ] = None,
    no_save: Annotated[bool, typer.Option("--no-save", help="Do not keep the result.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no chart, no hints.")] = False,
) -> None:
    """Compute a metric from a trace: a table, a chart in the terminal, JSON, CSV files or a figure.

    The result is saved in the trace, where `tscope browse` and `tscope info` find it.
    """
    if list_metrics:
        from tscope_cli import metrics

        metrics.show(as_json=json)
        return
    if trace is None:
        raise UsageError(
            "which trace? Give its folder: tscope analyze TRACE (`tscope ls` lists those in ./runs)"
        )
    if no_save and save_to is not None:
        raise UsageError("--no-save and --save-to contradict each other")
    asked = {
        "probe": probe,
        "rule": rule,
        "replay": replay or None,
        "dtype": dtype,
        "every": every,
        "layers": None if layers else False,
        "probe_output": probe_output,
        "threshold": threshold,
        "model": model,
        "max_memory_mb": max_memory,
        "form": form,
        "rtol": rtol,
        "test": test,
        "seed": seed,
        "loss": loss,
        "labels": labels,
        "decay": decay,
        "workers": workers,
        "smoother": smoother,
        "at": at,
        "preconditioned": preconditioned or None,
        "train": train,
        "eigenvalues": eigenvalues,
        "matrix": matrix,
        "steps": steps,
        "influence": influence,
        "top": top,
        "against": against,
        "against_root": against_root,
        "irregularity": irregularity,
        "irregular": irregular,
        "shares": shares,
        "draws": draws,
        "fit": fit,
        "rise": rise,
        "spike": spike,
        "diverge": diverge,
        "sure": sure,
        "points": points,
        "match": match or None,
        "recalibrate": None if recalibrate else False,
        "starts": starts,
        "decays": decays,
        "counts": counts,
        "parts": parts,
        "singular_values": singular_values,
        "since": since,
        "stable": stable,
    }
    options = {name: value for name, value in asked.items() if value is not None}
    if plot is not None:
        from tscope_cli import figure

        figure.check(plot)
    result = compute(trace, metric, root, options, quiet=quiet)
    kept = None if no_save else save(result, trace, save_to)
    title = f"{metric} of {trace.name.removesuffix('.zarr')}"
    if csv is not None:
        from tscope_cli import csvfile

        for path in csvfile.write(result, csv):
            say_unless(quiet, f"wrote {path}")
    if plot is not None:
        figure.save(result, plot, title)
        say_unless(quiet, f"wrote {plot}")
    if json:
        from tscope_cli import jsonfile

        jsonfile.dump_strict(result.to_dict())
        return
    from tscope_cli import report

    report.show(result, title, quiet=quiet)
    if not quiet:
        if kept is not None:
            out(f"saved: {clean(kept)}")
        out(f"next: tscope browse {shlex.quote(clean(trace))}")
