"""A result as a figure file, by matplotlib (the `plot` extra)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tscope_format import Result, UsageError, clean

from tscope_cli.readings import layers, series
from tscope_cli.view import Panel, View
from tscope_cli.views import drawn, thin, view_of

SUFFIXES = (".svg", ".png", ".pdf")
# Okabe and Ito's colours, with dashes: never told apart by colour alone.
_STYLES: dict[str, dict[str, str]] = {
    "actual": {"color": "#000000", "linestyle": "-"},
    "telescoped": {"color": "#0072B2", "linestyle": "--"},
    "lazy": {"color": "#D55E00", "linestyle": ":"},
}
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
DASHES = ("-", "--", "-.")
_RC: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "tscope",  # the same result gives the same file
}
_POINTS = 2000  # a curve finer than the figure's pixels only makes the SVG large
_WINDOWS = 200
_SPECTRA = {"eigenvalues_train": "training examples", "eigenvalues_test": "examples of the probe set"}
_EXAMPLES = 3
_LAYERS = 8

# matplotlib is an optional dependency without types here: its Axes are Any.
Drawing = Callable[[Any], None]


def check(path: Path) -> None:
    """Refuse, before any work, a figure that could not be written.

    Raises:
        UsageError: matplotlib is not installed, the suffix is not one of ours, or the folder does not exist.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot {path}: the name must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--plot {path}: there is no folder {path.absolute().parent}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "--plot needs matplotlib, which is not installed: pip install 'tscope[plot]'"
        ) from error


def save(result: Result, path: Path, title: str) -> None:
    """Draw the result and write it to `path`; its suffix chooses the kind.

    Raises:
        UsageError: The file cannot be written, or the result has nothing to draw.
    """
    check(path)
    view = view_of(result)
    drawings = _drawings(result, view)
    if not drawings:
        raise UsageError(f"--plot: a result of {result.metric} has no series to draw")
    write(drawings, path, title, view.axis)


