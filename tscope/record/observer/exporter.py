"""Turning the model into data, out of the run's sight: in a fork of the process, or else at its end."""

from __future__ import annotations

import contextlib
import copy
import gc
import importlib
import io
import os
import random
import select
import signal
import socket
import sys
import warnings
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import torch

from .batch import copied
from .blocks import Pool
from .descriptor import Descriptor
from .memory import is_real, quiet
from .root import Root
from .tree import mapped
from .wire import Frame, connect, send

if TYPE_CHECKING:
    from .recorder import Recorder

# Exports take seconds; a copy that hangs (on a lock that some thread held) ends by the alarm.
_ALARM = 600
_NICENESS = 10
_DONE = b"1"

Call = Tuple[Tuple[Any, ...], Dict[str, Any]]


class _Copy(NamedTuple):
    """A forked copy at work, and what is needed to do without it."""

    root: Root
    call: Call
    pipe: Descriptor


class Exporter:
    """Exports the roots of a process, each once.

    Args:
        recorder: The process's recorder.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._copies: List[_Copy] = []
        self._later: List[Tuple[Root, Call]] = []

    def begin(self, root: Root, call: Call) -> None:
        """Export the root, which was called with `call`: in a fork now, or at the end of the run."""
        call = mapped(tuple(call[0]), _detached), mapped(dict(call[1]), _detached)
        module = root.module
        if module is None:
            return
        # Another device's memory is no longer there in a fork.
        here = all(slot.tensor().is_cpu for slot in (*root.parameters.slots, *root.buffers.slots))
        if self._recorder.options.export == "fork" and here:
            self._copies.append(_Copy(root, call, self._fork(root, module, call)))
        else:
            self._later.append((root, call))

    def poll(self) -> None:
        """See whether a copy is done, or died."""
        for fork in list(self._copies):
            if not fork.pipe.ours:
                self._copies.remove(fork)  # closed by the script; what the copy does cannot be known any more
                continue
            try:
                answer = os.read(fork.pipe.number, 1)
            except BlockingIOError:
                continue
            fork.pipe.close()
            self._copies.remove(fork)
            if answer != _DONE and self._recorder.active:
                self._later.append((fork.root, fork.call))
                text = "the forked copy died or took more than {} s; it is done at the end of the run".format(
                    _ALARM
                )
                self._recorder.faults.tell("export", text, failed=False)

    def finish(self) -> None:
        """At the end of the run: export in the process what could not be exported in a copy."""
        for fork in self._copies:
            if not fork.pipe.ours:
                continue
            # A run shorter than its export: only now can it be known whether the copy makes it.
            waiter = select.poll()
            waiter.register(fork.pipe.number, select.POLLIN)
            waiter.poll(1000 * _ALARM)
        self.poll()
        for root, call in self._later:
            module = root.module
            if module is None:
                self._recorder.send(_failure(root, "the module did not live until the end of the run"))
                continue
            with _undisturbed():
                try:
                    shadow = copy.deepcopy(module)
                except Exception as error:
                    reason = "the module cannot be copied ({}: {})".format(type(error).__name__, error)
                    self._recorder.send(_failure(root, " ".join(reason.split())))
                    continue
                frame = _program(root, shadow, call, self._recorder.options.output, self._recorder.pool)
            self._recorder.send(frame)
        self._later = []

    def _fork(self, root: Root, module: torch.nn.Module, call: Call) -> Descriptor:
        """Start a copy; returns the end of a pipe on which it says that it is done."""
        # Connected before the fork, so that the recorder knows of it before this process can end.
        connection = connect(self._recorder.options.socket)
        reader, writer = os.pipe()
        try:
            with _no_warning():
                child = os.fork()
            if child == 0:
                try:
                    # Twice, so that the script's own os.wait() never meets our process.
                    if os.fork() == 0:
                        self._work(root, module, call, connection, writer)
                finally:
                    os._exit(0)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)
            os.set_blocking(reader, False)
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
            connection.close()
        return Descriptor(reader)

    def _work(
        self, root: Root, module: torch.nn.Module, call: Call, connection: socket.socket, writer: int
    ) -> None:
        """In the copy: export, send, say so. The caller then ends the process without any cleaning up."""
        os.nice(_NICENESS)
        torch.set_num_threads(1)  # the threads of the pool do not exist here: it would wait for them forever
        gc.disable()  # no finalizer of the script may run twice
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        signal.alarm(_ALARM)
        os.setpgid(0, 0)  # not setsid: sessions are scheduled as groups, and no priority would count
        _silence({connection.fileno(), writer})
        send(connection, _program(root, module, call, self._recorder.options.output, Pool()).pieces())
        connection.close()
        os.write(writer, _DONE)


def _program(root: Root, module: torch.nn.Module, call: Call, output: Optional[str], pool: Pool) -> Frame:
    """Export `module`, which is nobody else's, in evaluation mode; returns the `program` frame."""
    for part in module.modules():
        part.__dict__["training"] = False  # users override train() and eval()
    export = importlib.import_module(".export", __package__)
    try:
        graph, constants = export.export(module, *call, output=output, gradient_path=root.path)
    except export.ExportError as error:
        return _failure(root, str(error))
    blobs = [copied(pool, tensor).blob("constant:" + name) for name, tensor in constants.items()]
    fields = {
        "root": root.number,
        "pid": root.process,
        "ok": True,
        "reason": None,
        "graph": graph,
        "output_path": graph.get("output_path"),
    }
    return Frame("program", fields, blobs)


def _failure(root: Root, reason: str) -> Frame:
    fields = {"root": root.number, "pid": root.process, "ok": False, "reason": reason, "graph": None}
    return Frame("program", dict(fields, output_path=None))


def _detached(tensor: torch.Tensor) -> torch.Tensor:
    if not is_real(tensor):
        return tensor
    with quiet():
        return tensor.detach()


def _silence(keep: Any) -> None:
    """Let every open file but `keep` be /dev/null: what the model prints or logs in here is not the run's."""
    null = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep and int(name) != null:
            with contextlib.suppress(OSError):  # the listing's own
                os.fstat(int(name))
                os.dup2(null, int(name))


@contextlib.contextmanager
def _no_warning() -> Iterator[None]:
    """Fork without Python 3.12's warning about threads, by a filter the warnings module does not know of.

    `warnings.filterwarnings` makes Python forget which warnings it has shown, and it would show them again.
    """
    entry = ("ignore", None, DeprecationWarning, None, 0)
    filters: Any = warnings.filters
    filters.insert(0, entry)
    try:
        yield
    finally:
        filters.remove(entry)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Run something of the model's in the process: random states and output streams stay as they are."""
    numpy = sys.modules.get("numpy")
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    numpy_state = numpy.random.get_state() if numpy is not None else None
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        torch.set_rng_state(torch_state)
        random.setstate(python_state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)
