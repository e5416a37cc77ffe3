"""Double descent and effective parameters, after Figs 3 and 9 of the paper.

Trains networks with one hidden ReLU layer on two classes of pictures, a fifth of the training labels
flipped, by gradient descent on the squared error, at widths on both sides of the interpolation threshold.
Each run is recorded by `tscope record`, and its effective parameters are computed exactly. Writes a figure
and a CSV table.

    python examples/case_studies/double_descent.py            # MNIST and CIFAR-10, three seeds
    python examples/case_studies/double_descent.py --quick    # four widths, one seed, fewer steps

Sources: Belkin, Hsu, Ma & Mandal, "Reconciling modern machine-learning practice and the classical
bias-variance trade-off"; Jeffares, Curth & van der Schaar, "Deep Learning Through A Telescoping Lens"
(arXiv 2411.00247).
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from arguments import parse_study, study_parser
from figure import TEST, TRAIN, band, grid, save
from images import NAMES, load_pair
from numpy.typing import NDArray
from study import DOCS, Curves, Run, follow, renew_table, write_csv
from torch import Tensor

WIDTHS = {"mnist": (1, 4, 7, 10, 14, 25, 60, 200), "cifar": (1, 4, 10, 25, 200)}
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


@dataclass(frozen=True, eq=False)
class Sweep:
    """The finished runs on one kind of pictures.

    Attributes:
        data: Which pictures.
        widths: Hidden units, increasing.
        curves: What was found, by seed and then by width.
    """

    data: str
    widths: tuple[int, ...]
    curves: list[Curves]

    def last(self, name: str) -> NDArray[np.float64]:
        """Return a series' last value (seed, width)."""
        values = np.array([curve.last(name) for curve in self.curves])
        return values.reshape(-1, len(self.widths))

    def rows(self) -> list[tuple[object, ...]]:
        """Return the last values of each run."""
        widths = self.widths * (len(self.curves) // len(self.widths))
        return [
            (self.data, width, curve.run.seed, *(curve.last(name) for name in COLUMNS))
            for width, curve in zip(widths, self.curves, strict=True)
        ]


def draw(sweeps: list[Sweep], paths: list[Path]) -> None:
    figure, axes = grid(3, len(sweeps))
    for column, sweep in enumerate(sweeps):
        mse, error, p = axes[:, column]
        x = np.array(sweep.widths, dtype=np.float64)
        panels = ((mse, "{}_mse"), (error, "{}_error"), (p, "p_{}"))
        for panel, name in panels:
            band(panel, x, sweep.last(name.format("train")), TRAIN, "training")
            band(panel, x, sweep.last(name.format("test")), TEST, "held-out")
        p.axhline(TRAIN_EXAMPLES, color="0.6", linewidth=0.8, linestyle=":")
        mse.set(title=NAMES[sweep.data], xscale="log")
        p.set(xlabel="hidden units")
        mse.legend(fontsize="small")
    axes[0, 0].set_ylabel("squared error")
    axes[1, 0].set_ylabel("share of wrong signs")
    axes[2, 0].set_ylabel("effective parameters\n(dotted: n)")
    save(figure, paths)


def table(sweeps: list[Sweep]) -> str:
    """Means over seeds at the last step, as Markdown."""
    lines = [
        "| pictures | hidden units | train MSE | test MSE | test error | p_train | p_test | ‖f − f̃‖/‖f‖ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for sweep in sweeps:
        means = {name: sweep.last(name).mean(0) for name in COLUMNS}
        ratio = means["discrepancy_telescoped"] / means["prediction_scale"]
        for k, width in enumerate(sweep.widths):
            lines.append(
                f"| {NAMES[sweep.data]} | {width} | {means['train_mse'][k]:.3f} | {means['test_mse'][k]:.2f} "
                f"| {means['test_error'][k]:.2f} | {means['p_train'][k]:.0f} | {means['p_test'][k]:.0f} "
                f"| {ratio[k]:.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = study_parser(__doc__, "double_descent", "four widths, one seed, fewer steps")
    parser.add_argument("--data", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--widths", nargs="+", type=int, help="hidden units (default: some from 1 to 200)")
    parser.add_argument("--steps", type=int, help=f"optimizer steps (default: {STEPS})")
    args = parse_study(parser)
    steps = args.steps or (QUICK_STEPS if args.quick else STEPS)

    sweeps = []
    for data in args.data:
        widths = tuple(args.widths or (QUICK_WIDTHS if args.quick else WIDTHS[data]))
        runs = [make_run(data, width, seed, steps) for seed in range(args.seeds) for width in widths]
        sweeps.append(Sweep(data, widths, follow(runs, args.out, args.jobs)))
    places = [args.out, DOCS] if args.docs else [args.out]
    rows = [row for sweep in sweeps for row in sweep.rows()]
    for place in places:
        write_csv(place / "double_descent.csv", ("data", "width", "seed", *COLUMNS), rows)
    draw(sweeps, [place / "double_descent.svg" for place in places])
    text = table(sweeps)
    print(text)
    if args.docs:
        renew_table("double_descent", text)


if __name__ == "__main__":
    main()
