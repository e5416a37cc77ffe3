"""Double descent and effective parameters, after Figs 3 and 9 of the paper.

Trains networks with one hidden ReLU layer on two classes of pictures, a fifth of the training labels
flipped, by gradient descent on the squared error, at widths on both sides of the interpolation threshold.
Each run is recorded by `tscope record`, and its effective parameters are computed exactly. Writes a figure
and a CSV table.

    python examples/case_studies/double_descent.py            # MNIST and CIFAR-10, nine widths, three seeds
    python examples/case_studies/double_descent.py --quick    # four widths, one seed, fewer steps

Sources: Belkin, Hsu, Ma & Mandal, "Reconciling modern machine-learning practice and the classical
bias-variance trade-off"; Jeffares, Curth & van der Schaar, "Deep Learning Through A Telescoping Lens"
(arXiv 2411.00247).
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from figure import TEST, TRAIN, band, grid, save
from images import NAMES, load_pair
from study import DOCS, Curves, Run, follow, renew_table, write_csv
from torch import Tensor

WIDTHS = (1, 2, 4, 7, 10, 14, 25, 60, 200)
QUICK_WIDTHS = (1, 4, 14, 200)
STEPS, QUICK_STEPS = 3000, 1500
EVERY = 100
TRAIN_EXAMPLES, TEST_EXAMPLES, NOISE = 200, 388, 0.2
POOL = {"mnist": 4, "cifar": 8}  # to 7×7 pixels, and to 4×4 pixels of three colours
COLUMNS = (
    "train_mse",
    "test_mse",
    "train_error",
    "test_error",
    "p_train",
    "p_test",
    "discrepancy_telescoped",
    "prediction_scale",
)


def held_out(data: str, seed: int) -> tuple[Tensor, Tensor]:
    pair = load_pair(data, POOL[data], TRAIN_EXAMPLES, TEST_EXAMPLES, NOISE, seed)
    return pair.x_test, pair.y_test


def make_run(data: str, width: int, seed: int, steps: int) -> Run:
    arguments = {
        "--data": data,
        "--pool": POOL[data],
        "--train": TRAIN_EXAMPLES,
        "--batch-size": TRAIN_EXAMPLES,
        "--test": TEST_EXAMPLES,
        "--noise": NOISE,
        "--width": width,
        "--steps": steps,
    }
    return Run(
        name=f"{data}-{width}-{seed}",
        script="train_two_layer.py",
        arguments=tuple(str(word) for pair in arguments.items() for word in pair),
        seed=seed,
        every=EVERY,
        held_out=partial(held_out, data, seed),
    )


def last(curves: list[Curves], data: str, widths: tuple[int, ...], seeds: int, name: str) -> np.ndarray:
    """Return a series' last value (seed, width)."""
    found = {curve.run.name: curve.last(name) for curve in curves}
    return np.array([[found[f"{data}-{width}-{seed}"] for width in widths] for seed in range(seeds)])


def draw(
    curves: list[Curves], data: list[str], widths: tuple[int, ...], seeds: int, paths: list[Path]
) -> None:
    figure, axes = grid(3, len(data))
    for column, name in enumerate(data):
        mse, error, p = axes[:, column]

        def value(series: str, name: str = name) -> np.ndarray:
            return last(curves, name, widths, seeds, series)

        x = np.array(widths, dtype=np.float64)
        for panel, series in ((mse, "mse"), (error, "error")):
            band(panel, x, value(f"train_{series}"), TRAIN, "training")
            band(panel, x, value(f"test_{series}"), TEST, "held-out")
        band(p, x, value("p_train"), TRAIN, "training")
        band(p, x, value("p_test"), TEST, "held-out")
        p.axhline(TRAIN_EXAMPLES, color="0.6", linewidth=0.8, linestyle=":")
        mse.set(title=NAMES[name], xscale="log")
        p.set(xlabel="hidden units")
        mse.legend(fontsize="small")
    axes[0, 0].set_ylabel("squared error")
    axes[1, 0].set_ylabel("share of wrong signs")
    axes[2, 0].set_ylabel("effective parameters\n(dotted: n)")
    save(figure, paths)


def table(curves: list[Curves], data: list[str], widths: tuple[int, ...], seeds: int) -> str:
    """Means over seeds at the last step, as Markdown."""
    lines = [
        "| pictures | hidden units | train MSE | test MSE | test error | p_train | p_test | ‖f − f̃‖/‖f‖ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in data:
        means = {series: last(curves, name, widths, seeds, series).mean(0) for series in COLUMNS}
        ratio = means["discrepancy_telescoped"] / means["prediction_scale"]
        for k, width in enumerate(widths):
            lines.append(
                f"| {NAMES[name]} | {width} | {means['train_mse'][k]:.3f} | {means['test_mse'][k]:.2f} "
                f"| {means['test_error'][k]:.2f} | {means['p_train'][k]:.0f} | {means['p_test'][k]:.0f} "
                f"| {ratio[k]:.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--quick", action="store_true", help="four widths, one seed, fewer steps")
    parser.add_argument("--widths", nargs="+", type=int, help="hidden units (default: nine from 1 to 200)")
    parser.add_argument("--steps", type=int, help=f"optimizer steps (default: {STEPS})")
    parser.add_argument("--seeds", type=int, help="how many seeds (default: 3)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/double_descent"), help="folder for traces and results"
    )
    parser.add_argument(
        "--docs", action="store_true", help="renew figure, CSV and table in docs/case_studies"
    )
    args = parser.parse_args()
    if args.docs and args.quick:
        parser.error("--docs shows the full study: leave out --quick")
    widths = tuple(args.widths or (QUICK_WIDTHS if args.quick else WIDTHS))
    seeds = args.seeds or (1 if args.quick else 3)
    steps = args.steps or (QUICK_STEPS if args.quick else STEPS)

    runs = [make_run(d, width, seed, steps) for seed in range(seeds) for d in args.data for width in widths]
    curves = follow(runs, args.out, args.jobs)
    places = [args.out, DOCS] if args.docs else [args.out]
    rows = []
    for curve in curves:
        data, width, seed = curve.run.name.split("-")
        rows.append((data, int(width), int(seed), *(curve.last(name) for name in COLUMNS)))
    for place in places:
        write_csv(place / "double_descent.csv", ("data", "width", "seed", *COLUMNS), sorted(rows))
    draw(curves, args.data, widths, seeds, [place / "double_descent.svg" for place in places])
    text = table(curves, args.data, widths, seeds)
    print(text)
    if args.docs:
        renew_table("double_descent", text)


if __name__ == "__main__":
    main()
