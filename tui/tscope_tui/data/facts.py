"""What was recorded, in words: the lines of the `recorded` pane."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tscope_format.errors import TscopeError, clean

from tscope_tui.plot import compact

if TYPE_CHECKING:
    from tscope_format import RootReader, TraceReader

# Hyper-parameters that choose an implementation rather than a result, or that have a line of their own.
_UNINFORMATIVE = frozenset(
    {"lr", "foreach", "fused", "capturable", "differentiable", "maximize", "initial_lr"}
)

Facts = tuple[tuple[str, str], ...]


def facts_of(reader: TraceReader, root: RootReader | None) -> Facts:
    """Return label and text of everything known about a run, every text cleaned."""
    lines: list[tuple[str, str]] = []
    if root is not None:
        lines.append(("model", _model(root)))
        lines += [("optimizer", text) for text in _optimizers(root.attributes.get("optimizers"))]
        rates = _rates(root)
        if rates:
            lines.append(("lr", rates))
        lines.append(("has", ", ".join(_has(root))))
        lacks = _lacks(root)
        if lacks:
            lines.append(("lacks", ", ".join(lacks)))
    else:
        lines.append(("has", "nothing: no model was trained while it was recorded"))
    lines += _run(reader.facts)
    return tuple((label, clean(text)) for label, text in lines if text)


def _model(root: RootReader) -> str:
    parameters = sum(tensor.size for tensor in root.parameters)
    name = root.attributes.get("class", root.name)
    if root.attributes.get("kind") == "trees":
        return f"{name}, {root.rows - 1} trees"
    return f"{name}, {compact(parameters)} parameters in {len(root.parameters)} tensors"


def _optimizers(found: Any) -> list[str]:
    """Return each optimizer's class and the hyper-parameters that are set."""
    texts = []
    for optimizer in found if isinstance(found, Sequence) and not isinstance(found, str) else ():
        if not isinstance(optimizer, Mapping):
            continue
        settings: dict[str, list[str]] = {}
        for group in optimizer.get("groups") or ():
            for name, value in (group.get("hyper") or {}).items():
                if name not in _UNINFORMATIVE and value not in (None, False, 0, "None"):
                    text = _value(value)
                    if text not in settings.setdefault(str(name), []):
                        settings[str(name)].append(text)
        words = [f"{name} {'/'.join(values)}" for name, values in settings.items()]
        texts.append(" ".join([str(optimizer.get("class", "?")), *words]))
    return texts


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "(" + ", ".join(map(_value, value)) + ")" if isinstance(value, list | tuple) else str(value)


def _rates(root: RootReader) -> str:
    """Return the learning rates of the first and last step, per parameter group."""
    if "lr" not in root.arrays() or root.rows < 2:
        return ""
    first, last = (np.atleast_1d(root.read("lr", row, row + 1)[0]) for row in (1, root.rows - 1))
    words = []
    for begin, end in zip(first.tolist(), last.tolist(), strict=True):
        if end == end:
            words.append(f"{end:g}" if begin == end or begin != begin else f"{begin:g} → {end:g}")
    return ", ".join(dict.fromkeys(words))


def _has(root: RootReader) -> list[str]:
    arrays = root.arrays()
    names = {
        "loss": "loss",
        "grad_norm": "gradient norms",
        "theta/update": "every update",
        "theta/state": "parameters at a few rows",
        "trees/leaf": "every tree, and the leaf of each example",
    }
    has = [text for name, text in names.items() if name in arrays]
    if "batch/output" in arrays:
        has.append("batch outputs")
    for probe in root.probes:
        info = arrays.get(f"probe/{probe}/output")
        rows = f" at {info.shape[0]} rows" if info is not None and info.shape[0] != root.rows else ""
        size = f" ({info.shape[1]} examples × {info.shape[2]} outputs{rows})" if info is not None else ""
        has.append(f"probe {clean(probe)}{size}")
        sketch = arrays.get(f"probe/{probe}/sketch")
        if sketch is not None:
            has.append(f"sketches at {sketch.shape[0]} rows ({sketch.shape[3]} columns)")
    if "program/graph" in arrays:
        has.append("model as data")
    return has


def _lacks(root: RootReader) -> list[str]:
    arrays = root.arrays()
    kept = root.attributes.get("updates") != "none"
    lacks = [] if kept else ["updates (record without --updates none)"]
    if not root.probes:
        lacks.append("probe set (record --probe)")
    elif not any(f"probe/{probe}/jvp" in arrays for probe in root.probes):
        lacks.append("projections" + (" (analyze --replay)" if kept else ""))
    if root.attributes.get("kind") == "trees":
        problem = (root.attributes.get("check") or {}).get("problem")
        return [*lacks, f"an exact smoother ({problem})"] if problem else lacks
    if "batch/output" not in arrays:
        lacks.append("batch outputs (record --outputs)")
    if "program/graph" not in arrays:
        reason = root.attributes.get("program")
        why = reason.get("reason") if isinstance(reason, Mapping) else None
        lacks.append(f"model as data ({why})" if why else "model as data")
    return lacks


def _run(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    command = facts.get("command")
    words = " ".join(map(str, command)) if isinstance(command, list | tuple) else str(command or "")
    lines = [("command", words), ("folder", str(facts.get("cwd") or ""))]
    git = facts.get("git")
    if isinstance(git, Mapping):
        commit = str(git.get("commit") or git.get("sha") or "")[:10]
        git = commit + (" (dirty)" if git.get("dirty") else "")
    host = facts.get("host") or facts.get("hostname")
    versions = [f"{name} {facts[name]}" for name in ("python", "torch") if isinstance(facts.get(name), str)]
    lines += [("git", str(git or "")), ("host", str(host or "")), ("versions", ", ".join(versions))]
    return [(label, text) for label, text in lines if text]


def facts_at(path: str | os.PathLike[str]) -> Facts:
    """Return the facts of a trace by its path; why it cannot be read when it cannot."""
    from tscope_format import open_trace

    try:
        reader = open_trace(os.fspath(path))
        return facts_of(reader, reader.root(reader.roots[0]) if reader.roots else None)
    except (TscopeError, OSError, ValueError, KeyError, TypeError) as error:
        return (("error", clean(error)),)
