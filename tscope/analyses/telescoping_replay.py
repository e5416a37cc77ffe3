"""Telescoping by replay: the predictions and the parts of each change, at any row, on any examples."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tscope.analyses.layers import layers
from tscope.analyses.predictions import Changes, Predictions, require_start
from tscope.analyses.rules import RULES
from tscope.replay import LazyModel, Projection, Replay, probing, project, replay_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.analyses.metric import Progress
    from tscope.analyses.telescoping import Options
    from tscope.probes import ProbeSet
    from tscope.trace import Trace


def replay(
    trace: Trace, probe: ProbeSet, options: Options, progress: Progress
) -> tuple[Predictions, dict[str, Any]]:
    """Compute the predictions anew, and say how it was done, for the provenance."""
    dtype = replay_dtype(trace, options.dtype)
    evaluation, shape, note = probing(
        trace,
        probe,
        dtype=dtype,
        model=options.model,
        output=options.probe_output,
        max_bytes=options.max_memory_mb * 1e6,
    )
    rows = [*range(0, trace.rows - 1, options.every), trace.rows - 1]
    run = Replay(trace, dtype=dtype)
    _, theta, buffers = next(run.at(rows[:1]))
    lazy = LazyModel(evaluation, theta, buffers, len(rows))
    groups = layers(trace.parameters) if options.layers else None
    parts = _Parts(groups, options.per_layer_full)
    start = time.perf_counter()
    stopped = None
    for projection in project(run, evaluation, rows, RULES[options.rule], groups, lazy):
        if not _finite(projection):
            require_start(projection.row > 0)
            stopped = int(trace.steps[projection.row])
            break
        parts.add(projection)
        progress(len(parts.rows), len(rows))
    seconds = time.perf_counter() - start
    how = {
        "dtype": str(dtype).removeprefix("torch."),
        "functional": evaluation.functional.kind,
        "functional_note": note,
        "output_shape": list(shape),
        "model": "program" if options.model is None else "user",
        "lazy": lazy.form,
        "chunk": evaluation.chunk,
        "seconds": seconds,
        "rows_per_second": len(parts.rows) / seconds,
        "torch": torch.__version__,
    }
    return parts.predictions(trace.steps, stopped), how


class _Parts:
    """Collects projections, and reduces the layers' parts, which are large, as they come."""

    def __init__(self, groups: dict[str, tuple[str, ...]] | None, keep_layers: bool) -> None:
        self.names = tuple(groups or ())
        self.rows: list[int] = []
        self._keep = keep_layers
        self._values: dict[str, list[NDArray[Any]]] = {}

    def add(self, projection: Projection) -> None:
        """Take the projection of the next row."""
        output, held = (value.numpy().astype(np.float64) for value in (projection.output, projection.held))
        before = self._values["output"][-1] if self.rows else output
        change, drift = output - before, output - held
        first_order = projection.gradient.numpy().astype(np.float64)
        if projection.layers is not None:
            by_layer = projection.layers.numpy().astype(np.float64)
            first_order = by_layer.sum(0)
            self._append("layer", np.sqrt(np.square(by_layer).sum((1, 2))))
            self._append("layer_share", np.array([_share(part, change) for part in by_layer]))
            if self._keep:
                self._append("per_layer", projection.layers.numpy())
        residual = held - before - first_order
        self.rows.append(projection.row)
        self._append("output", projection.output.numpy())
        self._append("gradient", projection.gradient.numpy())
        self._append("lazy", projection.lazy.numpy())
        for name, part in {"gradient": first_order, "residual": residual, "buffer": drift}.items():
            self._append(f"{name}_norm", np.asarray(np.linalg.norm(part)))
            self._append(f"{name}_share", np.asarray(_share(part, change)))
        self._append("check", np.abs(change - (first_order + residual + drift)).max())

    def predictions(self, steps: NDArray[np.int64], stopped: int | None) -> Predictions:
        """Return what was collected as arrays."""
        stacked = {name: np.stack(values) for name, values in self._values.items()}
        empty = np.zeros((len(self.rows), 0))
        changes = Changes(
            layers=self.names,
            layer=stacked.get("layer", empty),
            layer_share=stacked.get("layer_share", empty),
            gradient=stacked["gradient_norm"],
            residual=stacked["residual_norm"],
            buffer=stacked["buffer_norm"],
            residual_share=stacked["residual_share"],
            buffer_share=stacked["buffer_share"],
            check=float(stacked["check"].max()),
            per_layer=stacked.get("per_layer"),
        )
        return Predictions(
            steps[self.rows], stacked["output"], stacked["gradient"], stacked["lazy"], stopped, changes
        )

    def _append(self, name: str, value: NDArray[Any]) -> None:
        self._values.setdefault(name, []).append(value)


def _share(part: NDArray[Any], change: NDArray[Any]) -> float:
    """Return ⟨part, Δf⟩ / ‖Δf‖², 0 where nothing changed."""
    square = float(np.vdot(change, change))
    return float(np.vdot(part, change)) / square if square > 0 else 0.0


def _finite(projection: Projection) -> bool:
    return all(
        bool(torch.isfinite(value).all())
        for value in (projection.output, projection.gradient, projection.lazy)
    )
