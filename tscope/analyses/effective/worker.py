"""A worker process of effective parameters: opens the trace once, then answers requests until nobody asks.

It is started as `python -m tscope.analyses.effective.worker FD` with one end of a socket. It works in one
thread of torch; two more only move messages, so that neither process waits for the other to read.
"""

from __future__ import annotations

import os
import pickle
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tscope_format.errors import TscopeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.analyses.effective.options import Options
    from tscope.analyses.effective.partial import Place
    from tscope.analyses.effective.recursion import Choice
    from tscope.analyses.effective.setup import Setup
    from tscope.analyses.effective.walk import Tally

    Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Opening:
    """The first request: which run."""

    path: str
    root: str
    options: Options


@dataclass(frozen=True)
class BlockRequest:
    """The kernel block of one step, K^D of every point with its batch.

    Attributes:
        row: The step's row.
        names: The parameters that J is over.
        theta: θ_{t−1} by parameter name.
        buffers: By name.
        inputs: Those of the batch, each (slot, …).
        D: By parameter name; None for the identity.
    """

    row: int
    names: tuple[str, ...]
    theta: Arrays
    buffers: Arrays
    inputs: list[NDArray[Any]]
    D: Arrays | None


@dataclass(frozen=True)
class PartRequest:
    """A walk over the run with some of the columns; the attributes are those of `walk`."""

    name: str
    columns: NDArray[Any]
    exact: bool
    choice: Choice
    perturbation: NDArray[Any]
    place: Place | None
    began: float


@dataclass(frozen=True)
class BlockReply:
    """A kernel block (point, output, slot, output)."""

    row: int
    K: NDArray[Any]


@dataclass(frozen=True)
class PartReply:
    """What a walk found."""

    tally: Tally


@dataclass(frozen=True)
class Word:
    """A word for the user."""

    text: str


@dataclass(frozen=True)
class Row:
    """The row that a walk has done."""

    row: int


@dataclass(frozen=True)
class Failure:
    """An error, which ends the worker."""

    error: Exception


def serve(receive: Callable[[], object], send: Callable[[object], None]) -> None:
    """Answer requests, the first of which is an `Opening`."""
    from tscope.analyses.effective.setup import prepare
    from tscope.trace import open as open_trace

    opening = receive()
    if not isinstance(opening, Opening):
        raise TypeError(f"the first request is a {type(opening).__name__}")
    setup = prepare(open_trace(opening.path).root(opening.root), opening.options)
    while True:
        request = receive()
        if isinstance(request, BlockRequest):
            send(BlockReply(request.row, _block(setup, request)))
        elif isinstance(request, PartRequest):
            send(PartReply(_part(setup, request, send)))
        else:
            raise TypeError(f"an unknown request: {type(request).__name__}")


def _block(setup: Setup, request: BlockRequest) -> NDArray[Any]:
    """Return the kernel block of a request."""

    def tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(value) for name, value in arrays.items()}

    problem = setup.problem
    jacobian = problem.jacobian(tensors(request.theta), tensors(request.buffers), request.names)
    D = None if request.D is None else tensors(request.D)
    inputs = tuple(torch.from_numpy(value) for value in request.inputs)
    return np.asarray(problem.points.block(jacobian, inputs, D).numpy())


def _part(setup: Setup, request: PartRequest, send: Callable[[object], None]) -> Tally:
    """Walk the run for a request."""
    from tscope.analyses.effective.crew import Crew
    from tscope.analyses.effective.partial import Partial
    from tscope.analyses.effective.walk import Part, walk

    def say(text: str) -> None:
        send(Word(text))

    return walk(
        setup,
        Part(request.name, torch.from_numpy(request.columns), request.exact),
        request.choice,
        torch.from_numpy(request.perturbation),
        None,
        Partial(request.place, request.name, say, request.began),
        lambda row: send(Row(row)),
        say,
        Crew.none(),
    )


def main(descriptor: int) -> None:
    """Serve the process at the other end of a socket until it closes it."""
    torch.set_num_threads(1)
    connection = Connection(descriptor)
    requests: queue.SimpleQueue[object] = queue.SimpleQueue()
    replies: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        try:
            while True:
                requests.put(pickle.loads(connection.recv_bytes()))
        except (EOFError, OSError):
            os._exit(0)  # nobody is there any more: whatever is being computed is for nobody

    def write() -> None:
        try:
            while True:
                connection.send_bytes(replies.get())
        except OSError:
            os._exit(0)

    def send(reply: object) -> None:
        replies.put(pickle.dumps(reply, protocol=5))

    for target in (read, write):
        threading.Thread(target=target, daemon=True).start()
    try:
        serve(requests.get, send)
    except Exception as error:
        known = isinstance(error, TscopeError | MemoryError)
        send(Failure(error if known else RuntimeError(f"{type(error).__name__}: {error}")))
        threading.Event().wait()  # until it has been read, and the other process closes the socket


if __name__ == "__main__":
    # Messages are of this module under its own name, which `__main__` is not.
    from tscope.analyses.effective import worker

    worker.main(int(sys.argv[1]))
