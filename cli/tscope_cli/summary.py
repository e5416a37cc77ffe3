"""What a trace is, in a few values from its commit record and last row: for `info` and `ls`."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tscope_format.disk import disk_size
from tscope_format.errors import clean

from tscope_cli.numerals import duration

if TYPE_CHECKING:
    from tscope_format import RootReader, TraceReader

# Hyper-parameters that choose an implementation, not a result; and values that mean "off".
_UNINFORMATIVE = {
    "lr",
    "foreach",
    "fused",
    "capturable",
    "differentiable",
    "maximize",
    "initial_lr",
    "decoupled_weight_decay",
}
_UNSET = {"None", "False", "0"}
RESULTS = "analysis"  # the folder of saved results within a trace
STALLED_AFTER = 30.0  # seconds without a commit, of a recorder that commits every 2 s


@dataclass(frozen=True)
class RootSummary:
    """One recorded model.

    Attributes:
        name: Its group in the trace.
        model: Class of the module.
        parameters: Number of parameters.
        tensors: Number of parameter tensors.
        optimizers: Class and hyper-parameters of each optimizer, as text.
        lr: The learning rate of each parameter group at the last row.
        rows: Rows committed, the state before training included.
        steps: Optimizer steps at the last row.
        loss: At the last row; NaN if none was seen.
        kind: "net", or "trees" for an ensemble of decision trees, whose steps are its trees.
    """

    name: str
    model: str
    parameters: int
    tensors: int
    optimizers: tuple[str, ...]
    lr: tuple[float, ...]
    rows: int
    steps: int
    loss: float
    kind: str = "net"


@dataclass(frozen=True)
class Summary:
    """One trace.

    Attributes:
        path: Its folder.
        status: "recording", "stalled", "complete", "interrupted" or "failed".
        reason: Why it ended, where that is known.
        name: Given by `record --name`, else the folder's.
        command: The recorded command.
        created: Seconds since the epoch; NaN if unknown.
        committed: Seconds since the epoch of the last commit.
        size: Bytes on disk, saved results left out.
        raw: Bytes of the recorded arrays without compression.
        roots: The recorded models.
    """

    path: Path
    status: str
    reason: str | None
    name: str
    command: tuple[str, ...]
    created: float
    committed: float
    size: int
    raw: int
    roots: tuple[RootSummary, ...]


@dataclass(frozen=True)
class Damaged:
    """A trace that cannot be read: why, when it was last touched, and its bytes on disk."""

    path: Path
    reason: str
    committed: float
    size: int


def summarise(reader: TraceReader) -> Summary:
    """Return the summary of an open trace; every text in it is cleaned.

    Raises:
        TraceError: The last row cannot be read.
    """
    path, facts = Path(reader.path), reader.facts
    committed = path.joinpath("zarr.json").stat().st_mtime
    status = str(reader.status)
    if status == "recording" and time.time() - committed > STALLED_AFTER:
        status = "stalled"
    return Summary(
        path=path,
        status=clean(status),
        reason=_text(facts.get("reason")),
        name=clean(facts.get("name") or path.name.removesuffix(".zarr")),
        command=tuple(clean(word) for word in facts.get("command") or ()),
        created=_number(facts.get("created")),
        committed=committed,
        size=disk_size(path) - disk_size(path / RESULTS),
        raw=sum(raw_size(reader.root(name)) for name in reader.roots),
        roots=tuple(summarise_root(reader.root(name)) for name in reader.roots),
    )


def to_dict(summary: Summary) -> dict[str, object]:
    """Return a summary as JSON has it."""
    return {**asdict(summary), "path": str(summary.path)}


def summarise_root(root: RootReader) -> RootSummary:
    """Return the summary of one recorded model."""
    last = root.rows - 1
    return RootSummary(
        name=clean(root.name),
        model=clean(root.attributes.get("class", "?")),
        parameters=sum(tensor.size for tensor in root.parameters),
        tensors=len(root.parameters),
        optimizers=tuple(_optimizer(entry) for entry in root.attributes.get("optimizers") or ()),
        lr=_last_lr(root, last),
        rows=root.rows,
        steps=int(root.read("step", last, last + 1)[0]) if last >= 0 else 0,
        loss=float(root.read("loss", last, last + 1)[0]) if last >= 0 else math.nan,
        kind=clean(root.attributes.get("kind", "net")),
    )


def raw_size(root: RootReader) -> int:
    """Return the bytes of a root's arrays without compression, those that only speed up reading left out."""
    from tscope_format.dtypes import dtype_of

    return sum(
        math.prod(array.shape) * dtype_of(array.dtype).numpy.itemsize
        for name, array in root.arrays().items()
        if "_lod" not in name
    )


def age(moment: float, now: float) -> str:
    """Return how long ago `moment` was, as one short word: now, 40s, 5m, 2h, 6d."""
    seconds = now - moment
    if not math.isfinite(seconds):
        return "-"
    if seconds < 5:
        return "now"
    for unit, span in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= span:
            return f"{int(seconds // span)}{unit}"
    return f"{int(seconds)}s"


def status_line(summary: Summary, now: float) -> str:
    """Return the status with what explains it: "failed: disk full", "stalled (last commit 2 min ago)"."""
    if summary.status in ("recording", "stalled"):
        return f"{summary.status} (last commit {duration(max(0.0, now - summary.committed))} ago)"
    return f"{summary.status}: {summary.reason}" if summary.reason else summary.status


def _last_lr(root: RootReader, last: int) -> tuple[float, ...]:
    if last < 1 or "lr" not in root.arrays():
        return ()
    return tuple(float(rate) for rate in root.read("lr", last, last + 1)[0] if math.isfinite(rate))


def _optimizer(entry: Mapping[str, Any]) -> str:
    """Return one optimizer as text: its class, and the hyper-parameters of its groups that are set."""
    groups = [group.get("hyper") or {} for group in entry.get("groups") or ()]
    names = dict.fromkeys(name for hyper in groups for name in hyper if name not in _UNINFORMATIVE)
    settings = []
    for name in names:
        values = list(dict.fromkeys(_value(hyper[name]) for hyper in groups if name in hyper))
        if set(values) - _UNSET:
            settings.append(f"{name} {'/'.join(values)}")
    return clean(", ".join([str(entry.get("class", "?")), *settings]))


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "(" + ", ".join(map(_value, value)) + ")" if isinstance(value, list | tuple) else str(value)


def _text(value: object) -> str | None:
    return None if value is None else clean(value)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
