"""Grokking and effective parameters, after Figs 4 and 11 to 13 of the paper.

Two studies, each with errors above and effective parameters below:
polynomial  regression on a quadratic target by gradient descent, at three alignments ε of the first kernel
            with the task [Kumar24]: for small ε the network fits the training set long before it generalises;
mnist       threes against fives with AdamW from an initialisation α times too large [Liu22], and from the
            usual one, α = 1, which does not grok.
Each run is recorded by `tscope record`, and its effective parameters are computed exactly. Writes a figure
and a CSV table for each study.

    python examples/case_studies/grokking.py            # three seeds
    python examples/case_studies/grokking.py --quick    # one seed, smaller runs

Sources: Kumar, Bordelon, Gershman & Pehlevan, "Grokking as the Transition from Lazy to Rich Training
Dynamics"; Liu, Michaud & Tegmark, "Omnigrok: Grokking Beyond Algorithmic Data"; Jeffares, Curth & van der
Schaar, "Deep Learning Through A Telescoping Lens" (arXiv 2411.00247).
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from arguments import parse_study, study_parser
from figure import TEST, TRAIN, band, grid, save
from images import load_pair
from study import DOCS, Curves, Run, follow, renew_table, write_csv
from torch import Tensor
from train_polynomial import make_task

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
CSV_ROWS, DRAWN_ROWS = 40, 100


@dataclass(frozen=True)
class Variant:
    """Runs that differ in their seeds only: a column of the figure.

    Attributes:
        name: Of its runs.
        title: Of its column.
        script: The training script.
        arguments: Its arguments.
        every: Steps between two rows.
        error: The log's columns that are drawn: "mse" or "error".
    """

    name: str
    title: str
    script: str
    arguments: dict[str, float]
    every: int
    error: str

    def shortened(self, most: int | None) -> "Variant":
        """Return it with at most so many steps."""
        steps = self.arguments["--steps"]
        return replace(self, arguments={**self.arguments, "--steps": min(most or steps, steps)})

    def run(self, seed: int) -> Run:
        """Return the run with a seed."""
        words = tuple(str(word) for pair in self.arguments.items() for word in pair)
        held_out = partial(HELD_OUT[self.script], self.arguments, seed)
        return Run(f"{self.name}-{seed}", self.script, words, seed, self.every, held_out)


def polynomial_held_out(arguments: dict[str, float], seed: int) -> tuple[Tensor, Tensor]:
    inputs, train, test = (int(arguments[f"--{name}"]) for name in ("inputs", "train", "test"))
    return make_task(inputs, train, test, seed)[2:]


def mnist_held_out(arguments: dict[str, float], seed: int) -> tuple[Tensor, Tensor]:
    pool, train, test = (int(arguments[f"--{name}"]) for name in ("pool", "train", "test"))
    pair = load_pair("mnist", pool, train, test, 0.0, seed)
    return pair.x_test, pair.y_test


HELD_OUT = {"train_polynomial.py": polynomial_held_out, "train_large_init.py": mnist_held_out}


def polynomial(quick: bool) -> list[Variant]:
    """Alignments from bad to good."""
    size = (
        {"--inputs": 30, "--units": 100, "--train": 110, "--test": 150}
        if quick
        else {"--inputs": 60, "--units": 200, "--train": 220, "--test": 300}
    )
    steps = 1024 if quick else 3000
    return [
        Variant(
            f"polynomial-{epsilon:g}",
            f"quadratic target, ε = {epsilon:g}",
            "train_polynomial.py",
            {**size, "--epsilon": epsilon, "--alpha": 1.0, "--lr": 1.0, "--steps": steps},
            every=8,
            error="mse",
        )
        for epsilon in ((0.25, 1.0) if quick else (0.1, 0.25, 1.0))
    ]


def mnist(quick: bool) -> list[Variant]:
    """A large initialisation, and the usual one."""
    size = {"--pool": 4, "--train": 50 if quick else 100, "--test": 100 if quick else 200}
    width, lr = (32, 2e-3) if quick else (64, 1e-3)
    runs = ((6.0, 1000), (1.0, 250)) if quick else ((6.0, 1500), (1.0, 500))
    return [
        Variant(
            f"mnist-{alpha:g}",
            f"MNIST, α = {alpha:g}",
            "train_large_init.py",
            {**size, "--width": width, "--alpha": alpha, "--lr": lr, "--steps": steps},
            every=10,
            error="error",
        )
        for alpha, steps in runs
    ]


STUDIES = {"polynomial": polynomial, "mnist": mnist}


def over_seeds(curves: list[Curves], variant: Variant, name: str) -> np.ndarray:
    """Return a series of all seeds (seed, row), as far as the shortest goes."""
    found = [{**c.log, **c.effective}[name] for c in curves if c.run.name.startswith(f"{variant.name}-")]
    length = min(map(len, found))
    return np.array([series[:length] for series in found])


def steps_of(curves: list[Curves], variant: Variant) -> np.ndarray:
    """Return the steps of the rows."""
    found = [curve.step for curve in curves if curve.run.name.startswith(f"{variant.name}-")]
    return min(found, key=len)


def draw(curves: list[Curves], variants: list[Variant], paths: list[Path]) -> None:
    figure, axes = grid(2, len(variants))
    for column, variant in enumerate(variants):
        error, p = axes[:, column]
        step = steps_of(curves, variant)
        shown = np.unique(np.geomspace(1, len(step) - 1, DRAWN_ROWS).astype(int))  # 0 has no logarithm
        for name, color, label in (("train", TRAIN, "training"), ("test", TEST, "held-out")):
            for panel, series in ((error, f"{name}_{variant.error}"), (p, f"p_{name}")):
                band(panel, step[shown], over_seeds(curves, variant, series)[:, shown], color, label)
        p.axhline(variant.arguments["--train"], color="0.6", linewidth=0.8, linestyle=":")
        error.set(title=variant.title, xscale="log", ylim=(0, None))
        p.set(xlabel="step")
        error.legend(fontsize="small")
    axes[0, 0].set_ylabel("squared error" if variants[0].error == "mse" else "share of wrong signs")
    axes[1, 0].set_ylabel("effective parameters\n(dotted: n)")
    save(figure, paths)


def csv_rows(curves: list[Curves], variants: list[Variant]) -> list[tuple[object, ...]]:
    """Some rows of each run, evenly spread over the logarithm of the step."""
    rows: list[tuple[object, ...]] = []
    for curve in curves:
        variant, seed = curve.run.name.rsplit("-", 1)
        spread = np.geomspace(1, len(curve.step), CSV_ROWS).astype(int) - 1
        values = {**curve.log, **curve.effective}
        for k in np.unique(spread):
            rows.append((variant, int(seed), int(curve.step[k]), *(float(values[c][k]) for c in COLUMNS)))
    return rows


def table(curves: list[Curves], variants: list[Variant]) -> str:
    """Means over seeds when the training set is first fitted, half-way to the end, and at the end."""
    lines = [
        "| run | step | train MSE | test MSE | test error | p_train | p_test | ‖f − f̃‖/‖f‖ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for variant in variants:
        step = steps_of(curves, variant)
        means = {name: over_seeds(curves, variant, name).mean(0) for name in COLUMNS}
        fitted = int(np.argmax(means["train_mse"] < 0.1 * means["test_mse"]))
        half = int(np.searchsorted(step, step[-1] ** 0.5 * step[fitted] ** 0.5))
        for k in sorted({fitted, half, len(step) - 1}):
            ratio = means["discrepancy_telescoped"][k] / means["prediction_scale"][k]
            wrong = f"{means['test_error'][k]:.2f}" if variant.error == "error" else ""
            lines.append(
                f"| {variant.title} | {step[k]:.0f} | {means['train_mse'][k]:.3f} "
                f"| {means['test_mse'][k]:.3g} | {wrong} | {means['p_train'][k]:.0f} "
                f"| {means['p_test'][k]:.0f} | {ratio:.2g} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = study_parser(__doc__, "grokking", "one seed, smaller runs")
    parser.add_argument("--study", nargs="+", choices=list(STUDIES), default=list(STUDIES))
    parser.add_argument("--steps", type=int, help="at most so many optimizer steps a run")
    args = parse_study(parser)

    places = [args.out, DOCS] if args.docs else [args.out]
    for study in args.study:
        variants = [variant.shortened(args.steps) for variant in STUDIES[study](args.quick)]
        curves = follow([v.run(seed) for seed in range(args.seeds) for v in variants], args.out, args.jobs)
        rows = csv_rows(curves, variants)
        for place in places:
            write_csv(place / f"grokking_{study}.csv", ("run", "seed", "step", *COLUMNS), rows)
        draw(curves, variants, [place / f"grokking_{study}.svg" for place in places])
        text = table(curves, variants)
        print(text)
        if args.docs:
            renew_table(f"grokking_{study}", text)


if __name__ == "__main__":
    main()
