"""A recorder that only listens: it decodes the frames of the observer, and keeps them."""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tscope.record.observer_files import PACKAGE, install

_NO_EXPORT = """
class ExportError(Exception): pass
def export(*_, **__): raise ExportError("left out by the test")
"""
_PREFIX = struct.Struct("<4sIQ")
_BITS = {"bfloat16": "uint16"}


@dataclass
class Frame:
    kind: str
    header: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    connection: int = 0

    def __getitem__(self, name: str) -> Any:
        return self.header[name]


@dataclass
class Run:
    """What a script did under the fake recorder."""

    code: int
    stdout: str
    stderr: str
    frames: list[Frame] = field(default_factory=list)
    marks: set[str] = field(default_factory=set)

    def of(self, kind: str, root: int | None = None) -> list[Frame]:
        return [f for f in self.frames if f.kind == kind and (root is None or f.header.get("root") == root)]

    @property
    def steps(self) -> list[Frame]:
        return self.of("step")


class FakeParent:
    """Listens on a socket in a folder of its own.

    Args:
        options: `$TSCOPE_OPTIONS`.
        stop_after: Close everything when so many `step` frames came, as a dying recorder would.
        export: Let the model be exported; it takes seconds, which most tests have no use for.
    """

    def __init__(
        self, options: Mapping[str, Any] | None = None, stop_after: int | None = None, *, export: bool = True
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ts-")
        folder = Path(self._folder.name)
        self._path = folder / "s"
        self._session = folder
        self._stop_after = stop_after
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self._path))
        self._listener.listen(16)
        self._connections: list[socket.socket] = []
        self._readers: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.frames: list[Frame] = []
        self.environment = {
            **os.environ,
            **install(folder / "bootstrap"),
            "TSCOPE_SESSION": str(folder),
            "TSCOPE_SOCKET": str(self._path),
            "TSCOPE_OPTIONS": json.dumps({"shared_bytes": 16 << 20, **(options or {})}),
        }
        if not export:
            (folder / "bootstrap" / PACKAGE / "export.py").write_text(_NO_EXPORT)
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def __enter__(self) -> FakeParent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._folder.cleanup()

    @property
    def marks(self) -> set[str]:
        return {
            p.name.split(".")[0]
            for p in self._session.iterdir()
            if p.name.split(".")[0] in ("hello", "torch")
        }

    def close(self) -> None:
        """Close the socket, and wait for the open connections to end."""
        _shut(self._listener)
        self._thread.join()
        for reader in self._readers:
            reader.join()

    def die(self) -> None:
        """Close everything at once."""
        _shut(self._listener)
        with self._lock:
            for connection in self._connections:
                _shut(connection)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                self._listener.close()
                return
            with self._lock:
                self._connections.append(connection)
                number = len(self._connections) - 1
            reader = threading.Thread(target=self._read, args=(connection, number))
            self._readers.append(reader)
            reader.start()

    def _read(self, connection: socket.socket, number: int) -> None:
        with connection, connection.makefile("rb") as stream:
            memory: mmap.mmap | None = None
            try:
                head, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
            except OSError:
                return
            for descriptor in descriptors:
                memory = mmap.mmap(descriptor, 0)
                os.close(descriptor)
            while True:
                try:
                    frame = read(stream, head, memory)
                except (OSError, ValueError):
                    return
                if frame is None:
                    return
                head = b""
                if frame.kind == "memory":
                    continue
                if memory is not None:
                    done = np.frombuffer(memory, np.uint64, count=1)
                    done += 1
                frame.connection = number
                if frame.kind == "trees":
                    with contextlib.suppress(OSError):
                        connection.send(b"\x01")
                with self._lock:
                    self.frames.append(frame)
                    steps = sum(f.kind == "step" for f in self.frames)
                if self._stop_after is not None and steps >= self._stop_after:
                    self.die()
                    return


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def read(stream: Any, head: bytes, memory: mmap.mmap | None) -> Frame | None:
    """Read one frame; None at the end of the stream or in the middle of a frame that never came.

    `head` was read from it already; arrays with an offset lie in `memory`.
    """
    prefix = head + stream.read(_PREFIX.size - len(head))
    if len(prefix) < _PREFIX.size:
        return None
    magic, header_size, payload_size = _PREFIX.unpack(prefix)
    assert magic == b"tsc1"
    text, payload = stream.read(header_size), stream.read(payload_size)
    if len(text) < header_size or len(payload) < payload_size:
        return None
    header = json.loads(text)
    arrays = {}
    start = 0
    for name, dtype, shape, *offset in header.pop("blobs"):
        kind = np.dtype(_BITS.get(dtype, dtype))
        size = math.prod(shape) * kind.itemsize
        if offset:
            assert memory is not None
            data = memory[offset[0] : offset[0] + size]
        else:
            data = payload[start : start + size]
            start += size
        arrays[name] = np.frombuffer(data, kind).reshape(shape)
    assert start == payload_size
    return Frame(header.pop("type"), header, arrays)


def run(
    command: Sequence[str | Path],
    *,
    options: Mapping[str, Any] | None = None,
    stop_after: int | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    export: bool = True,
) -> Run:
    """Run a command under the fake recorder until it and all its connections have ended."""
    with FakeParent(options, stop_after, export=export) as parent:
        done = subprocess.run(
            [str(part) for part in command],
            env={**parent.environment, "OMP_NUM_THREADS": "1", **(environment or {})},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        marks = parent.marks
        parent.close()
        return Run(done.returncode, done.stdout, done.stderr, parent.frames, marks)


def python(script: Path, *arguments: str, **options: Any) -> Run:
    """Run a script with this interpreter under the fake recorder."""
    return run([sys.executable, script, *arguments], **options)
