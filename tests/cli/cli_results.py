"""A telescoping result made up for the tests of tables, charts, files and figures."""

from __future__ import annotations

import numpy as np
from tscope_format.results import Array, Result


def telescoping(steps: int = 40, examples: int = 6, outputs: int = 2, *, layers: bool = True) -> Result:
    """Return a result in which the lazy model falls behind and the telescoped one does not."""
    rng = np.random.default_rng(0)
    step = np.arange(steps + 1)
    slope = rng.normal(size=(examples, outputs))
    actual = step[:, None, None] * slope / max(steps, 1)
    telescoped, lazy = 0.99 * actual, 0.5 * actual
    error = {"telescoped": np.abs(actual - telescoped), "lazy": np.abs(actual - lazy)}
    series, full = ("step",), ("step", "example", "output")
    arrays = {
        "step": Array(series, step),
        "actual": Array(full, actual),
        "telescoped": Array(full, telescoped),
        "lazy": Array(full, lazy),
        "residual_relative": Array(series, np.where(step > 0, 0.02, np.nan)),
        "agreement_telescoped": Array(series, np.ones(steps + 1)),
        "agreement_lazy": Array(series, np.linspace(1.0, 0.5, steps + 1)),
        **{f"error_{kind}": Array(series, values.mean((1, 2))) for kind, values in error.items()},
    }
    if layers:
        arrays["contribution"] = Array(("step", "layer"), np.outer(step > 0, [3.0, 1.0]))
    return Result(
        metric="telescoping",
        scalars={
            "probe": "heldout",
            "steps": steps,
            "final_error_telescoped": float(error["telescoped"][-1].mean()),
            "final_error_lazy": float(error["lazy"][-1].mean()),
            "undefined": float("nan"),
        },
        arrays=arrays,
        provenance={"layers": ["fc1", "head$\x1b[2J"]},
        notes=("a note of the analysis\x1b[2J",),
    )
