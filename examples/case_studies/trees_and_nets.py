"""Boosted trees against networks on tables, after Figs 5 and 14 of the paper.

For each of three tables a network and gradient boosting are tuned on a validation set, trained under `tscope
record`, and compared by `tscope analyze --metric boosting`: how large kernel weights become, and how much
larger the network's error is, as the share of irregular test examples grows. Irregular is the tenth of the
test examples that lies farthest along the first principal component of the training inputs, or farthest by
Mahalanobis distance. Two ways to split: at random, and so that both train on regular examples only. Writes
figures and a CSV table.

    python examples/case_studies/trees_and_nets.py            # three seeds
    python examples/case_studies/trees_and_nets.py --quick    # one seed, small

Source: Jeffares, Curth & van der Schaar, "Deep Learning Through A Telescoping Lens" (arXiv 2411.00247).
"""

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from arguments import parse_study, study_parser
from figure import TEST, TRAIN, band, grid, save
from numpy.typing import NDArray
from study import DOCS, HERE, call, code_hash, renew_table, solve, tscope, write_csv
from tabular import FILES, load_split

PAGE = "trees-and-networks.md"
SCORES = {"pca": "first principal component", "mahalanobis": "Mahalanobis distance"}
SPLITS = {"random": "random split", "regular": "trained on regular examples"}
SERIES = ("norm_net", "norm_trees", "error_net", "error_trees", "gap", "relative_increase")

Arguments = tuple[str, ...]


@dataclass(frozen=True)
class Model:
    """What is tuned.

    Attributes:
        name: "net" or "trees".
        script: The training script.
        grid: The values of its options to try.
        length: The option for how long it trains, whose best value the validation errors tell.
        most: The longest.
    """

    name: str
    script: str
    grid: dict[str, tuple[float, ...]]
    length: str
    most: int

    def candidates(self) -> list[Arguments]:
        """Every combination of the grid."""
        names = list(self.grid)
        return [
            tuple(word for pair in zip(names, map(str, values), strict=True) for word in pair)
            for values in product(*self.grid.values())
        ]


@dataclass(frozen=True, eq=False)
class Problem:
    """A table, how it is split, and the models that are compared on it."""

    data: str
    split: str
    seed: int
    train: int
    test: int
    models: tuple[Model, Model]

    @property
    def name(self) -> str:
        return f"{self.data}-{self.split}-{self.seed}"

    def arguments(self) -> Arguments:
        """What both training scripts are told."""
        sizes = {"--data": self.data, "--train": self.train, "--test": self.test, "--seed": self.seed}
        words = tuple(str(word) for pair in sizes.items() for word in pair)
        return (*words, "--regular") if self.split == "regular" else words

    def identity(self) -> dict[str, object]:
        """Return what finished results must agree in to be of the same problem."""
        code = code_hash("tabular.py", *(model.script for model in self.models))
        tried = [[*words, m.length, str(m.most)] for m in self.models for words in m.candidates()]
        return {"arguments": [*self.arguments()], "tried": tried, "scripts": code}


Found = list[tuple[Problem, dict[str, Any]]]


def models(quick: bool) -> tuple[Model, Model]:
    if quick:
        return (
            Model("net", "train_table_net.py", {"--width": (64,), "--lr": (0.03, 0.1)}, "--epochs", 40),
            Model("trees", "train_table_trees.py", {"--depth": (3, 5)}, "--trees", 150),
        )
    return (
        Model("net", "train_table_net.py", {"--width": (64, 128), "--lr": (0.03, 0.1)}, "--epochs", 80),
        Model("trees", "train_table_trees.py", {"--depth": (3, 5, 7)}, "--trees", 500),
    )


def train(problem: Problem, model: Model, words: Arguments) -> list[str]:
    """Return the command of a training script, as a user would type it."""
    return [sys.executable, str(HERE / model.script), *problem.arguments(), *words]


def search(problem: Problem, model: Model, folder: Path) -> tuple[float, Arguments]:
    """Return the smallest validation error and the arguments that gave it, the length among them."""
    found = []
    for words in model.candidates():
        log = folder / f"{problem.name}-{model.name}.log.csv"
        command = [*train(problem, model, words), model.length, str(model.most), "--log", str(log)]
        call(problem.name, model.script, command)
        with log.open() as file:
            errors = [float(row["validation_mse"]) for row in csv.DictReader(file)]
        finite = [error if np.isfinite(error) else np.inf for error in errors]
        best = int(np.argmin(finite))
        found.append((finite[best], (*words, model.length, str(best + 1))))
    return min(found)


