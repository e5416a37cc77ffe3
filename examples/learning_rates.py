"""Where the telescoping approximation holds: learning rates and optimizers, after Figs 2 and 7 of the paper.

Trains `digits_pair.py` (threes against fives) at several learning rates with SGD, SGD with momentum and
AdamW. Each run is recorded by `tscope record`, unchanged and in a process of its own, with the held-out
digits as probe set; then the trace is replayed at every step. Writes a figure and a CSV, and prints the
final errors beside reference values of an independent implementation.

    python examples/learning_rates.py            # all runs, about three minutes
    python examples/learning_rates.py --quick    # one run an optimizer, 200 steps, no figure in docs/

Source: Jeffares, Curth & van der Schaar, "Deep Learning Through A Telescoping Lens" (arXiv 2411.00247).
"""

import argparse
import csv
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from digits_pair import load_pair
from numpy.typing import NDArray

import tscope

HERE = Path(__file__).resolve().parent
DOCS_FIGURE = HERE.parent / "docs" / "figures" / "learning_rates.svg"
README = HERE / "README.md"
OPTIMIZERS = {"sgd": "SGD", "momentum": "SGD, momentum 0.9", "adamw": "AdamW"}
RATES = {"sgd": (0.001, 0.01, 0.1), "momentum": (1e-4, 1e-3, 1e-2), "adamw": (1e-4, 1e-3, 1e-2)}
# Final mean |error| (telescoped, lazy) of a prototype that shares no code with tscope; other seed and split.
REFERENCE = {
    ("sgd", 0.01): (0.042, 0.65),
    ("sgd", 0.1): (1.7, 0.63),
    ("momentum", 0.001): (0.0022, 0.64),
    ("adamw", 1e-3): (0.037, 0.54),
    ("adamw", 1e-4): (0.0026, 0.74),
}
COLUMNS = (
    "error_telescoped",
    "error_lazy",
    "accuracy_actual",
    "accuracy_telescoped",
    "accuracy_lazy",
    "residual_relative",
)


@dataclass(frozen=True)
class Run:
    """One recorded and replayed training run; `curves` holds a (step,) array for each of `COLUMNS`."""

    optimizer: str
    lr: float
    step: NDArray[np.int64]
    curves: dict[str, NDArray[np.float64]]
    relative_residual: float


def write_probe(path: Path) -> None:
    _, _, x_test, y_test = load_pair()
    np.savez(path, x=x_test.numpy(), y=y_test.numpy())


