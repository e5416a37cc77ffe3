"""Saved results of the metrics of view 6, with their arrays, for the tests of the terminal interface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tscope_format import Array, Result, save_result

LAYERS = ("net.body.0", "net.body.2", "net.head")
MATRICES = tuple(f"{name}.weight" for name in LAYERS)
PAIRS = ("net.body.0 → net.body.2", "net.body.2 → net.head")
Along = np.ndarray


def layers_result(
    steps: int = 120,
    *,
    parts: tuple[str, ...] = ("spectra", "balance"),
    options: Mapping[str, object] | None = None,
) -> Result:
    """Return three layers: the first moves most, the last contributes most; every second step is a row."""
    step = np.arange(0, steps + 1, 2)
    along = step / steps
    ends = np.array([4.0, 3.0, 2.0])
    norm = 1 + along[:, None] * ends
    started = (step > 0)[:, None]
    signed = np.array([0.2, 0.3, 0.49]) * started
    arrays = {
        "step": Array(("step",), step),
        "theta_norm": Array(("step", "layer"), norm),
        "update_norm": Array(("step", "layer"), 0.1 * np.exp(-along)[:, None] * ends * started),
        "movement": Array(("step", "layer"), along[:, None] * ends / 4),
        "theta_norm_all": Array(("step",), np.sqrt((norm**2).sum(1))),
        "update_norm_all": Array(("step",), 0.2 * np.exp(-along) * started[:, 0]),
        "movement_all": Array(("step",), along),
        "gradient_norm": Array(("step", "layer"), np.where(started, 1 / (1 + norm), np.nan)),
        "contribution": Array(("step", "layer"), 3 * signed),
        "contribution_signed": Array(("step", "layer"), signed),
        "residual_relative": Array(("step",), 0.05 * started[:, 0]),
        "loss_contribution": Array(("step", "layer"), -0.01 * signed),
        "loss_change": Array(("step",), -0.008 * started[:, 0]),
        "loss_residual": Array(("step",), 0.0019 * started[:, 0]),
    }
    provenance: dict[str, object] = {"layers": list(LAYERS), "loss": "mse", "options": dict(options or {})}
    if "spectra" in parts:
        sigma = (1 + along[:, None, None] * ends[:, None]) * np.array([4.0, 2.0, 1.0])
        sigma[:, 2, 2] = np.nan  # the head has two
        arrays |= {
            "singular_values": Array(("step", "matrix", "value"), sigma),
            "effective_rank": Array(("step", "matrix"), 3 - along[:, None] * ends / 4),
            "stable_rank": Array(("step", "matrix"), np.full((step.size, 3), 1.3)),
        }
        provenance["matrices"] = list(MATRICES)
    if "balance" in parts:
        off = np.outer(along, [1e-9, 1e-8])
        arrays |= {
            "balance": Array(("step", "pair"), 1 + along[:, None] * [0.5, 0.1]),
            "balance_drift": Array(("step", "pair"), along[:, None] * [0.5, 0.1]),
            "balance_off": Array(("step", "pair"), off),
            "balance_flow": Array(("step", "pair"), np.ones((step.size, 2))),
        }
        provenance |= {"pairs": list(PAIRS), "linear_pairs": [True, False]}
    scalars = {"layers": 3, "steps": steps, "every": 2, "probe": "heldout", "optimizer": "SGD"}
    scalars |= {"balance_check": 3e-9} if "balance" in parts else {}
    return Result("layers", scalars, arrays, provenance, ("2 rows are taken together",))


def regime_result(steps: int = 120, *, modes: int = 3, kernel: bool = True, held: bool = True) -> Result:
    """Return modes that are learnt one after the other, a little behind their closed forms."""
    step = np.arange(0, steps + 1, 3)
    along = step / steps
    sets = ("train", "test") if held else ("train",)
    arrays = {"step": Array(("step",), step), "movement": Array(("step",), 9 * along)}
    for part in sets:
        arrays[f"feature_movement_{part}"] = Array(("step",), 8 * along)
        if kernel:
            arrays |= {
                f"kernel_movement_{part}": Array(("step",), 90 * along**2),
                f"kernel_distance_{part}": Array(("step",), 0.3 * along * (1.5 - along)),
                f"kernel_alignment_{part}": Array(("step",), 0.1 + 0.5 * along),
            }
    notes = () if kernel else ("no kernel: 1200 MB are not enough",)
    scalars: dict[str, float | int | str | bool | None] = {"steps": steps}
    provenance: dict[str, object] = {"features": "head", "options": {"at": None, "every": 3, "train": 64}}
    if modes:
        target = np.array([4.0, 2.0, 1.0, 0.5, 0.25, 0.1])[:modes]
        half = 30.0 / target
        strength, closed = (target / (1 + np.exp((half - lead - step[:, None]) / 4)) for lead in (0, 3))
        arrays |= {
            "target": Array(("mode",), target),
            "frequency": Array(("mode",), np.ones(modes)),
            "strength": Array(("step", "mode"), strength),
            "strength_closed": Array(("step", "mode"), closed),
            "strength_unbalanced": Array(("step", "mode"), 0.9 * closed),
            "index": Array(("step", "mode"), np.outer(1 - along, 1 / target)),
            "half_step": Array(("mode",), half),
            "half_step_closed": Array(("mode",), np.where(half < steps, half - 3, np.nan)),
            "time": Array(("step",), 0.1 * step),
        }
        scalars |= {"depth": 2, "modes": modes, "whiteness": 1e-3, "index": 0.25, "closed_off": 0.04}
        provenance["chain"] = ["0.weight", "1.weight"]
    else:
        notes = (*notes, "no modes: the model is not linear: it has relu")
    return Result("regime", scalars, arrays, provenance, notes)


def collapse_result(steps: int = 120, *, held: bool = True) -> Result:
    """Return features of training examples that collapse to a tenth, and of held-out ones that do not."""
    step = np.arange(0, steps + 1, 4)
    along = step / steps
    arrays = {"step": Array(("step",), step)}
    for part in ("train", "test") if held else ("train",):
        end = 0.1 if part == "train" else 0.6
        fall = np.exp(np.log(end) * along)
        arrays |= {
            f"{name}_{part}": Array(("step",), scale * fall)
            for name, scale in (
                ("nc1", 2.0),
                ("nc2_norm", 0.4),
                ("nc2_cosine_sd", 0.3),
                ("nc3", 1.2),
                ("nc4", 0.5),
            )
        }
        arrays |= {
            f"nc2_angle_{part}": Array(("step",), 0.2 * fall),
            f"within_{part}": Array(("step",), 8 * fall),
            f"between_{part}": Array(("step",), 4 + 0 * fall),
            f"rank_{part}": Array(("step",), np.full(step.size, 9)),
            f"accuracy_{part}": Array(("step",), 1 - 0.5 * fall),
            f"accuracy_nearest_{part}": Array(("step",), 1 - 0.4 * fall),
        }
    scalars = {
        "layer": "net.head",
        "classes": 10,
        "features": 64,
        "examples_train": 300,
        "examples_test": 100 if held else 0,
        "probe": "heldout" if held else None,
    }
    notes = () if held else ("no held-out examples: give some with `--probe FILE.npz` (x, y)",)
    return Result("neural-collapse", scalars, arrays, {"options": {"probe": "held set.npz"}}, notes)


def save_all(path: Path) -> Path:
    """Save a result of each in a trace."""
    for result in (layers_result(), regime_result(), collapse_result()):
        save_result(path, result, "model")
    return path
