"""Ensembles of decision trees that a script fits: found when `fit` returns, and sent at once.

Without torch: this is loaded beside scikit-learn, xgboost or lightgbm. Nothing is computed that draws random
numbers, prints or warns; what the library keeps of its trees is read, and sent before the script goes on.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import os
import socket
import sys
import threading
import time
import weakref
from typing import Any, Callable, Dict, List, Mapping, Optional, Set, Tuple

from .descriptor import Descriptor
from .faults import Faults
from .options import Options
from .wire import Blob, Frame, connect, send

_MOST_FITS = 64
_MOST_ROWS = 4096  # of an ensemble's predictions
_PATIENCE = 120.0  # seconds without the recorder taking anything

_clock = time.perf_counter_ns


class Refusal(Exception):
    """An ensemble whose predictions are not a known, linear function of the labels; says why."""


class _Bytes:
    """The bytes of an array."""

    offset = 0

    def __init__(self, data: Any) -> None:
        self.data = data


def blob(name: str, array: Any) -> Blob:
    """Return a numpy array as a part of a frame."""
    numpy = sys.modules["numpy"]
    flat = numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8)
    return Blob(name, array.dtype.name, array.shape, _Bytes(flat.data), array.nbytes)


class Trees:
    """Sends the ensembles of this process.

    Args:
        options: What to record.
        faults: Where exceptions are counted.

    Attributes:
        active: Whether there is anything left to do; hooks pass everything through when not.
    """

    def __init__(self, options: Options, faults: Faults) -> None:
        self.options = options
        self.faults = faults
        self.active = not _is_worker()
        self._lock = threading.RLock()
        self._connection: Optional[socket.socket] = None
        self._descriptor: Optional[Descriptor] = None
        # By model: its number, a digest of its training inputs, and how many rows may still be sent.
        self._models: "weakref.WeakKeyDictionary[Any, List[Any]]" = weakref.WeakKeyDictionary()
        self._fits = 0
        self._unanswered = 0
        self._said: Set[Tuple[str, str]] = set()
        self._hook_ns = 0
        self._wait_ns = 0
        faults.report = self._report

    def guarded(self, where: str, action: Callable[..., Any], *args: Any) -> Any:
        """Do something of ours, whatever happens in it."""
        if not self.active or where in self.faults.disabled:
            return None
        began = _clock()
        try:
            with self._lock, sys.modules["numpy"].errstate(all="ignore"):
                return action(*args)
        except Refusal as refusal:
            self._refused(where.partition(" ")[0], "not recorded: " + str(refusal))
            return None
        except Exception as error:
            self.faults.caught(where, error)
            return None
        finally:
            self._hook_ns += _clock() - began

    def fitted(self, model: Any, began: float, fields: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """Send an ensemble.

        Args:
            model: The fitted object.
            began: When its fit began, in seconds since the epoch.
            fields: What `tscope.record.trees` expects of a `trees` frame.
            arrays: The arrays of it.
        """
        if self._fits == _MOST_FITS:
            self.faults.note("trees", "the first {} fits are recorded, no further ones".format(_MOST_FITS))
        if self._fits >= _MOST_FITS:
            return
        self.finish()  # of the fit before: the recorder looks at one while the next one goes on
        if not self.active:
            return
        if self.options.eval_rows:
            self._models[model] = [self._fits, _digest(arrays["input"]), _MOST_ROWS]
        self._send(
            "trees",
            {
                "number": self._fits,
                "pid": os.getpid(),
                "class": type(model).__name__,
                "began": began,
                "ended": time.time(),
                "hook_ns": self._hook_ns,
                "wait_ns": self._wait_ns,
                **fields,
            },
            arrays,
        )
        self._fits += 1
        self._unanswered += 1

    def predicted(self, model: Any, inputs: Any, dtype: str, output: Any) -> None:
        """Send what an ensemble predicted: rows that it was evaluated on."""
        known = self._models.get(model)
        if known is None or known[2] <= 0:
            return
        numpy = sys.modules["numpy"]
        whole = dense(inputs, dtype)
        if _digest(whole) == known[1]:
            return
        rows = whole[: known[2]]
        values = numpy.asarray(output, "float64")[: known[2]].reshape(len(rows), -1)
        known[2] -= len(rows)
        self._send(
            "tree_rows",
            {"number": known[0], "pid": os.getpid(), "hook_ns": self._hook_ns, "wait_ns": self._wait_ns},
            {"input": rows, "output": values},
        )

    def finish(self) -> None:
        """The process ends: wait until the recorder has taken what was sent, or it would be late for it."""
        began = _clock()
        while self._unanswered and self._connection is not None:
            if self._descriptor is not None and not self._descriptor.ours:
                self._lost("the script closed the connection to it")
                return
            try:
                answer = self._connection.recv(1)
            except OSError:
                answer = b""
            if not answer:
                self._lost("it is gone")
                return
            self._unanswered -= 1
        self._wait_ns += _clock() - began

    def forked(self) -> None:
        """In a forked child: workers must not record. One forked before anything was recorded may fit."""
        self._lock = threading.RLock()
        if self._connection is not None:
            self.active = False
            self._forget()

    def _refused(self, what: str, text: str) -> None:
        """Say once of each kind of ensemble, and each reason, that it is not recorded."""
        if (what, text) not in self._said:
            self._said.add((what, text))
            self.faults.tell(what, text, failed=False)

    def _send(self, kind: str, fields: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        frame = Frame(kind, dict(fields), [blob(name, array) for name, array in arrays.items()])
        began = _clock()
        connection = self._connected()
        if self._descriptor is not None and not self._descriptor.ours:
            self._lost("the script closed the connection to it")
            return
        try:
            send(connection, frame.pieces())
        except OSError:
            self._lost("it is gone")
        self._wait_ns += _clock() - began

    def _connected(self) -> socket.socket:
        if self._connection is None:
            try:
                self._connection = connect(self.options.socket)
            except OSError:
                self.active = False  # nobody listens, and nobody will
                raise
            self._connection.settimeout(_PATIENCE)
            self._descriptor = Descriptor(self._connection.fileno())
            send(self._connection, Frame("hello", _hello()).pieces())
        return self._connection

    def _lost(self, what: str) -> None:
        self.active = False
        self._forget()
        self.faults.note("the recorder", what + ", and recording ends here")

    def _forget(self) -> None:
        """Let go of the connection, whose number may be the script's by now."""
        if self._connection is not None and self._descriptor is not None:
            self._connection.detach()
            self._descriptor.close()
        self._connection = self._descriptor = None
        self._unanswered = 0

    def _report(self, where: str, text: str, failed: bool) -> bool:
        if not self.active:
            return False
        self._send("report", {"where": where, "error": text, "failed": failed, "pid": os.getpid()}, {})
        return self.active


