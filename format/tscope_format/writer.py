"""Writing a trace: one folder, one commit record, one thread.

Rows go into memory; a full block is encoded and written at once, the open ones when two seconds have passed.
What is committed is never damaged by what comes after, whenever the process dies.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time as clock
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from tscope_format.disk import Disk
from tscope_format.dtypes import JSON, NDArray
from tscope_format.errors import RecordError
from tscope_format.group import checked_name
from tscope_format.metadata import FORMAT
from tscope_format.results import RESULTS
from tscope_format.root_writer import RootWriter
from tscope_format.tensors import Tensor
from tscope_format.tree import RECORD, Tree
from tscope_format.trees import TreeArrays, TreesWriter

Status = Literal["recording", "complete", "interrupted", "failed"]
# Kept free beside the record, so that a full disk can still be told from the trace.
_RESERVE = ".reserve"
_RESERVE_BYTES = 256 << 10


class TraceWriter:
    """Writes one trace.

    After the disk has refused once (one `RecordError`), or after any unexpected error within a call,
    everything but `close` does nothing: the trace stays readable at its last commit.

    Attributes:
        path: the trace's folder.
        facts: JSON facts about the run; change them, and they are written at the next commit.
        failed: why nothing more is recorded, None while all is well.
    """

    def __init__(self, disk: Disk, facts: Mapping[str, JSON], flush_seconds: float) -> None:
        self.path = disk.root
        self.facts: dict[str, JSON] = {"id": secrets.token_hex(16), **facts}
        self.failed: str | None = None
        self._disk = disk
        self._flush_seconds = flush_seconds
        self._tree = Tree(disk)
        self._roots: dict[str, RootWriter | TreesWriter] = {}
        self._committed_rows: dict[str, int] = {}
        self._due = clock.monotonic() + flush_seconds
        self._closed = False

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        facts: Mapping[str, JSON],
        overwrite: bool = False,
        durable: bool = False,
        flush_seconds: float = 2.0,
    ) -> TraceWriter:
        """Make a new, empty trace.

        Args:
            path: the folder to be made.
            facts: JSON facts about the run.
            overwrite: replace a trace that is there; nothing else is ever replaced.
            durable: sync every file, so that commits survive a power cut.
            flush_seconds: how long a row may wait until it is committed, for as long as a commit takes less
                than a third of that.

        Raises:
            RecordError: the path exists or cannot be written.
        """
        target = Path(os.path.abspath(path))
        if target.is_symlink():
            target = target.resolve()
        _check_target(target, overwrite=overwrite)
        # A trace appears with its record or not at all.
        building = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            building.mkdir()
            first = cls(Disk(building, durable=durable), facts, flush_seconds)
            first._disk.write(_RESERVE, [bytes(_RESERVE_BYTES)])
            first._commit("recording", None)
            _put_in_place(building, target)
        except OSError as error:
            shutil.rmtree(building, ignore_errors=True)
            raise RecordError(f"cannot write {target}: {_reason(error)}") from error
        first._disk.root = first.path = target
        return first

    def add_root(
        self,
        name: str,
        *,
        parameters: Sequence[Tensor],
        buffers: Sequence[Tensor],
        groups: int,
        theta: Mapping[str, NDArray],
        buffer: Mapping[str, NDArray],
        time: float,
        attributes: Mapping[str, JSON],
        updates: bool = True,
    ) -> RootWriter:
        """Add a root module, write its row 0 and commit.

        Args:
            name: the root's name, one part of a path.
            parameters: the parameter table.
            buffers: the buffer table.
            groups: number of the optimizers' parameter groups known now; the axis grows with `Row.lr`.
            theta: dtype → (param,) parameters before training.
            buffer: dtype → (element,) buffers before training.
            time: seconds since the epoch.
            attributes: JSON attributes of the root's group.
            updates: whether the parameters are kept at every row; otherwise at a few (see `states`).

        Raises:
            RecordError: the name is taken or cannot be used, the vectors do not fit, or the disk refuses.
        """
        self._check_name(name)
        root = RootWriter(
            self._disk,
            name,
            self._guarded,
            parameters=parameters,
            buffers=buffers,
            groups=groups,
            attributes=attributes,
            updates=updates,
        )
        with self._guarded() as working:
            if working:
                root.start(theta, buffer, time)
                self._roots[name] = root
                self._commit("recording", None)
        return root

    def add_trees(
        self,
        name: str,
        arrays: TreeArrays,
        *,
        time: NDArray,
        loss: NDArray,
        lr: NDArray,
        attributes: Mapping[str, JSON],
    ) -> TreesWriter:
        """Add an ensemble of trees, all of its rows, and commit.

        Args:
            name: the root's name, one part of a path.
            arrays: what is held of it.
            time: (row,) seconds since the epoch, NaN where it is not known.
            loss: (row,) mean squared error of the training examples.
            lr: (row,) what each tree's values are multiplied with.
            attributes: JSON attributes of the root's group.

        Raises:
            RecordError: the name is taken or cannot be used, the arrays do not fit, or the disk refuses.
        """
        self._check_name(name)
        root = TreesWriter(self._disk, name, self._guarded, attributes)
        with self._guarded() as working:
            if working:
                root.start(arrays, time, loss, lr)
                self._roots[name] = root
                self._commit("recording", None)
        return root

    def _check_name(self, name: str) -> None:
        if checked_name("root", name) in self._roots or name == RESULTS:
            raise RecordError(f"a root cannot be called {name!r}: the name is taken")

    def maybe_flush(self) -> None:
        """Commit if the time for it has come.

        Raises:
            RecordError: the disk refuses.
        """
        if clock.monotonic() >= self._due:
            self.commit()

    def commit(self) -> None:
        """Write and commit everything now.

        Raises:
            RecordError: the disk refuses.
        """
        with self._guarded() as working:
            if working:
                self._commit("recording", None)

    def close(self, status: Literal["complete", "interrupted", "failed"], reason: str | None = None) -> bool:
        """Write what is left and set the final status; a second call does nothing.

        After a failure only the status is written.

        Returns:
            Whether the status is on the disk; False if the disk does not even take that.

        Raises:
            RecordError: the disk refuses what is left, for the first time.
        """
        if self._closed:
            return True
        if self.failed is None:
            with self._guarded():
                for root in self._roots.values():
                    root.settle()
                self._commit(status, reason)
            self._closed = True
            self._drop_reserve()
            return True
        self._closed = True
        self._drop_reserve()
        try:
            self._tree.recommit(self._record("failed", reason or self.failed, self._committed_rows))
        except OSError:
            return False
        return True

    @property
    def committed(self) -> Mapping[str, int]:
        """Rows that readers see, by root."""
        return self._committed_rows

    @property
    def bytes_raw(self) -> int:
        """Size of everything recorded, uncompressed."""
        return sum(root.bytes_raw for root in self._roots.values())

    @contextmanager
    def _guarded(self) -> Iterator[bool]:
        if self._closed:
            raise RecordError(f"{self.path} is closed")
        try:
            yield self.failed is None
        except OSError as error:
            self.failed = f"cannot write {self.path}: {_reason(error)}"
            raise RecordError(f"{self.failed}; the trace stays as it was committed last") from error
        except RecordError:
            # Refused before anything was changed.
            raise
        except Exception as error:
            # Some arrays may have the row and some not: nothing of this may be committed.
            self.failed = f"cannot record in {self.path}: {type(error).__name__}: {error}"
            raise

    def _commit(self, status: Status, reason: str | None) -> None:
        began = clock.monotonic()
        rows = {name: root.rows for name, root in self._roots.items()}
        self._tree.commit(self._roots.values(), self._record(status, reason, rows))
        self._committed_rows = rows
        ended = clock.monotonic()
        taken = ended - began
        # A row that comes right after the beginning waits for the end of the next one, which may take as long
        # again and more. Those that take very long leave as much time to everything else.
        self._due = max(ended + taken, began + self._flush_seconds - 2 * taken)

    def _record(self, status: Status, reason: str | None, rows: Mapping[str, int]) -> Mapping[str, JSON]:
        facts = {**self.facts, "format": FORMAT, "status": status, "rows": dict(rows)}
        return {"tscope": facts if reason is None else {**facts, "reason": reason}}

    def _drop_reserve(self) -> None:
        (self.path / _RESERVE).unlink(missing_ok=True)


def _check_target(target: Path, *, overwrite: bool) -> None:
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise RecordError(f"{target} exists: choose another name, or replace it with --force")
    if not is_trace(target):
        raise RecordError(f"{target} exists and is not a trace: it will not be replaced")


def is_trace(path: Path) -> bool:
    """Return whether a folder holds a trace, of whatever version."""
    try:
        document = json.loads((path / RECORD).read_bytes())
    except (OSError, ValueError):
        return False
    attributes = document.get("attributes") if isinstance(document, dict) else None
    return isinstance(attributes, dict) and "tscope" in attributes


def _put_in_place(building: Path, target: Path) -> None:
    """Rename a finished folder onto `target`, and remove the trace that was there."""
    if not target.exists():
        building.rename(target)
        return
    former = building.with_name(building.name + ".replaced")
    target.rename(former)
    building.rename(target)
    shutil.rmtree(former)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
