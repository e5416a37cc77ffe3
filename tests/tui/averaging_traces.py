"""Saved averages, gradients and forks for the tests of view 5, as the metrics name their arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tscope_format import Array, Result, open_trace, save_result
from tui_traces import finished

LAYERS = ("fc1.weight", "fc1.bias", "head.weight")
SEEDS = (1, 2)


def between_result(
    members: Sequence[tuple[Path, int]],
    *,
    height: float = 0.3,
    fork: int | None = 40,
    labels: bool = True,
    options: Mapping[str, object] | None = None,
) -> Result:
    """Return averages between models: a barrier of so much held-out loss, half of it in training."""
    two = len(members) == 2
    x = np.sort(np.append(np.linspace(0, 1, 11), 0.47)) if two else np.arange(1.0, len(members) + 1)
    over = "alpha" if two else "models"
    hump = 4 * x * (1 - x) if two else 1 - 1 / x
    arrays = {over: Array((over,), x)}
    scalars: dict[str, float | int | str | bool | None] = {
        "form": "between two" if two else "among several",
        "loss": "cross_entropy",
        "examples_train": 64,
        "examples_test": 32,
        "models": len(members),
        "fork_step": fork,
        "recalibrated": True,
    }
    for of, share in (("train", 0.5), ("test", 1.0)):
        line = 0.2 * share + 0.1 * x
        excess = share * height * hump
        values = {"difference": hump, "predicted": 0.8 * hump, "curvature_members": 0.6 * hump}
        values |= {"explained": np.full(x.size, 0.75), "explained_alone": np.full(x.size, -2.5)}
        values |= {"share_average": np.full(x.size, 0.4), "share_members": np.full(x.size, 0.6)}
        if labels:
            values |= {
                "loss_average": line + excess,
                "loss_ensemble": line - 0.1 * hump,
                "loss_line": line,
                "loss_excess": excess,
                "accuracy_average": 0.9 - 0.5 * excess,
                "accuracy_ensemble": 0.9 + 0.05 * hump,
                "accuracy_line": np.full(x.size, 0.9),
                "accuracy_deficit": 0.5 * excess,
            }
            scalars |= {f"barrier_loss_{of}": float(excess.max()), f"barrier_accuracy_{of}": excess.max() / 2}
        arrays |= {f"{name}_{of}": Array((over,), own) for name, own in values.items()}
        scalars |= {f"identity_error_{of}": 6e-8, f"curvature_relative_a_{of}": 0.7}
        if two and labels:
            steps = np.arange(1.0, 1 + 2 * len(LAYERS)).reshape(2, -1)
            arrays[f"layer_barrier_{of}"] = Array(("base", "layer"), share * height * steps / 10)
            arrays[f"layer_rise_{of}"] = Array(("base", "layer"), share * height * (steps - 3) / 10)
    provenance = {
        "members": [
            {"trace": open_trace(path).fingerprint, "path": path.name, "root": "model", "step": step}
            for path, step in members
        ],
        "layers": list(LAYERS) if two else [],
        "probe": "heldout",
        "options": {"against": None, "at": None, **(options or {})},
    }
    return Result("weight-averaging", scalars, arrays, provenance, ("one note",))


def along_result(*, held: bool = True, options: Mapping[str, object] | None = None) -> Result:
    """Return averages along a run: EMA of 0.99 is best."""
    step = np.linspace(8, 120, 8).round()
    parts = ("train", "select", "test") if held else ("train",)
    names = [
        "tail from step 30",
        "SWA from step 30",
        "EMA of decay 0.9",
        "EMA of decay 0.99",
        "LAWA of 3 checkpoints",
    ]
    losses = np.array([0.4, 0.38, 0.36, 0.3, 0.35])
    arrays = {"step": Array(("step",), step), "candidate": Array(("candidate",), np.arange(5))}
    chosen = {"run": (None, 0.5), "tail": (0, 0.4), "swa": (1, 0.38), "ema": (3, 0.3), "lawa": (4, 0.35)}
    scalars: dict[str, float | int | str | bool | None] = {"form": "along a run", "loss": "cross_entropy"}
    scalars |= {"examples_train": 64, "examples_test": 32 if held else 0, "best": "EMA of decay 0.99"}
    for part in parts:
        more = {"train": -0.1, "select": 0.0, "test": 0.05}[part]
        arrays[f"candidate_loss_{part}"] = Array(("candidate",), losses + more)
        arrays[f"candidate_accuracy_{part}"] = Array(("candidate",), 1 - losses - more)
        for family, (_, loss) in chosen.items():
            scalars |= {f"loss_{family}_{part}": loss + more, f"accuracy_{family}_{part}": 1 - loss - more}
            if part != "select":
                course = loss + more + np.exp(-step / 40)
                course[:2] = course[:2] if family == "run" else np.nan
                arrays[f"loss_{family}_{part}"] = Array(("step",), course)
                arrays[f"accuracy_{family}_{part}"] = Array(("step",), 1 - course)
    provenance = {"candidates": names, "probe": "heldout" if held else None, "options": dict(options or {})}
    return Result("weight-averaging", scalars, arrays, provenance, ())


def gradients_result(
    since: Sequence[int] = (0, 20, 40, 80),
    steps: int = 120,
    *,
    stopped: int | None = None,
    options: Mapping[str, object] | None = None,
) -> Result:
    """Return changes of gradients: less from later t' on, most in the first layer, stable from step 40 on."""
    start, step = np.array(since, dtype=float), np.unique([*since, *range(0, steps + 1, 10)]).astype(float)
    moved = (step - start[:, None]) / steps * np.exp(-start[:, None] / 30)
    moved = np.where(step >= start[:, None], moved, np.nan)
    arrays = {"since": Array(("since",), start), "step": Array(("step",), step)}
    scalars: dict[str, float | int | str | bool | None] = {"stable": 0.1, "stopped": stopped, "steps": steps}
    for of, share in (("train", 1.0), ("test", 1.5)):
        by_layer = share * moved[..., None] * np.array([2.0, 1.0, 0.5])
        for kind, change in (("change", lambda v: v), ("cosine", lambda v: 1 - v / 4)):
            arrays[f"{kind}_{of}"] = Array(("since", "step"), change(share * moved))
            arrays[f"{kind}_layer_{of}"] = Array(("since", "step", "layer"), change(by_layer))
        arrays[f"stabilised_layer_{of}"] = Array(("layer",), np.array([80.0, 40.0, np.nan]))
        scalars[f"stabilised_{of}"] = 40
    provenance = {"layers": list(LAYERS), "options": dict(options or {})}
    return Result("gradients", scalars, arrays, provenance, ())