def measure(problem: Problem, folder: Path) -> dict[str, object]:
    """Tune, record and compare both models."""
    split = load_split(
        problem.data, problem.train, problem.test, problem.seed, regular=problem.split == "regular"
    )
    probe = folder / f"{problem.name}.probe.npz"
    np.savez(probe, x=split.x_test, y=split.y_test)
    chosen, traces = {}, {}
    for model in problem.models:
        error, words = search(problem, model, folder)
        chosen[model.name] = {"arguments": [*words], "validation_mse": error}
        traces[model.name] = str(folder / f"{problem.name}-{model.name}.zarr")
        record = ["record", "-o", traces[model.name], "--force", "--probe", "none", "--"]
        tscope(problem.name, [*record, *train(problem, model, words)])
    results = {}
    for score in SCORES:
        compare = ["--metric", "boosting", "--against", traces["trees"], "--irregularity", score]
        given = ["--probe", str(probe), "--json", "--quiet"]
        result = json.loads(tscope(problem.name, ["analyze", traces["net"], *compare, *given]))
        series = {name: result["arrays"][name]["data"] for name in ("share", *SERIES)}
        results[score] = {"series": series, "scalars": result["scalars"]}
    return {"chosen": chosen, "results": results}


def over_seeds(found: Found, data: str, split: str, score: str, name: str) -> NDArray[np.float64]:
    """Return a series of all seeds (seed, share)."""
    return np.array(
        [
            kept["results"][score]["series"][name]
            for problem, kept in found
            if (problem.data, problem.split) == (data, split)
        ]
    )


def draw(found: Found, score: str, tables: Sequence[str], paths: list[Path]) -> None:
    """Errors above, weights below; a column for each table."""
    figure, axes = grid(2, len(tables))
    for column, data in enumerate(tables):
        error, norm = axes[:, column]
        for split, style in (("regular", "-"), ("random", "--")):
            series = partial(over_seeds, found, data, split, score)
            share = series("share")[0]
            band(error, share, series("relative_increase"), "#000000", SPLITS[split], style)
            band(norm, share, series("norm_net"), TEST, f"network, {split}", style)
            band(norm, share, series("norm_trees"), TRAIN, f"trees, {split}", style)
        error.axhline(0, color="0.6", linewidth=0.8, linestyle=":")
        error.set(title=data)
        norm.set(xlabel="share of irregular test examples", ylim=(0, None))
    # Below everything: there is no corner that the curves of all tables leave free.
    handles = [*axes[0, 0].get_lines()[:2], *axes[1, 0].get_lines()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize="small")
    axes[0, 0].set_ylabel("error of the network\nover the trees'")
    axes[1, 0].set_ylabel("largest kernel weights\nover training examples'")
    figure.suptitle(f"irregular by {SCORES[score]}", fontsize="medium")
    save(figure, paths)


def csv_rows(found: Found) -> Iterable[tuple[object, ...]]:
    """Every series of every problem."""
    for problem, kept in found:
        for score, result in kept["results"].items():
            for values in zip(*(result["series"][name] for name in ("share", *SERIES)), strict=True):
                yield (problem.data, problem.split, score, problem.seed, *map(float, values))


def table(found: Found, tables: Sequence[str]) -> str:
    """Means over seeds, without irregular test examples and with nothing else."""
    lines = [
        "| table | split | irregular by | network's error | trees' error | network over trees "
        "| weights, network | weights, trees |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for data, split, score in product(tables, SPLITS, SCORES):
        ends = {
            name: over_seeds(found, data, split, score, name).mean(0)[[0, -1]].tolist() for name in SERIES
        }
        cells = [
            *(f"{ends[name][0]:.3f} → {ends[name][1]:.3f}" for name in ("error_net", "error_trees")),
            f"{ends['relative_increase'][0]:+.0%} → {ends['relative_increase'][1]:+.0%}",
            *(f"{ends[name][0]:.2f} → {ends[name][1]:.2f}" for name in ("norm_net", "norm_trees")),
        ]
        lines.append(f"| {data} | {split} | {score} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = study_parser(__doc__, "trees_and_nets", "one seed, small")
    parser.add_argument("--data", nargs="+", choices=list(FILES), default=list(FILES))
    parser.add_argument("--train", type=int, help="training examples")
    parser.add_argument("--test", type=int, help="test examples")
    args = parse_study(parser)
    if args.docs and args.data != list(FILES):
        parser.error("--docs shows the full study: leave out --data")
    sizes = (args.train or (500 if args.quick else 2000), args.test or (1000 if args.quick else 2000))
    problems = [
        Problem(data, split, seed, *sizes, models(args.quick))
        for seed in range(args.seeds)
        for data, split in product(args.data, SPLITS)
    ]
    found = solve(problems, measure, args.out, args.jobs)
    places = [args.out, DOCS] if args.docs else [args.out]
    columns = ("table", "split", "irregular_by", "seed", "share", *SERIES)
    for place in places:
        write_csv(place / "trees_and_nets.csv", columns, list(csv_rows(found)))
    for score in SCORES:
        draw(found, score, args.data, [place / f"trees_and_nets_{score}.svg" for place in places])
    text = table(found, args.data)
    print(text)
    if args.docs:
        renew_table("trees_and_nets", text, PAGE)


if __name__ == "__main__":
    main()
