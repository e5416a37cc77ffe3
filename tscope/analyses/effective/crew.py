"""The worker processes of one analysis, as the process that asks them sees them."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from tscope_format.errors import AnalysisError

from tscope.analyses.effective.worker import (
    BlockReply,
    BlockRequest,
    Failure,
    Opening,
    PartReply,
    PartRequest,
    Row,
    Word,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tscope.analyses.effective.walk import Tally


@dataclass(eq=False)
class _Member:
    """One process.

    Attributes:
        process: The process.
        connection: To it.
        outstanding: How many requests it has not answered.
        row: The last row that its walk has done.
        tally: What its walk found, until that is taken.
    """

    process: subprocess.Popen[bytes]
    connection: Connection
    outstanding: int = 0
    row: int = 0
    tally: Tally | None = None


class Crew:
    """Worker processes, started when they are first needed and ended with the analysis.

    Args:
        opening: Which run they work on.
        size: How many there are, beside this process.
        say: Called with a word of theirs for the user.
    """

    def __init__(self, opening: Opening | None, size: int, say: Callable[[str], None]) -> None:
        self.size = size
        self._opening = opening
        self._say = say
        self._members: list[_Member] = []
        self._blocks: list[tuple[int, NDArray[Any]]] = []

    @classmethod
    def none(cls) -> Crew:
        """Return a crew of nobody."""
        return cls(None, 0, lambda text: None)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exception: object) -> None:
        for member in self._members:
            member.connection.close()
            member.process.kill()
            member.process.wait()
        self._members = []

    def send(self, index: int, request: BlockRequest | PartRequest) -> None:
        """Give a worker something to do."""
        self._start()
        member = self._members[index]
        member.outstanding += 1
        member.row = 0
        self._deliver(member, request)

    def least_busy(self, limit: int) -> int | None:
        """Return the worker with the fewest requests, if it has fewer than `limit`."""
        self._start()
        index = min(range(self.size), key=lambda k: self._members[k].outstanding)
        return index if self._members[index].outstanding < limit else None

    def blocks(self, *, wait: bool) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield the kernel blocks that have arrived, by row; if asked, wait for one."""
        self._receive(waiting=wait)
        found, self._blocks = self._blocks, []
        yield from found

    def rows(self) -> list[int]:
        """Return the last row that each worker's walk has done."""
        self._receive(waiting=False)
        return [member.row for member in self._members]

    def tally(self, index: int, progress: Callable[[], None]) -> Tally:
        """Wait for a worker's walk and return what it found; `progress` is called meanwhile."""
        member = self._members[index]
        while member.tally is None:
            self._receive(waiting=True)
            progress()
        found, member.tally = member.tally, None
        return found

    def _start(self) -> None:
        while len(self._members) < self.size:
            ours, theirs = socket.socketpair()
            with theirs:
                # Not `multiprocessing`: that imports the user's script once more in each process.
                process = subprocess.Popen(
                    [sys.executable, "-m", "tscope.analyses.effective.worker", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    # Ctrl-C is not for them: they end when this process is gone, or says so.
                    start_new_session=True,
                    env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
                )
            member = _Member(process, Connection(ours.detach()))
            self._members.append(member)
            self._deliver(member, self._opening)

    def _deliver(self, member: _Member, request: object) -> None:
        try:
            member.connection.send_bytes(pickle.dumps(request, protocol=5))
        except OSError:
            self._receive(waiting=False)  # it may have said why it ended
            raise self._lost(member) from None

    def _receive(self, *, waiting: bool) -> None:
        """Take in what has arrived; if asked, wait for something."""
        ready = wait([member.connection for member in self._members], None if waiting else 0)
        for member in self._members:
            if member.connection in ready:
                for message in self._messages(member):
                    self._took(member, message)

    def _messages(self, member: _Member) -> Iterator[object]:
        """Yield what has arrived from a worker."""
        while True:
            try:
                if not member.connection.poll(0):
                    return
                message = pickle.loads(member.connection.recv_bytes())
            except (EOFError, OSError):
                raise self._lost(member) from None
            yield message

    def _took(self, member: _Member, message: object) -> None:
        if isinstance(message, Row):
            member.row = message.row
        elif isinstance(message, Word):
            self._say(message.text)
        elif isinstance(message, BlockReply):
            member.outstanding -= 1
            self._blocks.append((message.row, message.K))
        elif isinstance(message, PartReply):
            member.outstanding -= 1
            member.tally = message.tally
        elif isinstance(message, Failure):
            raise message.error

    def _lost(self, member: _Member) -> AnalysisError:
        code = member.process.wait()
        return AnalysisError(
            f"a worker process of effective-params ended (exit code {code}); if memory ran out, use fewer "
            "`--workers` or a lower `--max-memory`"
        )
