"""The part `grokking` of `regimes.py`: onset, effective parameters and kernel on one figure."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from figure import TEST, TRAIN, band, grid, save
from images import load_pair
from matplotlib.axes import Axes
from numpy.typing import NDArray
from study import write_csv
from subject import PROBE, Found, Subject
from torch import Tensor

TEST_EXAMPLES = 300
MARKS = {"interpolation": "0.5", "peak": "#009E73", "grokking": "#CC79A7", "alignment jump": "#E69F00"}
LABELS = {
    "interpolation": "training examples fitted",
    "peak": "p held-out peaks",
    "grokking": "held-out follow",
    "alignment jump": "kernel's alignment jumps",
}
SERIES = {
    "events": ("fit_train", "fit_test"),
    "effective-params": ("p_train", "p_test"),
    "regime": ("movement", "feature_movement_train"),
    "kernel": ("movement_train", "distance_train", "alignment_train"),
}


def held_out(train: int, seed: int) -> tuple[Tensor, Tensor]:
    pair = load_pair("mnist", 4, train, TEST_EXAMPLES, 0.0, seed)
    return pair.x_test, pair.y_test


def subjects(quick: bool, seeds: Iterable[int]) -> list[Subject]:
    """Return the runs, one a seed."""
    train, width, steps = (40, 32, 2000) if quick else (60, 64, 3000)
    return [
        Subject(
            f"grokking-{seed}",
            "train_shrinking.py",
            {"--train": train, "--test": TEST_EXAMPLES, "--width": width, "--steps": steps},
            seed,
            {
                "effective-params": (PROBE, "--every", "10"),
                "kernel": (PROBE, "--every", "20"),
                "regime": (PROBE, "--parts", "features", "--every", "20"),
                "telescoping": (PROBE, "--replay", "--no-layers", "--every", "10"),
                "events": (),
            },
            held_out=partial(held_out, train, seed),
            modules=("images.py", "datafile.py"),
        )
        for seed in seeds
    ]


def events(run: Found) -> dict[str, dict[str, Any]]:
    """Return the events that are drawn, of those that were found."""
    found = {}
    for event in run.results["events"]["provenance"]["events"]:
        if event["kind"] in MARKS:
            found[event["kind"]] = event
        elif event["kind"] == "effective-parameter peak" and "held-out" in event["text"]:
            found["peak"] = event
    return found


def over_seeds(found: Sequence[Found], metric: str, name: str) -> NDArray[np.float64]:
    """Return a series of all seeds (seed, step)."""
    return np.array([run.array(metric, name) for run in found])


def mark(panel: Axes, found: Sequence[Found]) -> None:
    """Draw every seed's events as lines, and the interval that their means make as a band."""
    for kind, color in MARKS.items():
        there = [events(run)[kind] for run in found if kind in events(run)]
        for event in there:
            panel.axvline(event["step"], color=color, linewidth=0.8, linestyle="--")
        if kind in ("peak", "grokking") and there:
            low, high = (float(np.mean([event[end] for event in there])) for end in ("low", "high"))
            panel.axvspan(low, high, color=color, alpha=0.08, linewidth=0)


def draw(found: Sequence[Found], paths: Sequence[Path]) -> None:
    """Draw the fits, effective parameters, and how far kernel and features moved, above each other."""
    figure, axes = grid(3, 1, width=6.8)
    fit, p, moved = axes[:, 0]
    step = over_seeds(found, "events", "step")[0]
    for part, color, label in (("train", TRAIN, "training"), ("test", TEST, "held-out")):
        band(fit, step, over_seeds(found, "events", f"fit_{part}"), color, label)
        rows = over_seeds(found, "effective-params", "step")[0]
        band(p, rows, over_seeds(found, "effective-params", f"p_{part}"), color)
    rows = over_seeds(found, "kernel", "step")[0]
    for metric, name, color, label in (
        ("kernel", "movement_train", "#000000", "kernel, ‖K − K₀‖/‖K₀‖"),
        ("regime", "feature_movement_train", "#56B4E9", "features, ‖H − H₀‖/‖H₀‖"),
        ("kernel", "distance_train", "#E69F00", "kernel, 1 − cos(K, K₀)"),
        ("kernel", "alignment_train", "0.45", "kernel's alignment with labels"),
    ):
        band(moved, rows, over_seeds(found, metric, name), color, label)
    for panel in (fit, p, moved):
        mark(panel, found)
    for kind, color in MARKS.items():
        fit.plot([], [], "--", color=color, linewidth=0.8, label=LABELS[kind])
    fit.set(ylabel="share of right signs")
    p.set(ylabel="effective parameters", ylim=(0, None))
    moved.set(ylabel="of kernel and features", xlabel="step")
    fit.legend(fontsize="small", loc="lower right")
    moved.legend(fontsize="small", loc="center right", bbox_to_anchor=(1, 0.64))
    save(figure, paths)


def values_at(run: Found, step: int) -> dict[str, float]:
    """Return each series at its first kept row from a step on."""
    values = {}
    for metric, names in SERIES.items():
        row = int(np.searchsorted(run.array(metric, "step"), step))
        values |= {name: float(run.array(metric, name)[row]) for name in names}
    return values


def tabulate(found: Sequence[Found], path: Path) -> None:
    """Write the series of every run at the rows of the kernel."""
    names = [name for group in SERIES.values() for name in group]
    rows = []
    for run in found:
        for step in run.array("kernel", "step").astype(int):
            values = values_at(run, step)
            rows.append((run.subject.seed, int(step), *(values[name] for name in names)))
    write_csv(path, ("seed", "step", *names), rows)


def table(found: Sequence[Found]) -> str:
    """Return each seed's events and its end, with effective parameters and the kernel there, as Markdown."""
    lines = [
        "| seed | event | step | between | right, training / held-out | p, training / held-out "
        "| ‖K − K₀‖/‖K₀‖ | 1 − cos(K, K₀) | alignment |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for run in found:
        ends = sorted(events(run).items(), key=lambda entry: int(entry[1]["step"]))
        last = int(run.array("kernel", "step")[-1])
        places = [(LABELS[k], e["step"], f"{e['low']:,}–{e['high']:,}") for k, e in ends]
        for label, step, between in (*places, ("end", last, "")):
            at = values_at(run, step)
            lines.append(
                f"| {run.subject.seed} | {label} | {step:,} | {between} "
                f"| {at['fit_train']:.0%} / {at['fit_test']:.0%} | {at['p_train']:.1f} / {at['p_test']:.1f} "
                f"| {at['movement_train']:.2f} | {at['distance_train']:.3f} | {at['alignment_train']:.2f} |"
            )
    return "\n".join(lines)
