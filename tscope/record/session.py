"""The session: a private folder for one recording, with the socket and what is injected into the script."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tscope_format.errors import RecordError, clean

from tscope.record.options import RecordOptions

QUEUE_BYTES = 64 << 20  # what the script's sender may hold before a step waits
# Memory that the script's process shares with us. Beyond the queue it also holds what a step is made of.
SHARED_BYTES = 2 * QUEUE_BYTES
ANCHOR_ROWS = 256
NEVER = 1 << 62
EVAL_ROWS = 512
_LONGEST_SOCKET = 100  # sun_path has 108 bytes on Linux, 104 elsewhere


@dataclass(frozen=True)
class Session:
    """One recording's folder and listening socket.

    Attributes:
        folder: The folder, which only this user can enter.
        listener: The socket that processes of the run connect to.
        environment: The environment in which the command is started.
    """

    folder: Path
    listener: socket.socket
    environment: Mapping[str, str]

    @property
    def said_hello(self) -> bool:
        """Whether any Python process of the run loaded the bootstrap."""
        return any(self.folder.glob("hello.*"))

    @property
    def saw_torch(self) -> bool:
        """Whether any Python process of the run imported torch."""
        return any(self.folder.glob("torch.*"))

    @property
    def saw_trees(self) -> bool:
        """Whether any Python process of the run imported a library that fits trees."""
        return any(self.folder.glob("trees.*"))


@contextlib.contextmanager
def open_session(options: RecordOptions) -> Iterator[Session]:
    """Make the session folder and its socket; both are gone at the end.

    Raises:
        RecordError: The temporary folder cannot be written.
    """
    try:
        folder = _private_folder()
    except OSError as error:
        raise RecordError(
            f"no session folder could be made: {clean(error.strerror)} ({clean(error.filename)}); "
            "set TMPDIR to a folder that can be written"
        ) from error
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        address = folder / "s"
        try:
            listener.bind(str(address))
            listener.listen(64)
            environment = {**os.environ, **_additions(folder, address, options)}
        except OSError as error:
            raise RecordError(
                f"the session in {clean(folder)} could not be set up: {clean(error)}"
            ) from error
        yield Session(folder, listener, environment)
    finally:
        listener.close()
        # Best effort: a process that outlives the run may still be adding its marker files.
        shutil.rmtree(folder, ignore_errors=True)


def _private_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tscope-"))
    if len(os.fsencode(folder / "s")) > _LONGEST_SOCKET:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="tscope-", dir="/tmp"))
    return folder


def _additions(folder: Path, address: Path, options: RecordOptions) -> dict[str, str]:
    from tscope.record.observer_files import install

    child = {
        "every": options.every,
        "outputs": options.outputs,
        "output": options.output,
        # The optimizer's state is of use only to those who can follow the updates.
        "anchor": ANCHOR_ROWS if options.updates else NEVER,
        "eval_rows": EVAL_ROWS if options.follows else 0,
        "queue_bytes": QUEUE_BYTES,
        "shared_bytes": SHARED_BYTES,
        "export": "fork",
        "fork": None if options.fork is None else options.fork.asked(),
    }
    return {
        **install(folder / "bootstrap"),
        "TSCOPE_SESSION": str(folder),
        "TSCOPE_SOCKET": str(address),
        "TSCOPE_OPTIONS": json.dumps(child),
    }