def dense(inputs: Any, dtype: str) -> Any:
    """Return inputs as an array (example, feature) of their own.

    Raises:
        Refusal: They are sparse.
    """
    if hasattr(inputs, "tocsr"):
        raise Refusal("its inputs are a sparse matrix")
    return sys.modules["numpy"].array(inputs, dtype=dtype, order="C", ndmin=2)


def _digest(array: Any) -> bytes:
    flat = array.reshape(-1).view(sys.modules["numpy"].uint8)
    return hashlib.blake2b(flat.data, digest_size=16).digest()


def plain(value: Any) -> Any:
    """Return a setting as JSON can hold it: anything that is not simple by the name of its class."""
    if isinstance(value, float) and value - value != 0.0:
        return str(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else type(value).__name__


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replace a function by one of ours that calls it."""
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(make(original)))


def table(trees: List[Dict[str, Any]]) -> Dict[str, Any]:
    """Return the nodes of all trees as arrays: `start` (tree + 1), and each column (node, …)."""
    numpy = sys.modules["numpy"]
    starts = numpy.cumsum([0, *(len(tree["left"]) for tree in trees)])
    columns = {
        "node/" + name: numpy.concatenate([numpy.asarray(tree[name], dtype) for tree in trees])
        for name, dtype in _COLUMNS
    }
    return {"start": starts.astype("int64"), **columns}


# Children are counted from the tree's first node, −1 at a leaf; a row goes left where `x <= threshold`.
_COLUMNS: Tuple[Tuple[str, str], ...] = (
    ("feature", "int32"),
    ("threshold", "float64"),
    ("left", "int32"),
    ("right", "int32"),
    ("missing_left", "uint8"),
    ("value", "float64"),
)


def _hello() -> Dict[str, Any]:
    return {
        "pid": os.getpid(),
        "argv": [str(part) for part in sys.argv],
        "executable": sys.executable,
        "python": sys.version.split()[0],
        "rank": os.environ.get("RANK"),
    }


def _is_worker() -> bool:
    """Tell whether this process works for another one, which fits the same models itself."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        return True
    name = getattr(getattr(sys.modules.get("__main__"), "__spec__", None), "name", None) or ""
    return name.rpartition(".")[2].startswith("popen_loky")


_trees: List[Trees] = []


def observe(module: Any) -> None:
    """Begin to observe a library, one of whose modules was just loaded."""
    if not _trees:
        trees = Trees(Options.from_environment(), Faults())
        with contextlib.suppress(AttributeError):
            os.register_at_fork(after_in_child=trees.forked)
        atexit.register(trees.guarded, "exit", trees.finish)
        _trees.append(trees)
    # Another version of a library may lack what is replaced: then nothing of it is recorded.
    _trees[0].guarded(module.__name__, _install, module)


def _install(module: Any) -> None:
    library = module.__name__.partition(".")[0]
    if library == "sklearn":
        from . import trees_sklearn

        trees_sklearn.install(_trees[0], module)
    elif library == "xgboost":
        from . import trees_xgboost

        trees_xgboost.install(_trees[0], module)
    else:
        from . import trees_lightgbm

        trees_lightgbm.install(_trees[0], module)
