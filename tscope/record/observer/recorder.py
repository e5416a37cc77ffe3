"""The observer's state in one process, and its connection to the recorder."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple

import torch

from .arena import shared
from .backwards import Backwards
from .batch import Batch
from .blocks import Pool
from .exporter import Exporter
from .faults import Faults
from .fork_point import ForkPoint
from .forwards import Forwards
from .modules import Modules
from .options import Options
from .root import Root
from .rows import Rows
from .sender import Sender
from .steps import Steps
from .wire import Frame


class Recorder:
    """Follows one process.

    Args:
        options: What to record.
        faults: Where exceptions are counted.

    Attributes:
        active: Whether there is anything left to do; hooks pass everything through when not.
        lock: Held while the state changes: a script may train in several threads.
        sender: The connection, made when the first root is found.
        hook_ns: Time spent in the hooks.
        calls: Number of hook calls.
        fork: Where random generators are reseeded; None in a run that is not a fork.
        connected: Called when the connection is made.
        dead: Batches whose graph is gone. Graphs die at any time and in any thread, even in the sender's, so
            that they are only noted here.
    """

    def __init__(self, options: Options, faults: Faults) -> None:
        self.options = options
        self.faults = faults
        self.active = True
        self.lock = threading.RLock()
        self.pool = Pool()
        self.sender: Optional[Sender] = None
        self.connected: Optional[Callable[[], None]] = None
        self.hook_ns = 0
        self.calls = 0
        self.fork = None if options.fork is None else ForkPoint(options.fork)
        self.roots: List[Root] = []
        self.dead: Deque[Batch] = deque()
        self.modules = Modules(self)
        self.forwards = Forwards(self)
        self.backwards = Backwards(self)
        self.steps = Steps(self)
        self.rows = Rows(self)
        self.exporter = Exporter(self)

    def send(self, frame: Frame) -> None:
        """Queue a frame; the first one makes the connection."""
        if self.sender is None:
            self.sender = self._connected()
        self.sender.put(frame)
        if self.sender.gone:
            self._lost(self.sender)

    def _lost(self, sender: Sender) -> None:
        self.active = False
        what = "the script closed the connection to it" if sender.closed_by_script else "it is gone"
        self.faults.note("the recorder", what + ", and recording ends here")

    def _connected(self) -> Sender:
        try:
            arena = shared(self.options.shared_bytes)
            sender = Sender(self.options.socket, self.options.queue_bytes, self._unsendable, arena)
        except OSError:
            self.active = False  # nobody listens, and nobody will
            raise
        # Only now: what was forked off before is not the recorder's, and must not write where it reads.
        self.pool.arena = arena
        sender.put(Frame("hello", _hello()))
        if self.connected is not None:
            self.connected()
        return sender

    def export(self, root: Root, call: Tuple[Any, Any]) -> None:
        """Send the module as data; `call` is what it was called with."""
        self.faults.aside("export", self.exporter.begin, root, call)

    def report(self, where: str, text: str, failed: bool) -> bool:
        """Tell the recorder about a fault; False if it cannot be told."""
        if not self.active:
            return False
        if self.sender is None:
            self.sender = self._connected()
        if self.sender.gone:
            return False
        self.sender.put(
            Frame("report", {"where": where, "error": text, "failed": failed, "pid": os.getpid()})
        )
        return True

    def _unsendable(self, frame: Frame, error: Exception) -> None:
        self.faults.caught("frame " + frame.kind, error)

    def forked(self) -> None:
        """In a forked child: workers must not record. One forked before anything was recorded may train."""
        self.lock = threading.RLock()
        self.pool = Pool()
        if self.sender is not None or self.roots:
            self.active = False
        if self.sender is not None:
            self.sender.forked()

    def finish(self) -> None:
        """The process ends: send what is left, and wait until the recorder has it."""
        sender = self.sender
        if sender is not None and not sender.gone:
            for root in self.roots:
                self.rows.last(root)
            self.exporter.finish()
            sender.drain()  # while frames that cannot be sent can still be reported
            steps = {str(root.number): {"steps": root.steps, "skipped": root.skipped} for root in self.roots}
            wait = sender.wait_ns
            fields = {"roots": steps, "hook_ns": self.hook_ns - wait, "wait_ns": wait, "calls": self.calls}
            self.active = False
            sender.put(Frame("bye", fields))
            sender.close()
        self.active = False
        if sender is not None and sender.gone:
            sender.join()
            self._lost(sender)

    def drain(self) -> None:
        """Wait until the recorder has what was queued."""
        if self.sender is not None and not self.sender.gone:
            self.sender.close()


def _hello() -> Dict[str, Any]:
    return {
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "argv": [str(part) for part in sys.argv],
        "executable": sys.executable,
        "cwd": os.getcwd(),
        "python": sys.version.split()[0],
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "rank": os.environ.get("RANK"),
    }
