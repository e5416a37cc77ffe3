"""The panels of the figure of `regimes_linear.py`; each takes its axes and all runs."""

from collections.abc import Sequence

import numpy as np
from linear_runs import balance_drift, grouped
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, NullLocator
from subject import Found

COLORS = ("#0072B2", "#D55E00", "#009E73")
SHOWN = 6.0  # of the time of the modes
LINE = {"color": "0.6", "linewidth": 0.8}


def spread(axes: Axes, x: Sequence[float], groups: Sequence[Sequence[float]], style: str, label: str) -> None:
    """Plot the mean over seeds at each x, with their range."""
    mean = np.array([np.mean(values) for values in groups])
    ends = np.array([[min(values), max(values)] for values in groups]).T
    axes.errorbar(x, mean, np.abs(ends - mean), fmt=style, markersize=4, capsize=2, label=label)


def scalars(groups: dict[float, list[Found]], metric: str, name: str) -> list[list[float]]:
    """Return a scalar of every run of each group."""
    return [[run.scalar(metric, name) for run in group] for group in groups.values()]


def step_sizes(axes: Axes, rates: Sequence[float]) -> None:
    """Name the sizes of step below both logarithmic axes' panel."""
    axes.set(xscale="log", yscale="log", xlabel="η")
    axes.set_xticks(list(rates), [f"{rate:g}" for rate in rates])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


def modes(axes: Axes, found: Sequence[Found]) -> None:
    """Strengths over time: points of an aligned run, small random starts, and their closed forms."""
    rate = min(grouped(found, "aligned"))
    aligned, others = grouped(found, "aligned")[rate][0], grouped(found, "random")[rate]
    time, strength, closed = (
        aligned.array("regime", name) for name in ("time", "strength", "strength_closed")
    )
    shown = np.linspace(0, len(time) - 1, 25).astype(int)
    for mode, color in enumerate(COLORS):
        axes.plot(time, closed[:, mode], color=color)
        axes.plot(time[shown], strength[shown, mode], ".", color=color, markersize=4)
        for run in others:
            own, guided = (run.array("regime", name)[:, mode] for name in ("strength", "strength_unbalanced"))
            axes.plot(run.array("regime", "time"), own, ":", color=color)
            axes.plot(run.array("regime", "time"), guided, color=color, linewidth=0.5)
    for style, label in ((".", "aligned start"), (":", "random starts"), ("-", "closed forms")):
        axes.plot([], [], style, color="k", label=label)
    axes.legend(fontsize="small", loc="upper right", bbox_to_anchor=(1, 0.93))
    axes.set(xlabel="time, η · steps", ylabel="strength", title="modes", xlim=(-0.2, SHOWN))


def errors(axes: Axes, found: Sequence[Found]) -> None:
    """The largest distance from the closed form over the size of a step."""
    groups = grouped(found, "aligned")
    offs = scalars(groups, "regime", "closed_off")
    spread(axes, list(groups), offs, "o", "measured")
    rates = np.array(list(groups))
    axes.plot(rates, np.mean(offs[0]) * rates / rates[0], label="∝ η", **LINE)
    step_sizes(axes, list(groups))
    axes.set(ylabel="off the closed form, of s", title="modes: error of steps")
    axes.legend(fontsize="small")


def emergence(axes: Axes, found: Sequence[Found]) -> None:
    """Steps at which skills are half learnt, over those of the closed form."""
    (runs,) = grouped(found, "skills").values()
    closed, half = (
        np.array([run.array("regime", name) for run in runs]) for name in ("half_step_closed", "half_step")
    )
    spread(axes, list(closed.mean(0)), list(half.T), "o", "skills")
    ends = np.array([closed.min(), closed.max()])
    axes.plot(ends, ends, label="equal", **LINE)
    axes.set(xscale="log", yscale="log", xlabel="closed form", ylabel="step", title="skills: half learnt at")
    axes.legend(fontsize="small")


def balance(axes: Axes, found: Sequence[Found]) -> None:
    """How far Q moved over the size of a step, and how far it is off the identity."""
    groups = grouped(found, "random")
    drifts = [[balance_drift(run) for run in group] for group in groups.values()]
    spread(axes, list(groups), drifts, "o", "moved")
    rates = np.array(list(groups))
    axes.plot(rates, np.mean(drifts[0]) * rates / rates[0], label="∝ η", **LINE)
    spread(axes, list(groups), scalars(groups, "layers", "balance_check"), "s", "off the identity")
    step_sizes(axes, list(groups))
    axes.set(ylabel="Q, of the weights' squares", title="balancedness")
    axes.legend(fontsize="small", loc="center")


def paths(axes: Axes, found: Sequence[Found]) -> None:
    """The first mode over time in its own unit, from rich to lazy, beside its closed form."""
    groups = list(grouped(found, "lazy").values())
    for group, color in zip((groups[0], groups[1], groups[-1]), COLORS, strict=True):
        for run in group:
            strength, guided = (run.array("regime", n)[:, 0] for n in ("strength", "strength_unbalanced"))
            target, index = run.array("regime", "target")[0], run.scalar("regime", "index")
            time = run.array("regime", "time") * target * (index**2 + 4) ** 0.5
            axes.plot(time, strength / target, color=color)
            axes.plot(time, guided / target, "k--", linewidth=0.6)
        mean = np.mean([abs(run.scalar("regime", "index")) for run in group])
        axes.plot([], [], color=color, label=f"|Λ|/s = {mean:.2g}")
    axes.plot([], [], "k--", linewidth=0.6, label="closed forms")
    axes.set(xlabel="time · √(Λ² + 4s²)", ylabel="strength, of s", title="from rich to lazy")
    axes.legend(fontsize="small", loc="lower right")


def movement(axes: Axes, found: Sequence[Found]) -> None:
    """How far the kernel moved, over Λ/s."""
    groups = grouped(found, "lazy")
    x = [float(np.mean(np.abs(values))) for values in scalars(groups, "regime", "index")]
    for name, label, style in (("movement", "‖K − K₀‖/‖K₀‖", "o-"), ("distance", "1 − cos(K, K₀)", "s-")):
        spread(axes, x, scalars(groups, "regime", f"kernel_{name}_train"), style, label)
    axes.set(xscale="log", yscale="log", xlabel="|Λ|/s at the start", ylabel="movement of the kernel")
    axes.set_title("from rich to lazy")
    axes.legend(fontsize="small")


PANELS = (modes, errors, emergence, balance, paths, movement)
