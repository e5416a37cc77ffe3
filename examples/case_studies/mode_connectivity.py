"""Linear mode connectivity against gradient change, after Fig 6 of the paper.

Trains ResNet-20 on five classes of CIFAR-10, from a random start and from one that was trained on the other
five classes. `tscope record --fork-at` runs each training again from several steps t' on with other data
orders and augmentations; `tscope analyze` averages the two networks of each pair, and compares the gradients
of their predictions at t' with those at the end. Writes a figure and a CSV table.

    python examples/case_studies/mode_connectivity.py            # three seeds
    python examples/case_studies/mode_connectivity.py --quick    # one seed, half as wide, fewer forks

Sources: Jeffares, Curth & van der Schaar, "Deep Learning Through A Telescoping Lens" (arXiv 2411.00247);
Frankle, Dziugaite, Roy & Carbin, "Linear Mode Connectivity and the Lottery Ticket Hypothesis" (arXiv
1912.05671); Neyshabur, Sedghi & Zhang, "What is being transferred in transfer learning?" (arXiv 2008.11687).
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from arguments import parse_study, study_parser
from figure import TEST, TRAIN, band, grid, save
from images import load_classes
from matplotlib.axes import Axes
from numpy.typing import NDArray
from study import DOCS, HERE, call, code_hash, renew_table, solve, tscope, write_csv

PAGE = "weight-averaging.md"
SCRIPT = "train_resnet.py"
CLASSES, OTHERS, POOL = (0, 2, 4, 6, 8), (1, 3, 5, 7, 9), 2
STARTS = {"random": "random start", "pretrained": "pretrained on other classes"}
STEPS, FORKS, WIDTH = 600, (0, 20, 60, 160, 320), 16
QUICK_STEPS, QUICK_FORKS, QUICK_WIDTH = 300, (0, 40, 160), 8
BATCH, EVERY = 50, 20  # examples of a step, and steps between two rows
EXAMPLES, COMPARED = 500, 32  # of each set: for losses, and for gradients
# Layers by where they are, with the colours of their lines.
GROUPS = {"first": "#440154", "stage1": "#3b528b", "stage2": "#21918c", "stage3": "#5ec962", "fc": "#d9a400"}
SETS = ("train", "test")
# "average": of the plain mean of both networks; "line": the mean of their own figures.
AVERAGES = tuple(
    f"{kind}_{name}"
    for name in SETS
    for kind in (
        *(f"{what}_{of}" for what in ("loss", "accuracy") for of in ("average", "ensemble", "line")),
        *("barrier_loss", "barrier_accuracy", "difference", "explained"),
        *("curvature_relative_a", "curvature_relative_b"),
    )
)
CHANGES = tuple(
    f"{what}_{name}{group}"
    for group in ("", *(f"_{group}" for group in GROUPS))
    for name in SETS
    for what in ("change", "cosine")
)

Values = NDArray[np.float64]
Json = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """A training run with its forks.

    Attributes:
        start: "random" or "pretrained".
        seed: Of the run.
        width: Channels of the first stage.
        steps: Optimizer steps, of pretraining too.
        forks: The steps t'.
    """

    start: str
    seed: int
    width: int
    steps: int
    forks: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.start}-{self.seed}"

    def train(self, classes: Sequence[int], *words: str) -> list[str]:
        """Return the command that trains, as a user would type it."""
        sizes = {"--pool": POOL, "--width": self.width, "--batch-size": BATCH, "--steps": self.steps}
        given = [str(word) for pair in (*sizes.items(), ("--seed", self.seed)) for word in pair]
        return [sys.executable, str(HERE / SCRIPT), "--classes", *map(str, classes), *given, *words]

    def identity(self) -> dict[str, object]:
        """Return what finished results must agree in to be of the same problem."""
        words = self.train(CLASSES, "--fork-at", *map(str, self.forks))[2:]
        measured = {"every": EVERY, "examples": EXAMPLES, "compared": COMPARED}
        return {
            "start": self.start,
            "arguments": words,
            **measured,
            "scripts": code_hash(SCRIPT, "images.py"),
        }


Found = list[tuple[Problem, Json]]


def measure(problem: Problem, folder: Path) -> Json:
    """Train, record with forks, and analyse each pair; a pretrained start is trained first."""
    name, forks = problem.name, ",".join(map(str, problem.forks))
    base, held_out, body = (folder / f"{name}{end}" for end in (".zarr", ".probe.npz", ".body.pt"))
    data = load_classes(CLASSES, POOL)
    np.savez(held_out, x=data.x_test.numpy(), y=data.y_test.numpy())
    start = []
    if problem.start == "pretrained":
        start = ["--start", str(body)]
        call(name, "pretraining", problem.train(OTHERS, "--save", str(body)))
    seed = 100 + problem.seed
    record = ["record", "-o", str(base), "--force", "--probe", "none", "--every", str(EVERY)]
    parted = ["--fork-at", forks, "--seeds", str(seed), "--"]
    tscope(name, [*record, *parted, *problem.train(CLASSES, *start)])

    def analyse(trace: Path, metric: str, examples: int, *words: str) -> Json:
        sizes = [word for name in SETS for word in (f"--{name}", str(examples))]
        given = [str(trace), "--metric", metric, "--probe", str(held_out), *sizes, *words]
        found: Json = json.loads(tscope(name, ["analyze", *given, "--json", "--quiet"]))
        return found

    measured = min(EXAMPLES, BATCH * problem.steps // EVERY)  # those of the recorded batches
    own = changes(analyse(base, "gradients", COMPARED, "--since", forks, "--at", "last"))
    pairs = []
    for step, before in zip(problem.forks, own, strict=True):
        fork = folder / f"{name}-fork{step}-seed{seed}.zarr"
        # Layers one by one would cost eight evaluations for each of ResNet-20's 41.
        words = ["--against", str(base), "--points", "5", "--no-layers"]
        scalars = analyse(fork, "weight-averaging", measured, *words)["scalars"]
        (after,) = changes(analyse(fork, "gradients", COMPARED, "--since", str(step), "--at", "last"))
        both = {key: (before[key] + after[key]) / 2 for key in CHANGES}
        pairs.append({"fork": step, **{key: scalars[key] for key in AVERAGES}, **both})
    return {"pairs": pairs}


def changes(result: Json) -> list[dict[str, float]]:
    """Return each t''s change of gradients to the last step, and its cosine: of all layers, and by group."""
    arrays = {name: np.array(array["data"], dtype=np.float64) for name, array in result["arrays"].items()}
    groups = [group_of(layer) for layer in result["provenance"]["layers"]]
    steps = arrays["step"].tolist()
    found = []
    for place, since in enumerate(arrays["since"].tolist()):
        here: dict[str, float] = {}
        for name in SETS:
            here[f"change_{name}"], here[f"cosine_{name}"] = (
                float(arrays[f"{what}_end_{name}"][place]) for what in ("change", "cosine")
            )
            first, last = (arrays[f"size_{name}"][steps.index(step)] for step in (since, steps[-1]))
            apart = arrays[f"change_end_layer_{name}"][place] * first
            inner = arrays[f"cosine_end_layer_{name}"][place] * np.sqrt(first * last)
            for group in GROUPS:
                own = np.array([other == group for other in groups])
                here[f"change_{name}_{group}"] = float(apart[own].sum() / first[own].sum())
                sizes = first[own].sum() * last[own].sum()
                here[f"cosine_{name}_{group}"] = float(inner[own].sum() / np.sqrt(sizes))
        found.append(here)
    return found


def group_of(layer: str) -> str:
    """Return where a layer is: the first convolution with its BatchNorm, a stage, or the last layer."""
    part = layer.split(".")[0]
    return part if part in GROUPS else "first"


def over_seeds(found: Found, start: str, name: str) -> Values:
    """Return a series of all seeds (seed, t')."""
    return np.array(
        [[pair[name] for pair in kept["pairs"]] for problem, kept in found if problem.start == start]
    )


def draw(found: Found, paths: list[Path]) -> None:
    """Barriers above, changes of gradients below; a column for each start."""
    figure, axes = grid(4, len(STARTS))
    for column, (start, title) in enumerate(STARTS.items()):
        loss, accuracy, change, cosine = axes[:, column]
        forks = np.array(
            next(problem.forks for problem, _ in found if problem.start == start), dtype=np.float64
        )
        for axis, name, factor in (
            (loss, "barrier_loss", 1),
            (accuracy, "barrier_accuracy", 100),
            (change, "change", 1),
        ):
            for of, color, label in (("train", TRAIN, "training"), ("test", TEST, "held-out")):
                band(axis, forks, factor * over_seeds(found, start, f"{name}_{of}"), color, label)
        for group, color in GROUPS.items():
            band(cosine, forks, over_seeds(found, start, f"cosine_test_{group}"), color, group)
        loss.set(title=title)
        loss.set_xscale("symlog", linthresh=20, linscale=0.4)
        loss.set_xticks(forks, [f"{fork:.0f}" for fork in forks], minor=False)
        change.set_yscale("log")
        cosine.set(xlabel="step t' of the fork")
        for axis in (loss, accuracy):
            axis.axhline(0, color="0.6", linewidth=0.8, linestyle=":")
    for row in axes:
        same_limits(row)
    axes[0, 0].legend(fontsize="small")
    axes[3, 1].legend(fontsize="x-small", ncols=2)
    axes[0, 0].set_ylabel("barrier, loss")
    axes[1, 0].set_ylabel("barrier, accuracy\n(points)")
    axes[2, 0].set_ylabel("change of gradients\nfrom t' to the end")
    axes[3, 0].set_ylabel("their cosine, by layer\n(held-out)")
    save(figure, paths)


def same_limits(row: Sequence[Axes]) -> None:
    """Give axes side by side the limits of the widest."""
    limits = np.array([axis.get_ylim() for axis in row])
    for axis in row:
        axis.set_ylim(limits[:, 0].min(), limits[:, 1].max())


def table(found: Found) -> str:
    """Means over seeds on held-out examples, as Markdown."""
    lines = [
        "| start | t' | loss barrier, training | held-out | accuracy barrier | accuracy: networks | average "
        "| ensemble | change of gradients | cosine | curvature explains |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for start in STARTS:
        forks = next(problem.forks for problem, _ in found if problem.start == start)
        for place, step in enumerate(forks):

            def mean(name: str, start: str = start, place: int = place) -> float:
                return float(over_seeds(found, start, name)[:, place].mean())

            shares = (mean(f"accuracy_{of}_test") for of in ("line", "average", "ensemble"))
            lines.append(
                f"| {start} | {step} | {mean('barrier_loss_train'):.3f} | {mean('barrier_loss_test'):.3f} "
                f"| {mean('barrier_accuracy_test'):.3f} | {' | '.join(f'{share:.3f}' for share in shares)} "
                f"| {mean('change_test'):.2f} | {mean('cosine_test'):.2f} | {mean('explained_test'):.0%} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = study_parser(__doc__, "mode_connectivity", "one seed, half as wide, fewer steps and forks")
    parser.add_argument("--steps", type=int, help=f"optimizer steps (default: {STEPS})")
    parser.add_argument("--forks", nargs="+", type=int, help=f"steps t', multiples of {EVERY}")
    parser.add_argument("--width", type=int, help=f"channels of the first stage (default: {WIDTH})")
    args = parse_study(parser)
    steps = args.steps or (QUICK_STEPS if args.quick else STEPS)
    forks = tuple(sorted(args.forks or (QUICK_FORKS if args.quick else FORKS)))
    if any(fork % EVERY or not 0 <= fork < steps for fork in forks):
        parser.error(f"--forks must be multiples of {EVERY} below {steps}, got {' '.join(map(str, forks))}")
    width = args.width or (QUICK_WIDTH if args.quick else WIDTH)
    problems = [Problem(start, seed, width, steps, forks) for seed in range(args.seeds) for start in STARTS]
    found = solve(problems, measure, args.out, args.jobs)
    places = [args.out, DOCS] if args.docs else [args.out]
    columns = ("fork", *AVERAGES, *CHANGES)
    rows = [
        (problem.start, problem.seed, *(pair[name] for name in columns))
        for problem, kept in found
        for pair in kept["pairs"]
    ]
    for place in places:
        write_csv(place / "mode_connectivity.csv", ("start", "seed", *columns), rows)
    draw(found, [place / "mode_connectivity.svg" for place in places])
    text = table(found)
    print(text)
    if args.docs:
        renew_table("mode_connectivity", text, PAGE)


if __name__ == "__main__":
    main()
