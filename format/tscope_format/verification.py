"""Checking a trace to the last byte: structure, chunks, the chain of updates, identities and results.

Everything is checked that can be; a problem does not end the check.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from tscope_format.array_reader import ArrayReader
from tscope_format.chain_reader import ChainReader
from tscope_format.dtypes import NDArray
from tscope_format.errors import TraceError
from tscope_format.examples import HASH_BYTES
from tscope_format.metadata import ArrayMetadata
from tscope_format.reader import TraceReader, open_trace
from tscope_format.results import result_arrays, result_folders
from tscope_format.root_reader import RootReader
from tscope_format.states import StateReader
from tscope_format.tree import RECORD

Progress = Callable[[float, float, str], None]
"""Called with what is done, what there is to do, and the path being checked."""

_STATUSES = ("recording", "complete", "interrupted", "failed")
_HASHED_ROWS = 256


@dataclass(frozen=True)
class Problem:
    """Something that is not as it was written.

    Attributes:
        where: path of the array or group within the trace.
        rows: first row concerned and the one after the last; None if it is not about rows.
        what: what is wrong.
    """

    where: str
    rows: tuple[int, int] | None
    what: str


@dataclass
class VerifyReport:
    """What was checked and found.

    Attributes:
        status: the trace's status.
        problems: what is wrong.
        checked: how many of each kind of thing were checked.
    """

    status: str
    problems: list[Problem] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def count(self, kind: str, number: int = 1) -> None:
        """Count things of a kind as checked."""
        self.checked[kind] = self.checked.get(kind, 0) + number

    def add(self, where: str, what: str, rows: tuple[int, int] | None = None) -> None:
        """Add a problem."""
        self.problems.append(Problem(where, rows, what))


_Check = tuple[str, Callable[[VerifyReport], None]]


def verify(path: str | os.PathLike[str], progress: Progress | None = None) -> VerifyReport:
    """Check a trace and the results saved in it.

    Args:
        path: the trace.
        progress: called before each part.

    Raises:
        TraceError: it cannot be opened at all.
    """
    trace = open_trace(path)
    report = VerifyReport(trace.status)
    if trace.status not in _STATUSES:
        report.add(RECORD, f"has the unknown status {trace.status!r}")
    checks: list[_Check] = []
    for name in trace.roots:
        checks += _root_checks(trace, name, report)
    for folder in result_folders(trace.path):
        checks += _result_checks(trace, folder, report)
    for done, (where, check) in enumerate(checks):
        if progress is not None:
            progress(done, len(checks), where)
        check(report)
    if progress is not None:
        progress(len(checks), len(checks), "")
    return report


def _root_checks(trace: TraceReader, name: str, report: VerifyReport) -> Iterator[_Check]:
    try:
        root = trace.root(name)
        chains = root.chains()
    except TraceError as error:
        report.add(name, str(error))
        return
    for array in root.readers():
        yield from _array_checks(array, array.path)
    for chain in chains:
        if isinstance(chain, StateReader):
            problem = chain.problem(root.rows)
            if problem is not None:
                report.add(chain.path, problem)
        else:
            yield from _chain_checks(chain, root.rows, report)
    yield f"{name}/examples", partial(_check_hashes, root)


def _result_checks(trace: TraceReader, folder: Path, report: VerifyReport) -> Iterator[_Check]:
    where = folder.relative_to(trace.path).as_posix()
    try:
        arrays = result_arrays(folder)
    except TraceError as error:
        report.add(where, str(error))
        return
    report.count("results")
    for array in arrays:
        yield from _array_checks(array, f"{where}/{array.path}")


def _array_checks(array: ArrayReader, where: str) -> Iterator[_Check]:
    yield where, partial(_check_document, array, where)
    for block in range(array.blocks):
        yield where, partial(_check_block, array, where, block)


def _check_document(array: ArrayReader, where: str, report: VerifyReport) -> None:
    """Compare the array's own document, which stock readers of a group trust, to the commit record."""
    report.count("arrays")
    try:
        own = ArrayMetadata.from_json(json.loads((array.trace / array.path / RECORD).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        report.add(f"{where}/{RECORD}", f"cannot be read ({error})")
        return
    committed = array.metadata
    # A kill between the two leaves the array's own document ahead, never behind.
    behind = any(mine < theirs for mine, theirs in zip(own.shape, committed.shape, strict=False))
    if behind or own.with_shape(committed.shape) != committed:
        what = f"does not match the commit record (shape {own.shape}, committed {committed.shape})"
        report.add(f"{where}/{RECORD}", what)


def _check_block(array: ArrayReader, where: str, block: int, report: VerifyReport) -> None:
    for rest in array.places():
        place = (block, *rest) if array.metadata.shape else ()
        report.count("chunks")
        problem = array.problem(place)
        if problem is not None:
            report.add(where, f"chunk {problem}", array.rows_of(place))


def _chain_checks(chain: ChainReader, rows: int, report: VerifyReport) -> Iterator[_Check]:
    """Follow a vector from anchor to anchor: each stretch must end at the next one, bit for bit."""
    expected = -(-rows // chain.anchor_rows) if chain.changes else 1
    if chain.anchors != expected:
        report.add(chain.path, f"has {chain.anchors} anchors for {rows} rows, expected {expected}")
    for index in range(1, min(chain.anchors, expected)):
        yield chain.path, partial(_check_stretch, chain, index)


def _check_stretch(chain: ChainReader, index: int, report: VerifyReport) -> None:
    first, last = (index - 1) * chain.anchor_rows, index * chain.anchor_rows
    try:
        reached, anchor = chain.follow(chain.anchor(index - 1), first, last), chain.anchor(index)
    except TraceError:
        # The damaged chunk is in the report already, found by its own check.
        return
    report.count("anchors")
    wrong = int(np.count_nonzero(_bits(reached) != _bits(anchor)))
    if wrong:
        what = f"the updates do not lead to anchor {index}: {wrong} of {chain.size} values differ"
        report.add(chain.path, what, (first + 1, last + 1))


def _check_hashes(root: RootReader, report: VerifyReport) -> None:
    """Hash each example's inputs again, each cut to the shape that it had."""
    arrays = root.arrays()
    if "examples/hash" not in arrays:
        return
    inputs = sum(path.startswith("examples/input/") for path in arrays)
    count = arrays["examples/hash"].shape[0]
    for start in range(0, count, _HASHED_ROWS):
        stop = min(count, start + _HASHED_ROWS)
        try:
            stored = root.read("examples/hash", start, stop)
            data = [root.read(f"examples/input/{index}", start, stop) for index in range(inputs)]
            shapes = [root.read(f"examples/shape/{index}", start, stop) for index in range(inputs)]
        except TraceError:
            # The damaged chunk is in the report already, found by its own check.
            continue
        report.count("examples", stop - start)
        for row in range(stop - start):
            parts = [array[row][_corner(shape[row])] for array, shape in zip(data, shapes, strict=True)]
            if stored[row].tobytes() != example_hash(parts):
                where = f"{root.name}/examples"
                report.add(where, "the inputs do not have the recorded hash", (start + row, start + row + 1))


def example_hash(inputs: Sequence[NDArray]) -> bytes:
    """Return the identity of an example: blake2b over the bytes of its inputs, one after the other."""
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    for data in inputs:
        digest.update(np.ascontiguousarray(data).tobytes())
    return digest.digest()


def _corner(shape: NDArray) -> tuple[slice, ...]:
    return tuple(slice(int(length)) for length in shape)


def _bits(values: NDArray) -> NDArray:
    return values.view(f"u{values.itemsize}")
