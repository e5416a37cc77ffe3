"""How the metric `regime` is shown: movements, modes beside their closed forms, and a table of modes."""

from __future__ import annotations

import math

import numpy as np
from tscope_format import Result

from tscope_cli.numerals import significant
from tscope_cli.table import Column, render
from tscope_cli.view import Curve, Panel, View

_MODES = 3  # in one pair of axes


def view(result: Result) -> View:
    """Return the view of a result: its modes have a pair of axes where there are any."""
    modes: list[Curve] = []
    if "strength" in result.arrays:
        for mode in range(min(_MODES, result.arrays["strength"].data.shape[1])):
            modes.append(Curve("strength", f"mode {mode}", column=mode))
            modes.append(Curve("strength_closed", f"mode {mode}, closed form", column=mode))
    movements = (
        Curve("movement", "parameters"),
        Curve("kernel_movement_train", "kernel"),
        Curve("feature_movement_train", "features"),
    )
    return View(
        coordinate="step",
        columns=(
            *movements,
            Curve("kernel_movement_test", "kernel held-out"),
            Curve("feature_movement_test", "features held-out"),
            Curve("kernel_distance_train", "kernel distance"),
            Curve("kernel_alignment_train", "alignment"),
        ),
        panels=(
            *([Panel("modes of the network and their closed forms", tuple(modes))] if modes else []),
            Panel("movement from the start, relative", movements, log=True),
            Panel("alignment of the kernel with the labels", (Curve("kernel_alignment_train", "training"),)),
        ),
        reading=reading,
    )


def tables(result: Result) -> list[tuple[str, list[str]]]:
    """Return the title and the lines of the table of modes; nothing without any."""
    if result.metric != "regime" or "strength" not in result.arrays:
        return []
    strength = result.arrays["strength"].data
    index, closed, guided = (
        result.arrays.get(name) for name in ("index", "half_step_closed", "half_step_unbalanced")
    )
    columns = {
        "target s": result.arrays["target"].data,
        "D": result.arrays["frequency"].data,
        "start": strength[0],
        "end": strength[-1],
        "Λ/s": None if index is None else index.data[0],
        "half at step": result.arrays["half_step"].data,
        "balanced": None if closed is None else closed.data,
        "with Λ": None if guided is None else guided.data,
    }
    known = {head: values for head, values in columns.items() if values is not None}
    rows = [
        [str(mode), *(significant(float(values[mode])) for values in known.values())]
        for mode in range(strength.shape[1])
    ]
    return [("modes", render([Column("mode"), *(Column(head) for head in known)], rows))]


def reading(result: Result) -> tuple[str, ...]:
    """Return what moved, in words."""
    kernel = result.scalars.get("kernel_movement_train")
    moved = result.scalars.get("movement")
    lines = []
    if isinstance(moved, float) and isinstance(kernel, float) and math.isfinite(moved + kernel):
        lines.append(
            f"At step {result.scalars.get('steps')} the parameters have moved by {significant(moved, 3)} of "
            f"their size, and the kernel by {significant(kernel, 3)} of its own: a lazy run moves its kernel "
            "little."
        )
    off, guided = (result.scalars.get(name) for name in ("closed_off", "unbalanced_off"))
    if isinstance(off, float) and np.isfinite(off):
        lines.append(f"The modes follow their closed forms up to {significant(off, 2)} of their targets.")
    if isinstance(guided, float) and np.isfinite(guided):
        lines.append(
            f"They follow the form of their own start up to {significant(guided, 2)} of their targets."
        )
    return tuple(lines)