def write(drawings: Sequence[Drawing], path: Path, title: str, axis: str) -> None:
    """Write a figure of several pairs of axes, two abreast, over what `axis` says.

    Raises:
        UsageError: The file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    columns, rows = min(2, len(drawings)), (len(drawings) + 1) // 2
    with rc_context(_RC):
        # A Figure of its own instead of pyplot: no display, no global state.
        figure = Figure(figsize=(5.4 * columns, 3.1 * rows + 0.4), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, draw in zip(grid, drawings, strict=False):
            axes.set_xlabel(axis)
            axes.grid(alpha=0.25, linewidth=0.5)
            draw(axes)
        for axes in grid[len(drawings) :]:
            axes.set_visible(False)
        figure.suptitle(plain(title), fontsize=10, x=0.01, ha="left")
        try:
            figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
        except OSError as error:
            raise UsageError(f"--plot {path}: cannot be written: {error.strerror or error}") from error


def _drawings(result: Result, view: View) -> list[Drawing]:
    """Return what goes into each pair of axes, in order."""
    drawings: list[Drawing] = []
    if all(name in result.arrays and result.arrays[name].data.ndim == 3 for name in _STYLES):
        drawings.append(partial(_draw_predictions, result, view.coordinate))
    drawings.extend(partial(_draw_panel, result, view.coordinate, panel) for panel in view.panels)
    if "contribution" in result.arrays and len(result.arrays["contribution"].data) > 1:
        drawings.append(partial(_draw_contributions, result, view.coordinate))
    spectrum = next((name for name in _SPECTRA if name in result.arrays), None)
    if spectrum is not None:
        drawings.append(partial(_draw_spectrum, result, spectrum))
    if any(f"layer_rise_{name}" in result.arrays for name in ("test", "train")):
        drawings.append(partial(_draw_layer_rises, result))
    if "kernel" in result.arrays:
        drawings.append(partial(_draw_kernel, result))
    return drawings


def _draw_predictions(result: Result, coordinate: str, axes: Any) -> None:
    """Draw the output that moves most, of a few examples, from arrays (step, example, output)."""
    steps = series(result, coordinate)
    keep = thin(steps.size, _POINTS)
    actual = np.asarray(result.arrays["actual"].data, dtype=np.float64)
    moved = np.nan_to_num(np.abs(actual[-1] - actual[0]).mean(axis=0))
    output = int(moved.argmax())
    ranked = np.argsort(actual[-1, :, output], kind="stable")
    examples = ranked[np.linspace(0, ranked.size - 1, min(_EXAMPLES, ranked.size)).round().astype(int)]
    for kind, style in _STYLES.items():
        values = np.asarray(result.arrays[kind].data, dtype=np.float64)[:, examples, output]
        for column, _ in enumerate(examples):
            axes.plot(
                steps[keep], values[keep, column], label=kind if column == 0 else None, linewidth=1.2, **style
            )
    chosen = ", ".join(str(int(example)) for example in examples)
    axes.set_title(f"output {output} of probe examples {chosen}")
    axes.legend()


def _draw_panel(result: Result, coordinate: str, panel: Panel, axes: Any) -> None:
    """Draw the curves of one panel over the steps."""
    steps = series(result, coordinate)
    keep = thin(steps.size, _POINTS)
    for index, curve in enumerate(panel.curves):
        style = _STYLES.get(curve.title, {"color": CYCLE[index % len(CYCLE)]})
        values = drawn(result, panel, curve)
        axes.plot(steps[keep], values[keep], label=plain(curve.title), linewidth=1.3, **style)
    if panel.log:
        axes.set_yscale("log")
    axes.set_title(plain(panel.title))
    if len(panel.curves) > 1:
        axes.legend()


def _draw_contributions(result: Result, coordinate: str, axes: Any) -> None:
    """Draw ‖J^(l) Δθ^(l)‖ (step, layer) of the largest layers, averaged over windows of steps."""
    steps = series(result, coordinate)
    values = np.nan_to_num(np.asarray(result.arrays["contribution"].data, dtype=np.float64)[1:])
    names = layers(result, values.shape[1])
    edges = np.linspace(0, len(values), min(_WINDOWS, len(values)) + 1).astype(int)
    means = np.array([values[a:b].mean(axis=0) for a, b in pairwise(edges)])
    largest = np.argsort(-means.mean(axis=0), kind="stable")[:_LAYERS]
    for index, layer in enumerate(largest):
        axes.plot(
            steps[1:][edges[1:] - 1],
            np.where(means[:, layer] > 0, means[:, layer], np.nan),
            label=plain(names[layer]),
            color=CYCLE[index % len(CYCLE)],
            linestyle=DASHES[index % len(DASHES)],
            linewidth=1.1,
        )
    axes.set_yscale("log")
    axes.set_title("contribution per layer and step, norm of J Δθ over the probe")
    axes.legend(ncols=2)


def _draw_spectrum(result: Result, name: str, axes: Any) -> None:
    """Draw the largest eigenvalues (step, eigenvalue) at the first and the last step."""
    steps = result.arrays["step"].data
    for index, row in enumerate(dict.fromkeys((0, len(steps) - 1))):
        values = np.asarray(result.arrays[name].data[row], dtype=np.float64)
        axes.plot(
            np.arange(1, values.size + 1),
            np.where(values > 0, values, np.nan),
            label=f"step {int(steps[row])}",
            color=CYCLE[index],
            linestyle=DASHES[index],
            marker=".",
            linewidth=1.1,
        )
    axes.set_yscale("log")
    axes.set_xlabel(f"largest eigenvalues, {_SPECTRA[name]}")
    axes.set_title("spectrum")
    axes.legend()


def _draw_layer_rises(result: Result, axes: Any) -> None:
    """Draw how the loss rises with one layer averaged half-way (base, layer), in either model."""
    name = "test" if "layer_rise_test" in result.arrays else "train"
    values = np.asarray(result.arrays[f"layer_rise_{name}"].data, dtype=np.float64)
    places = np.arange(values.shape[1])
    for base, own in enumerate(values):
        label = f"within the {('first', 'second')[base]} model"
        axes.barh(places + 0.4 * base - 0.2, own, height=0.38, color=CYCLE[base], label=label)
    axes.set_yticks(places, [plain(layer) for layer in layers(result, places.size)])
    axes.invert_yaxis()
    axes.set_xlabel("loss, less that of the model itself")
    axes.set_title(
        f"rise of the loss with one layer averaged, {'held-out' if name == 'test' else 'training'} examples"
    )
    axes.legend()


def _draw_kernel(result: Result, axes: Any) -> None:
    """Draw the last matrix (point, output, point, output), averaged over outputs, ordered by label."""
    matrix = np.asarray(result.arrays["kernel"].data[-1], dtype=np.float64)
    pairs = np.einsum("icjc->ij", matrix) / matrix.shape[1]
    count = len(result.arrays["train"].data) if "train" in result.arrays else 0
    order = np.arange(len(pairs))
    for part, name in ((slice(0, count), "train"), (slice(count, None), "test")):
        if f"label_{name}" in result.arrays:
            labels = np.asarray(result.arrays[f"label_{name}"].data)
            key = labels[:, 0] if labels.shape[1] == 1 else labels.argmax(1)
            order[part] = order[part][np.argsort(key, kind="stable")]
    axes.imshow(pairs[order][:, order], cmap="viridis", interpolation="nearest")
    for border in () if count in (0, len(pairs)) else (count - 0.5,):
        axes.axhline(border, color="#FFFFFF", linewidth=0.8)
        axes.axvline(border, color="#FFFFFF", linewidth=0.8)
    axes.grid(visible=False)
    axes.set_xlabel("examples by label: training, then held-out" if count else "examples by label")
    axes.set_title(f"K at step {int(result.arrays['matrix_step'].data[-1])}, mean over outputs")


def plain(text: str) -> str:
    """Return text that matplotlib shows as it is: a dollar sign would start mathematics."""
    return clean(text).replace("$", r"\$")
