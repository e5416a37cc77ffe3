"""The part `linear` of `regimes.py`: two linear layers against closed forms."""

from collections.abc import Sequence
from pathlib import Path

import linear_panels
import numpy as np
from figure import grid, save
from linear_runs import SKILLS, balance_drift, grouped, kind, setting, subjects
from study import write_csv
from subject import Found

__all__ = ["draw", "subjects", "table", "tabulate"]


def draw(found: Sequence[Found], paths: Sequence[Path]) -> None:
    """Draw six panels: modes, steps, skills above; balancedness, rich to lazy below."""
    figure, axes = grid(2, 3, share="none")
    for panel, fill in zip(axes.flat, linear_panels.PANELS, strict=True):
        fill(panel, found)
    save(figure, paths)


def tabulate(found: Sequence[Found], path: Path) -> None:
    """Write a row for each mode of each run."""
    nothing = float("nan")
    per_mode = ("target", "frequency", "half_step", "half_step_closed")
    per_run = ("closed_off", "unbalanced_off", "mixing", "kernel_movement_train", "kernel_distance_train")
    rows = []
    for run in found:
        told = {name: run.scalar("regime", name) for name in per_run}
        balanced = "layers" in run.results
        check = run.scalar("layers", "balance_check") if balanced else nothing
        drift = balance_drift(run) if balanced else nothing
        start, index = run.array("regime", "strength")[0], run.array("regime", "index")[0]
        modes = {name: run.array("regime", name) for name in per_mode}
        for mode in range(len(start)):
            own = (start[mode], index[mode], *(values[mode] for values in modes.values()))
            head = (kind(run), setting(run), run.subject.seed, mode)
            rows.append((*head, *map(float, (*own, *told.values(), check, drift))))
    names = ("start", "index", *per_mode, *per_run, "balance_check", "balance_drift")
    write_csv(path, ("run", "setting", "seed", "mode", *names), rows)


def table(found: Sequence[Found]) -> str:
    """Return means over seeds as Markdown: steps, skills, and lazy to rich."""

    def mean(runs: Sequence[Found], metric: str, name: str) -> float:
        return float(np.mean([run.scalar(metric, name) for run in runs]))

    lines = [
        "| η | aligned: off its form, of s | random start: off its form | Q moved | Q off its identity |",
        "|---|---|---|---|---|",
    ]
    other = grouped(found, "random")
    for rate, runs in grouped(found, "aligned").items():
        drift = np.mean([balance_drift(run) for run in other[rate]])
        check = max(run.scalar("layers", "balance_check") for run in other[rate])
        offs = mean(runs, "regime", "closed_off"), mean(other[rate], "regime", "unbalanced_off")
        lines.append(f"| {rate:g} | {offs[0]:.2g} | {offs[1]:.2g} | {drift:.1e} | {check:.0e} |")
    (runs,) = grouped(found, "skills").values()
    lines += ["", "| skill | D | half learnt at step | closed form |", "|---|---|---|---|"]
    for skill in range(SKILLS):
        D, half, closed = (
            np.array([run.array("regime", name)[skill] for run in runs])
            for name in ("frequency", "half_step", "half_step_closed")
        )
        lines.append(
            f"| {skill + 1} | {D.mean():.3f} | {half.mean():.0f} ({half.min():.0f}–{half.max():.0f}) "
            f"| {closed.mean():.0f} |"
        )
    lines += [
        "",
        "| \\|Λ\\|/s at the start | off the closed form, of s | ‖K − K₀‖/‖K₀‖ | 1 − cos(K, K₀) |",
        "|---|---|---|---|",
    ]
    for runs in grouped(found, "lazy").values():
        index = np.mean([abs(run.scalar("regime", "index")) for run in runs])
        off = mean(runs, "regime", "unbalanced_off")
        moved, turned = (mean(runs, "regime", f"kernel_{name}_train") for name in ("movement", "distance"))
        lines.append(f"| {index:.2g} | {off:.2g} | {moved:.3g} | {turned:.2g} |")
    return "\n".join(lines)
