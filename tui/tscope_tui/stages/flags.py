"""The options of the analyses, as they are typed: those whose values do not go without saying."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from tscope_format.errors import clean

# The options of an analysis that its numbers depend on, with the values that go without saying.
_OPTIONS: Mapping[str, Mapping[str, object]] = {
    "effective-params": {
        "form": "auto",
        "rtol": 0.05,
        "max_memory_mb": 2048,
        "probe": None,
        "test": None,
        "seed": 0,
        "every": 1,
        "loss": "auto",
        "labels": None,
        "decay": "propagated",
        "dtype": None,
    },
    "kernel": {
        "at": None,
        "every": None,
        "preconditioned": False,
        "train": None,
        "test": None,
        "probe": None,
        "probe_output": None,
        "seed": 0,
        "eigenvalues": 10,
        "layers": True,
        "matrix": None,
        "loss": "auto",
        "labels": None,
        "dtype": None,
        "max_memory_mb": 2048,
    },
    "updates": {
        "probe": None,
        "steps": None,
        "every": 1,
        "layers": True,
        "influence": None,
        "top": 5,
        "probe_output": None,
        "dtype": None,
        "max_memory_mb": 512,
    },
    "weight-averaging": {
        "against": None,
        "at": None,
        "points": 11,
        "match": False,
        "recalibrate": True,
        "layers": True,
        "every": None,
        "starts": "0.25,0.5,0.75,0.9",
        "decays": "0.9,0.97,0.99,0.995,0.999",
        "counts": "2,3,5,10",
        "train": None,
        "test": None,
        "probe": None,
        "seed": 0,
        "loss": "auto",
        "labels": None,
        "threshold": None,
        "dtype": None,
        "max_memory_mb": 512,
    },
    "gradients": {
        "since": None,
        "at": None,
        "every": None,
        "stable": 0.1,
        "train": None,
        "test": None,
        "probe": None,
        "probe_output": None,
        "seed": 0,
        "recalibrate": True,
        "dtype": None,
        "max_memory_mb": 1024,
    },
    "layers": {
        "parts": None,
        "every": None,
        "singular_values": 5,
        "probe": None,
        "probe_output": None,
        "loss": "auto",
        "labels": None,
        "dtype": None,
        "max_memory_mb": 512,
    },
    "regime": {
        "parts": None,
        "at": None,
        "every": None,
        "train": None,
        "test": None,
        "probe": None,
        "seed": 0,
        "loss": "auto",
        "labels": None,
        "dtype": None,
        "max_memory_mb": 1024,
    },
    "neural-collapse": {
        "at": None,
        "every": None,
        "train": None,
        "test": None,
        "probe": None,
        "seed": 0,
        "loss": "auto",
        "labels": None,
        "dtype": None,
        "max_memory_mb": 512,
    },
    "boosting": {
        "against": None,
        "against_root": None,
        "irregularity": "pca",
        "irregular": 0.1,
        "shares": "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1",
        "draws": 50,
        "seed": 0,
        "probe": None,
        "every": None,
        "preconditioned": False,
        "train": None,
        "dtype": None,
        "max_memory_mb": 512,
    },
    "events": {
        "fit": 0.99,
        "rise": 0.2,
        "spike": 2.0,
        "diverge": 10.0,
        "sure": 0.99,
        "probe": None,
        "threshold": None,
        "loss": "auto",
        "labels": None,
    },
    "telescoping": {
        "probe": None,
        "replay": False,
        "rule": "left",
        "every": 1,
        "dtype": None,
        "layers": True,
        "probe_output": None,
        "threshold": None,
        "model": None,
    },
}


def flags(metric: str, options: Mapping[str, object]) -> list[str]:
    """Return options of an analysis for the command line, without those that go without saying."""
    return [flag(name, value) for name, value in chosen_options(metric, options).items()]


def chosen_options(metric: str, options: Mapping[str, object]) -> dict[str, object]:
    """Return the options that do not go without saying."""
    usual = _OPTIONS[metric]
    return {
        name: value
        for name, value in options.items()
        if name in usual and value != usual[name] and isinstance(value, bool | int | float | str)
    }


def flag(name: str, value: object) -> str:
    """Return one option for the command line."""
    option = f"--{name.removesuffix('_mb').replace('_', '-')}"
    if isinstance(value, bool):
        return option if value else f"--no-{name}"
    return f"{option} {word(value)}"


def word(value: object) -> str:
    """Return a value as one word of a command line."""
    return clean(shlex.quote(str(value)))


def analyse_text(path: Path, metric: str) -> str:
    """Return the command that computes a metric of a trace, as one types it."""
    return f"tscope analyze {word(path)} --metric {metric}"