def save_between(path: Path, members: Sequence[tuple[Path, int]], **options: object) -> str:
    """Save a result of `between_result` in a trace."""
    return save_result(path, between_result(members, **options), "model")  # type: ignore[arg-type]


def family(base: Path, steps: Sequence[int] = (0, 40, 80), *, saved: bool = True) -> Path:
    """Write a run with two forks at each step, whose barriers fall with it, and differ by the seed."""
    entries, forks = [], []
    for step in steps:
        for seed in SEEDS:
            path = base.with_name(f"{base.stem}-fork{step}-seed{seed}.zarr")
            fork = {"step": step, "seed": seed, "base": base.name, "base_id": "base", "verified": True}
            finished(path, facts={"fork": {**fork, "same_until": step, "batches_from": step + 1}})
            forks.append((path, step, seed))
            entries.append({"trace": path.name, "step": step, "seed": seed, "same_until": step})
    finished(base, facts={"id": "base", "forks": entries})
    if saved:
        save_result(base, gradients_result(steps), "model")
        for path, step, seed in forks:
            height = (0.5 if seed == 1 else 0.3) * float(np.exp(-step / 40))
            save_between(
                path, [(path, 120), (base, 120)], height=height, fork=step, options={"against": base.name}
            )
            save_result(path, gradients_result([step]), "model")
    return base
