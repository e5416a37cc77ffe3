"""One trace as a row of the browser."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from tscope_format.errors import TscopeError, clean

from tscope_tui.data.status import State, state_of

Order = Literal["age", "name", "state", "steps", "loss", "p_train", "p_test", "size"]
ORDERS: tuple[Order, ...] = get_args(Order)


@dataclass(frozen=True)
class Entry:
    """A trace, as far as its commit record and last row tell.

    Attributes:
        path: Its folder.
        name: The run's name, else the folder's; cleaned.
        state: How the run is.
        reason: Why it is bad, failed or interrupted; cleaned.
        steps: Optimizer steps at the last row.
        rows: Rows of the first root.
        loss: The last finite loss; NaN if there is none.
        p_train: Effective parameters on the training examples at the end of the newest result that is saved;
            NaN if there is none.
        p_test: Likewise on the held-out examples.
        bytes: Size on disk; None until it was counted.
        committed: Time of the last commit, in seconds since the epoch.
        seconds_per_row: Mean time of a row.
    """

    path: Path
    name: str
    state: State
    reason: str = ""
    steps: int | None = None
    rows: int = 0
    loss: float = math.nan
    p_train: float = math.nan
    p_test: float = math.nan
    bytes: int | None = None
    committed: float = 0.0
    seconds_per_row: float = 0.0
    now: float = 0.0

    @property
    def age(self) -> float:
        """Seconds since the last commit."""
        return max(0.0, self.now - self.committed)

    def number(self, field: str) -> float | None:
        """Return a value to filter by; None when it is not known."""
        known = {"steps": self.steps, "size": self.bytes, "age": self.age}
        value = known[field] if field in known else getattr(self, field)
        return None if value is None or math.isnan(value) else float(value)

    def seen(self, now: float) -> Entry:
        """Return the entry at another moment: its age grows, and a silent run becomes a stalled one."""
        state = self.state
        if state in (State.LIVE, State.STALLED):
            state = state_of("recording", now - self.committed, self.seconds_per_row)
        return replace(self, now=now, state=state)


def find(paths: Iterable[Path]) -> list[Path]:
    """Return the traces among `paths` and directly within them, in the order of their names.

    What is named `*.zarr` counts even when it is damaged, so that it is shown with the reason.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if is_trace(path):
            found[path] = None
            continue
        try:
            inside = sorted(one for one in path.iterdir() if one.name[0] != "." and is_trace(one))
        except OSError:
            # Not readable, or it vanished: what was asked for is shown as a damaged trace, with the reason.
            inside = [path] if path.exists() else []
        found.update(dict.fromkeys(inside))
    return list(found)


def is_trace(path: Path) -> bool:
    """Return whether a path is a trace: a folder with a commit record, or anything named like one."""
    return path.suffix == ".zarr" or (path / "zarr.json").is_file()


def read_entry(path: Path, now: float) -> Entry:
    """Read a trace's row for the browser. Never raises: what cannot be read is the reason of a bad entry."""
    name = clean(path.name.removesuffix(".zarr")) or clean(path)
    try:
        committed = (path / "zarr.json").stat().st_mtime
    except OSError:
        committed = _modified(path, now)
    try:
        return _read(path, name, committed, now)
    except (TscopeError, OSError, ValueError, KeyError, TypeError) as error:
        # The reason stands beside the name, so it need not begin with the path.
        reason = clean(error).removeprefix(f"{clean(path)}: ")
        return Entry(path, name, State.BAD, reason, committed=committed, now=now)


def _read(path: Path, name: str, committed: float, now: float) -> Entry:
    from tscope_format import open_trace

    # Numpy comes after the first frame.
    from tscope_tui.data.effective import last_p

    reader = open_trace(path)
    facts = reader.facts
    entry = Entry(
        path,
        clean(facts.get("name") or "") or name,
        state_of(str(reader.status), now - committed),
        clean(facts.get("reason") or ""),
        committed=committed,
        now=now,
    )
    if not reader.roots:
        return replace(entry, steps=0)
    root = reader.root(reader.roots[0])
    if root.rows == 0:
        return replace(entry, steps=0)
    last = root.rows - 1
    steps = int(root.read("step", last, last + 1)[0])
    tail = root.read("loss", max(0, last - 63), last + 1)
    finite = tail[tail == tail]
    begin, end = (float(root.read("time", row, row + 1)[0]) for row in (0, last))
    pace = (end - begin) / last if last else 0.0
    p = last_p(path, root.name)
    entry = replace(
        entry,
        steps=steps,
        rows=root.rows,
        loss=float(finite[-1]) if finite.size else math.nan,
        p_train=p["train"],
        p_test=p["test"],
        seconds_per_row=pace if math.isfinite(pace) else 0.0,
    )
    return entry.seen(now)


def _modified(path: Path, now: float) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return now


_KEYS: dict[Order, Callable[[Entry], tuple[float, str]]] = {
    "age": lambda entry: (-entry.committed, entry.name),
    "name": lambda entry: (0.0, entry.name),
    "state": lambda entry: (float(list(State).index(entry.state)), entry.name),
    "steps": lambda entry: (-float(entry.steps or 0), entry.name),
    "loss": lambda entry: (math.inf if math.isnan(entry.loss) else entry.loss, entry.name),
    "p_train": lambda entry: (math.inf if math.isnan(entry.p_train) else -entry.p_train, entry.name),
    "p_test": lambda entry: (math.inf if math.isnan(entry.p_test) else -entry.p_test, entry.name),
    "size": lambda entry: (-float(entry.bytes or 0), entry.name),
}


def arranged(entries: Sequence[Entry], order: Order, pinned: Iterable[Path]) -> list[Entry]:
    """Return the entries sorted, pinned ones first; newest, largest, or lowest loss on top."""
    first = set(pinned)
    return sorted(entries, key=lambda entry: (entry.path not in first, *_KEYS[order](entry)))
