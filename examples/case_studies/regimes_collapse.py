"""The part `collapse` of `regimes.py`: NC1 to NC4 over the steps of a classifier of MNIST's digits."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from figure import TEST, TRAIN, band, grid, save
from numpy.typing import NDArray
from study import write_csv
from subject import PROBE, Found, Subject
from torch import Tensor
from train_digits import load_digits

VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "squared": ("squared error", {"--loss": "squared"}),
    "entropy": ("cross-entropy", {"--loss": "cross_entropy"}),
    "norm": ("cross-entropy, BatchNorm", {"--loss": "cross_entropy", "--norm": ()}),
}
SERIES = {
    "accuracy": "accuracy",
    "nc1": "NC1: spread within\nover between classes",
    "nc2_angle": "NC2: angles off\nthe simplex",
    "nc3": "NC3: means off\nthe classifier",
    "nc4": "NC4: disagrees with\nthe nearest mean",
}
FITTED = 0.999  # the accuracy from which training examples count as fitted
COLUMNS = (*SERIES, "nc2_norm", "within", "between", "rank")


def held_out(train: int, test: int, seed: int) -> tuple[Tensor, Tensor]:
    return load_digits(train, test, seed)[2:]


def subjects(quick: bool, seeds: Iterable[int]) -> list[Subject]:
    """Return the runs: the same network, decay and steps."""
    train, test, epochs, every = (1000, 1000, 60, 10) if quick else (2000, 2000, 300, 20)
    return [
        Subject(
            f"digits-{variant}-{seed}",
            "train_digits.py",
            {**own, "--train": train, "--test": test, "--epochs": epochs},
            seed,
            {"neural-collapse": (PROBE,)},
            record=("--every", str(every)),
            held_out=partial(held_out, train, test, seed),
            modules=("datafile.py",),
        )
        for seed in seeds
        for variant, (_, own) in VARIANTS.items()
    ]


def variant_of(run: Found) -> str:
    """Return which variant a run is of."""
    return run.subject.name.split("-")[1]


def over_seeds(found: Sequence[Found], variant: str, name: str) -> NDArray[np.float64]:
    """Return a series of all seeds (seed, step)."""
    runs = [run for run in found if variant_of(run) == variant]
    return np.array([run.array("neural-collapse", name) for run in runs])


def fitted(found: Sequence[Found], variant: str) -> list[float]:
    """Return the first kept step at which training examples are fitted, by seed; NaN where never."""
    step = over_seeds(found, variant, "step")
    fits = over_seeds(found, variant, "accuracy_train") >= FITTED
    return [float(s[fit.argmax()]) if fit.any() else float("nan") for s, fit in zip(step, fits, strict=True)]


def draw(found: Sequence[Found], paths: Sequence[Path]) -> None:
    """Draw a column for each variant, a row for each series; dotted where training examples are fitted."""
    figure, axes = grid(len(SERIES), len(VARIANTS))
    for column, (variant, (title, _)) in enumerate(VARIANTS.items()):
        step = over_seeds(found, variant, "step")[0]
        for panel, name in zip(axes[:, column], SERIES, strict=True):
            for part, color, label in (("train", TRAIN, "training"), ("test", TEST, "held-out")):
                band(panel, step[1:], over_seeds(found, variant, f"{name}_{part}")[:, 1:], color, label)
            for fit in fitted(found, variant):
                panel.axvline(fit, color="0.6", linewidth=0.8, linestyle=":")
            panel.set_xscale("log")
        axes[0, column].set(title=title)
        axes[-1, column].set(xlabel="step")
    for row, (name, label) in enumerate(SERIES.items()):
        every = [over_seeds(found, v, f"{name}_{p}")[:, 1:] for v in VARIANTS for p in ("train", "test")]
        low, high = min(values.min() for values in every), max(values.max() for values in every)
        limits = (0.8 * low, 1.25 * high) if name == "nc1" else (0, 1.05 * high or 1)
        for panel in axes[row]:
            panel.set(yscale="log" if name == "nc1" else "linear", ylim=limits)
        axes[row, 0].set_ylabel(label)
    axes[0, 0].legend(fontsize="small", loc="lower right")
    save(figure, paths)


def tabulate(found: Sequence[Found], path: Path) -> None:
    """Write every series of every run."""
    columns = [f"{name}_{part}" for name in COLUMNS for part in ("train", "test")]
    rows = [
        (variant_of(run), run.subject.seed, *map(float, values))
        for run in found
        for values in zip(*(run.array("neural-collapse", name) for name in ("step", *columns)), strict=True)
    ]
    write_csv(path, ("run", "seed", "step", *columns), rows)


def table(found: Sequence[Found]) -> str:
    """Return the means over seeds at the first row at which all seeds fit, and at the end, as Markdown."""
    lines = [
        "| training / held-out | step | accuracy | NC1 | NC2 norms | NC2 angles | NC3 | NC4 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for variant, (title, _) in VARIANTS.items():
        step = over_seeds(found, variant, "step")[0]
        last = len(step) - 1
        latest = max(fitted(found, variant))
        rows = [int(np.searchsorted(step, latest)), last] if np.isfinite(latest) else [last]
        for row in rows:
            cells = []
            for name in ("accuracy", "nc1", "nc2_norm", "nc2_angle", "nc3", "nc4"):
                parts = (over_seeds(found, variant, f"{name}_{part}")[:, row] for part in ("train", "test"))
                form = "{:.1%}" if name in ("accuracy", "nc4") else "{:.2g}"
                cells.append(" / ".join(form.format(values.mean()) for values in parts))
            lines.append(f"| {title} | {step[row]:,.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)
