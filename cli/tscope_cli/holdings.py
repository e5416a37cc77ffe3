"""What one recorded model of a trace holds beyond its summary: arrays, probe sets, program, gaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tscope_format.errors import clean

from tscope_cli.numerals import plural

if TYPE_CHECKING:
    from tscope_format import ArrayInfo, RootReader


_ORIGINS = {"heldout": "what the script itself evaluated", "train": "the training rows"}


@dataclass(frozen=True)
class Probe:
    """A probe set: its size, where it comes from, and how far its projections go.

    Attributes:
        name: Its group.
        examples: Number of examples.
        outputs: Outputs of each that are followed.
        labels: Whether targets are known.
        in_sample: Whether its rows also occur in training.
        source: Where it comes from.
        functional: Which function of the output is projected.
        rows: Rows at which it was projected.
        missing: Rows of the run at which it was not.
        replayable: Whether replay can fill them.
        sketched: Rows at which its tangent kernel was sketched.
        columns: Of the sketches.
    """

    name: str
    examples: int
    outputs: int
    labels: bool
    in_sample: bool
    source: str
    functional: str
    rows: int
    missing: int
    replayable: bool = True
    sketched: int = 0
    columns: int = 0


@dataclass(frozen=True)
class Holdings:
    """What a recorded model holds.

    Attributes:
        recorded: What is there, one line each.
        lacks: What is not there and the option that records it.
        probes: The probe sets.
        projections_failed: Why projecting stopped during the run.
        program: Whether the model itself is in the trace.
        program_reason: Why it is not.
    """

    recorded: tuple[str, ...]
    lacks: tuple[str, ...]
    probes: tuple[Probe, ...]
    projections_failed: str | None
    program: bool
    program_reason: str | None


def holdings(root: RootReader) -> Holdings:
    """Return what a root holds, from its metadata alone."""
    arrays, attributes = root.arrays(), root.attributes
    exported = attributes.get("program")
    exported = exported if isinstance(exported, Mapping) else {}
    program = "program/graph" in arrays
    is_net = attributes.get("kind", "net") != "trees"
    held = program or not is_net
    recorded, lacks = _arrays(root, arrays) if is_net else _trees(root, arrays)
    return Holdings(
        recorded=recorded,
        lacks=lacks,
        probes=tuple(_probe(root, name, arrays) for name in root.probes),
        program=held,
        projections_failed=_reason(attributes.get("projections_failed")),
        program_reason=None if held else clean(exported.get("reason") or "it was never exported"),
    )


def _reason(value: object) -> str | None:
    return None if value is None else clean(value)


def _arrays(root: RootReader, arrays: Mapping[str, ArrayInfo]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    dtypes = dict.fromkeys(tensor.dtype for tensor in root.parameters)
    kept = ", ".join(map(clean, dtypes))
    if root.attributes.get("updates") == "none":
        rows = plural(arrays[_states(arrays)].shape[0], "row")
        recorded = [f"parameters at {rows}: 0, powers of two, the last; bit for bit ({kept})"]
        lacks = ["parameters at every row (record without --updates none)"]
    else:
        recorded = [f"parameters at every row, bit for bit ({kept})"]
        lacks = []
    if root.buffers:
        recorded.append(plural(len(root.buffers), "buffer"))
    if "examples/hash" in arrays:
        recorded.append(plural(arrays["examples/hash"].shape[0], "different training example"))
    else:
        lacks.append("the training examples: the model's output has no row for each input row")
    if "batch/output" in arrays:
        recorded.append("outputs and output gradients of every batch")
    else:
        lacks.append("outputs of the batches (record --outputs all)")
    state = sorted({name.split("/")[1] for name in arrays if name.startswith("optimizer/")})
    if state:
        recorded.append(f"optimizer state at anchors: {', '.join(map(clean, state))}")
    if not root.probes:
        lacks.append("a probe set (record --probe FILE.npz, or analyze --probe FILE.npz)")
    unsketched = _reason(root.attributes.get("sketches_failed"))
    if unsketched is not None:
        lacks.append(f"sketches of the tangent kernel: {unsketched}")
    return tuple(recorded), tuple(lacks)


def _states(arrays: Mapping[str, ArrayInfo]) -> str:
    """Return the name of an array of states; a trace without updates has one for each dtype."""
    return next(name for name in arrays if name.startswith("theta") and name.endswith("/state"))


def _trees(root: RootReader, arrays: Mapping[str, ArrayInfo]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what an ensemble of trees holds and lacks."""
    attributes = root.attributes
    check = attributes.get("check")
    check = check if isinstance(check, Mapping) else {}
    recorded = [
        f"{plural(root.rows - 1, 'tree')} of {clean(attributes.get('library'))}, "
        f"{plural(arrays['trees/node/feature'].shape[0], 'node')}",
        f"{plural(arrays['trees/leaf'].shape[1], 'training example')} with the leaf of each in every tree",
    ]
    if "trees/sample" in arrays:
        recorded.append("the rows that each tree was given")
    if check.get("largest") is not None:
        recorded.append(f"predictions checked: max |Sy − prediction| is {check['largest']:.2g}")
    lacks = [f"an exact smoother: {clean(check['problem'])}"] if check.get("problem") else []
    if not root.probes:
        lacks.append("a probe set (record --probe FILE.npz, or analyze --probe FILE.npz)")
    return tuple(recorded), tuple(lacks)


def _probe(root: RootReader, name: str, arrays: Mapping[str, ArrayInfo]) -> Probe:
    # What was known when the set was made, and what the recorder learned since.
    later = (root.attributes.get("probes") or {}).get(name) or {}
    known: Mapping[str, Any] = {**root.group_attributes(f"probe/{name}"), **later}
    output, inputs = arrays.get(f"probe/{name}/output"), arrays.get(f"probe/{name}/input/0")
    sketch = arrays.get(f"probe/{name}/sketch")
    rows = output.shape[0] if output is not None else 0
    kind = str(known.get("kind") or "")
    return Probe(
        name=clean(name),
        examples=inputs.shape[0] if inputs is not None else 0,
        outputs=output.shape[2] if output is not None and len(output.shape) == 3 else 0,
        labels=f"probe/{name}/target" in arrays,
        in_sample=bool(known.get("in_sample", False)),
        source=clean(known.get("source") or _ORIGINS.get(kind) or kind or "an unknown source"),
        functional=clean(known.get("functional") or "full"),
        rows=rows,
        missing=max(0, root.rows - rows),
        replayable=root.attributes.get("updates") != "none",
        sketched=0 if sketch is None else sketch.shape[0],
        columns=0 if sketch is None else sketch.shape[3],
    )


def probe_line(probe: Probe) -> str:
    """Return a probe set as one line."""
    parts = [plural(probe.examples, "example")]
    if probe.outputs:
        parts.append(plural(probe.outputs, "output"))
    if probe.functional != "full":
        parts.append(probe.functional)
    parts.append("labels" if probe.labels else "no labels")
    if probe.in_sample:
        parts.append("IN-SAMPLE: these rows are also trained on")
    parts.append(f"from {probe.source}")
    parts.append(f"projected at {plural(probe.rows, 'row')}" if probe.rows else "not projected")
    if probe.rows and probe.missing:
        parts.append(f"{probe.missing:,} not" + (" (analyze --replay fills them)" * probe.replayable))
    if probe.sketched:
        parts.append(f"sketched at {plural(probe.sketched, 'row')} in {probe.columns:,} columns")
    return f"{probe.name}: {', '.join(parts)}"