def record(trace: Path, probe: Path, optimizer: str, lr: float, steps: int) -> None:
    script = [sys.executable, str(HERE / "digits_pair.py")]
    options = ["--optimizer", optimizer, "--lr", str(lr), "--steps", str(steps)]
    recorder = [sys.executable, "-m", "tscope_cli", "record", "-o", str(trace), "--force"]
    done = subprocess.run(
        [*recorder, "--probe", str(probe), "--", *script, *options],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode != 0:
        raise SystemExit(f"recording {optimizer} {lr:g} failed ({done.returncode}):\n{done.stderr}")


def measure(folder: Path, probe: Path, optimizer: str, lr: float, steps: int) -> Run:
    trace = folder / f"{optimizer}-{lr:g}.zarr"
    record(trace, probe, optimizer, lr, steps)
    result = tscope.analyze(trace, "telescoping", replay=True)
    curves = {name: np.asarray(result.arrays[name].data, dtype=np.float64) for name in COLUMNS}
    residual = float(result.scalars["relative_residual"])
    return Run(optimizer, lr, np.asarray(result.arrays["step"].data), curves, residual)


def write_csv(path: Path, runs: list[Run]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["optimizer", "lr", "step", *COLUMNS])
        for run in runs:
            for k, step in enumerate(run.step):
                values = (f"{run.curves[name][k]:.6g}" for name in COLUMNS)
                writer.writerow([run.optimizer, f"{run.lr:g}", int(step), *values])


def table(runs: list[Run], steps: int) -> str:
    """The final errors as a Markdown table; the reference holds for 1000 steps."""
    lines = [
        f"| optimizer | learning rate | telescoped error, step {steps} | lazy error | lazy / telescoped "
        "| relative residual | reference (telescoped / lazy) |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        telescoped, lazy = (float(run.curves[name][-1]) for name in COLUMNS[:2])
        expected = REFERENCE.get((run.optimizer, run.lr))
        reference = f"{expected[0]:g} / {expected[1]:g}" if expected and steps == 1000 else ""
        lines.append(
            f"| {OPTIMIZERS[run.optimizer]} | {run.lr:g} | {telescoped:.2g} | {lazy:.2g} "
            f"| {ratio_text(lazy / telescoped)} | {run.relative_residual:.2g} | {reference} |"
        )
    return "\n".join(lines)


def ratio_text(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"


def draw(path: Path, runs: list[Run]) -> None:
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "tscope"  # the same file from the same numbers
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(11, 6), sharex=True, sharey="row", layout="constrained")
    colors = ("#009E73", "#0072B2", "#D55E00")  # Okabe and Ito: small, middle, large rate
    for column, (optimizer, label) in enumerate(OPTIMIZERS.items()):
        error, accuracy = axes[:, column]
        group = sorted((run for run in runs if run.optimizer == optimizer), key=lambda run: run.lr)
        for run, color in zip(group, colors, strict=False):
            keep = np.unique(np.linspace(0, len(run.step) - 1, 250).astype(int))
            step = run.step[keep]
            name = f"lr {run.lr:g}"
            error.plot(step[1:], run.curves["error_telescoped"][keep][1:], color=color, label=name)
            error.plot(step[1:], run.curves["error_lazy"][keep][1:], "--", color=color)
            accuracy.plot(step, run.curves["accuracy_actual"][keep], color=color, alpha=0.3, linewidth=4)
            accuracy.plot(step, run.curves["accuracy_telescoped"][keep], color=color)
            accuracy.plot(step, run.curves["accuracy_lazy"][keep], "--", color=color)
        error.set(title=label, yscale="log")
        error.legend(fontsize="small")
        accuracy.set(xlabel="step")
    axes[0, 0].set_ylabel("mean |f − approximation|, held-out\nsolid: telescoped, dashed: lazy")
    axes[1, 0].set_ylabel("accuracy\nbroad: network")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def update_readme(text: str) -> None:
    start, end = "<!-- learning_rates: begin -->", "<!-- learning_rates: end -->"
    before, rest = README.read_text().split(start)
    README.write_text(f"{before}{start}\n{text}\n{end}{rest.split(end)[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="the middle rate only, 200 steps")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/learning_rates"), help="folder for traces and CSV"
    )
    parser.add_argument("--figure", type=Path, help="SVG or PNG file (default: in the folder of --out)")
    parser.add_argument(
        "--docs", action="store_true", help="renew the figure in docs/figures and the table in the README"
    )
    args = parser.parse_args()
    if args.docs and args.quick:
        parser.error("--docs shows the full sweep: leave out --quick")

    args.out.mkdir(parents=True, exist_ok=True)
    probe = args.out / "held_out.npz"
    write_probe(probe)
    steps = min(args.steps, 200) if args.quick else args.steps
    runs = []
    for optimizer, rates in RATES.items():
        for lr in rates[1:2] if args.quick else rates:
            runs.append(measure(args.out, probe, optimizer, lr, steps))
            print(f"{optimizer} {lr:g}: done", file=sys.stderr)
    write_csv(args.out / "learning_rates.csv", runs)
    draw(args.figure or (DOCS_FIGURE if args.docs else args.out / "learning_rates.svg"), runs)
    text = table(runs, steps)
    print(text)
    if args.docs:
        update_readme(text)


if __name__ == "__main__":
    main()
