"""Partial results on disk, so that an interrupted analysis continues where it stopped.

They lie in the trace, in `analysis/effective-params/.partial-<key>/`; the key is a hash of all that the
figures depend on: the recording and its rows, the options, the examples and labels, the plan and the program.
A file is written whole and then named in a small record, which is replaced atomically; a record whose file
is missing, cut off or changed counts for nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import torch
import xxhash
from tscope_format.errors import TscopeError, clean
from tscope_format.results import RESULTS

if TYPE_CHECKING:
    from tscope.analyses.effective.snapshot import Plain

INTERVAL = 15.0
"""Seconds between two writings, and before the first: a short analysis writes nothing."""

_PREFIX = ".partial-"
_SHARE = 20.0  # writing takes at most one part in so many of the time
_CHUNK = 1 << 22
_FORGOTTEN = 14 * 86400.0


@dataclass(frozen=True)
class Place:
    """Where the partial results of one analysis lie; a worker process gets the same.

    Attributes:
        folder: The folder.
        interval: Seconds between two writings.
    """

    folder: Path
    interval: float


class Partial:
    """The partial result of one walk over the run.

    Args:
        place: The folder; None keeps nothing.
        name: The walk's.
        say: What to do with a word for the user.
        began: When the analysis began, as `time.monotonic` says it.
    """

    def __init__(self, place: Place | None, name: str, say: Callable[[str], None], began: float) -> None:
        self._place = place
        self._name = name
        self._say = say
        self._last = began
        self._took = 0.0

    def load(self) -> dict[str, Plain] | None:
        """Return what was written last; None if there is nothing, or it is damaged (which is said)."""
        record = None if self._place is None else self._place.folder / f"{self._name}.json"
        if record is None or not record.exists():
            return None
        try:
            about = json.loads(record.read_bytes())
            file = record.parent / Path(str(about["file"])).name
            if _digest(file) != about["digest"]:
                raise ValueError("its checksum is another")
            content = torch.load(file, weights_only=True)
            if not isinstance(content, dict):
                raise ValueError("it is no partial result")
        except Exception as error:  # whatever is wrong with it: the figures can be computed again
            self._say(f"a partial result is damaged and not used: {clean(record)} ({clean(error)})")
            return None
        return content

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        if self._place is None:
            return False
        return time.monotonic() - self._last >= max(self._place.interval, _SHARE * self._took)

    def save(self, content: Mapping[str, Plain]) -> None:
        """Write, in place of what was written before. A disk that refuses is said once, and left alone."""
        if self._place is None:
            return
        start = time.monotonic()
        file = self._place.folder / f"{self._name}-{secrets.token_hex(4)}.pt"
        record = self._place.folder / f"{self._name}.json"
        try:
            self._place.folder.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as stream:
                torch.save(dict(content), stream)
                stream.flush()
                os.fsync(stream.fileno())
            about = json.dumps({"file": file.name, "digest": _digest(file)})
            _replace(record, about.encode())
        except (OSError, RuntimeError) as error:
            with contextlib.suppress(OSError):
                file.unlink()
            self._say(f"partial results cannot be kept: {clean(error)}")
            self._place = None
            return
        for other in self._place.folder.glob(f"{self._name}-????????.pt"):
            if other != file:
                other.unlink(missing_ok=True)
        self._last = time.monotonic()
        self._took = self._last - start


class Lease:
    """The right to the partial results of one analysis, which two processes at once must not have.

    It ends with the process, however that ends. When the analysis is done its partial results are removed,
    and when it found that the figures cannot be had: they could not be had again.

    Args:
        trace: The trace's folder.
        metric: Whose results they are.
        key: Of what the figures depend on.
        say: What to do with a word for the user.
    """

    def __init__(self, trace: Path, metric: str, key: str, say: Callable[[str], None]) -> None:
        results = trace.resolve() / RESULTS / metric
        self._folder = results / f"{_PREFIX}{key}"
        # Not in the trace: a short analysis leaves nothing there, and a trace may be read-only.
        name = hashlib.blake2b(os.fsencode(self._folder), digest_size=10).hexdigest()
        self._path = Path(tempfile.gettempdir()) / f"tscope-{os.getuid()}-{name}.lock"
        self._lock: IO[bytes] | None = None
        self._say = say
        self.place: Place | None = None
        _forget(results)

    def __enter__(self) -> Lease:
        try:
            self._lock = self._path.open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._say("another process computes the same: partial results are not kept here")
            return self
        self.place = Place(self._folder, INTERVAL)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self.place is not None:
            if kind is None or issubclass(kind, TscopeError):
                shutil.rmtree(self._folder, ignore_errors=True)
            self._path.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()


def key_of(parts: Mapping[str, object], tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the key of an analysis: a hash of what it depends on, and of this program's source."""
    whole = hashlib.blake2b(digest_size=10)
    whole.update(json.dumps(parts, sort_keys=True, default=str).encode())
    for name, tensor in sorted(tensors.items()):
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        whole.update(xxhash.xxh3_128_digest(tensor.detach().contiguous().numpy().tobytes()))
    root = Path(__file__).parents[2]
    for source in sorted(root.rglob("*.py")):
        whole.update(source.relative_to(root).as_posix().encode())
        whole.update(source.read_bytes())
    return whole.hexdigest()


def _digest(file: Path) -> str:
    found = xxhash.xxh3_128()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _replace(path: Path, content: bytes) -> None:
    """Write a small file atomically."""
    building = path.with_suffix(".new")
    with building.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    building.replace(path)


def _forget(results: Path) -> None:
    """Remove partial results that nobody came back to."""
    with contextlib.suppress(OSError):
        for folder in results.glob(f"{_PREFIX}*"):
            if time.time() - folder.stat().st_mtime > _FORGOTTEN:
                shutil.rmtree(folder, ignore_errors=True)
