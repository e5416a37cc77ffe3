"""A fitted ensemble of trees: its frames, checked, into a root of the trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from tscope_format.dtypes import JSON
from tscope_format.errors import TraceError, clean
from tscope_format.trees import NODE_COLUMNS, TreeArrays

from tscope.boosting import Ensemble, follow, outputs
from tscope.record.examples import DIGEST, row_hashes
from tscope.record.frames import Frame, FrameError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tscope_format.trees import TreesWriter
    from tscope_format.writer import TraceWriter

    from tscope.record.probe_source import ProbeArrays

Say = Callable[[str], None]
_CHECKED_ROWS = 1024  # of the training rows, whose leaves are found again from the nodes


class Trees:
    """One ensemble, written when its frame comes.

    Args:
        name: Its group in the trace.
        frame: The `trees` frame.
        writer: The trace.
        probe: The rows that the person named.
        say: Tells the person something.

    Raises:
        FrameError: The frame does not describe an ensemble.

    Attributes:
        problem: Why its smoother is not exact, None if it is.
        probes: Names of its probe sets.
        steps: Its number of trees.
        began: When its fit began, in seconds since the epoch.
        ended: When it ended.
        hook_ns: Time that its process spent in the hooks so far.
        wait_ns: Time of it that it waited for the recorder.
    """

    def __init__(
        self, name: str, frame: Frame, writer: TraceWriter, probe: ProbeArrays | None, say: Say
    ) -> None:
        self.name = name
        self.probes: list[str] = []
        self.hook_ns = self.wait_ns = 0
        self._say = say
        self._held: list[tuple[NDArray[Any], NDArray[Any]]] = []
        self._inputs, arrays = _arrays(frame)
        self._ensemble = _ensemble(frame, arrays)
        self._hashes = row_hashes([self._inputs])
        self.steps = self._ensemble.trees
        self.began, self.ended = frame.number("began"), frame.number("ended")
        check = self._check(arrays.get("output"))
        self.problem: str | None = check["problem"]
        self._writer = self._write(frame, writer, check)
        if probe is not None:
            self._given(probe)
        self._given_only = probe is not None

    def predicted(self, frame: Frame) -> None:
        """Take in rows that the ensemble was evaluated on, with what it predicted."""
        inputs, output = (_array(frame, name) for name in ("input", "output"))
        if inputs.ndim != 2 or inputs.shape[1] != self._inputs.shape[1] or inputs.dtype != self._inputs.dtype:
            raise FrameError(f"{self.name}: rows of shape {inputs.shape} are none of this ensemble")
        if output.shape != (len(inputs), self._ensemble.target.shape[1]):
            raise FrameError(f"{self.name}: predictions of shape {output.shape} for {len(inputs)} rows")
        known = set(self._hashes).union(*(row_hashes([rows]) for rows, _ in self._held))
        new = []
        for place, row in enumerate(row_hashes([inputs])):
            if row not in known:
                known.add(row)
                new.append(place)
        if new and not self._given_only:
            self._held.append((inputs[new], output[new]))

    def close(self) -> None:
        """Write the rows that it was evaluated on, as held out."""
        if self._held:
            inputs, output = (np.concatenate(parts) for parts in zip(*self._held, strict=True))
            self._held = []
            self._probe("heldout", inputs, None, {"kind": "heldout", "in_sample": False}, output)

    def _check(self, library: NDArray[Any] | None) -> dict[str, JSON]:
        """Compare Sy to the ensemble's predictions of the training rows, after every tree."""
        ensemble = self._ensemble
        again = ensemble.nodes.leaves(self._inputs[:_CHECKED_ROWS])
        if not np.array_equal(again, ensemble.leaf[:, :_CHECKED_ROWS]):
            wrong = int((again != ensemble.leaf[:, :_CHECKED_ROWS]).sum())
            return _found(
                None, f"the recorded nodes lead {wrong} training rows to other leaves than the library"
            )
        largest = 0.0
        own = outputs(ensemble, ensemble.leaf)
        last = ensemble.target
        for smoothed, last in zip(self._smoothed(ensemble.leaf), own, strict=True):
            largest = max(largest, _apart(smoothed, last))
        if library is not None:
            largest = max(largest, _apart(library, last))
        return _found(largest, self._verdict(largest))

    def _verdict(self, largest: float) -> str | None:
        limit = self._ensemble.tolerance
        if largest <= limit:
            return None
        return (
            f"max |Sy − prediction| is {largest:.3g}, where at most {limit:.3g} is expected: the library "
            "does something with these settings that is not recorded"
        )

    def _smoothed(self, leaf: NDArray[np.int32]) -> Any:
        return follow(self._ensemble, leaf, self._ensemble.target, constant=True)

    def _write(self, frame: Frame, writer: TraceWriter, check: Mapping[str, JSON]) -> TreesWriter:
        ensemble = self._ensemble
        weights = ensemble.weights()
        errors = [
            float(np.average(np.square(ensemble.target - output).mean(1), weights=weights))
            for output in outputs(ensemble, ensemble.leaf)
        ]
        time = np.full(self.steps + 1, np.nan)
        time[0], time[-1] = self.began, self.ended
        rate = np.full(self.steps + 1, ensemble.shrinkage)
        rate[0] = np.nan
        settings = frame.mapping("settings")
        if check["problem"] is not None:
            self._say(f"{self.name} ({frame.text('class')}) cannot be analysed: {check['problem']}")
        nodes = ensemble.nodes
        return writer.add_trees(
            self.name,
            TreeArrays(
                inputs=self._inputs,
                hashes=np.frombuffer(b"".join(self._hashes), np.uint8).reshape(-1, DIGEST),
                target=ensemble.target,
                weight=ensemble.weight,
                sample=ensemble.sample,
                leaf=ensemble.leaf,
                start=nodes.start,
                nodes={column: getattr(nodes, column) for column in NODE_COLUMNS},
            ),
            time=time,
            loss=np.array(errors),
            lr=rate,
            attributes={
                "class": frame.text("class"),
                "library": f"{frame.text('library')} {frame.text('version')}",
                "rule": ensemble.rule,
                "shrinkage": ensemble.shrinkage,
                "penalty": ensemble.penalty,
                "base": ensemble.base,
                "base_value": ensemble.base_value.tolist(),
                "precision": ensemble.precision,
                "check": dict(check),
                "optimizers": [{"class": ensemble.rule, "groups": [{"hyper": settings}]}],
                "program": {"ok": False, "reason": "trees are held themselves, as nodes"},
            },
        )

    def _given(self, probe: ProbeArrays) -> None:
        if len(probe.inputs) != 1 or probe.inputs[0].array.shape[1:] != self._inputs.shape[1:]:
            self._say(
                f"{self.name}: the probe set does not fit: its rows have shape "
                f"{list(probe.inputs[0].array.shape[1:])}, those of training {list(self._inputs.shape[1:])}"
            )
            return
        rows = probe.inputs[0].array.astype(self._inputs.dtype)
        target = None if probe.target is None else probe.target.array
        self._probe(probe.name, rows, target, probe.attributes, None)

    def _probe(
        self,
        name: str,
        inputs: NDArray[Any],
        target: NDArray[Any] | None,
        attributes: Mapping[str, JSON],
        library: NDArray[Any] | None,
    ) -> None:
        """Write a probe set, and what the trees say of it after each of them."""
        ensemble = self._ensemble
        leaf = ensemble.nodes.leaves(inputs)
        inside = len(set(row_hashes([inputs])).intersection(self._hashes))
        labels = {**attributes, "functional": "full", "rows_in_training": inside}
        probe = self._writer.add_probe(name, inputs, target, leaf, labels)
        every = np.concatenate([ensemble.leaf, leaf], axis=1)
        n = ensemble.examples
        last = start = before = np.zeros(0)
        lazy = follow(ensemble, every, ensemble.target, constant=True, tree=0)
        for step, (last, smoothed, held) in enumerate(
            zip(outputs(ensemble, leaf), self._smoothed(every), lazy, strict=True)
        ):
            now = smoothed[n:].copy()
            if step == 0:
                start = before = now
            probe.append(step, *(part.astype(np.float32) for part in (last, now - before, held[n:] - start)))
            before = now
        self.probes.append(name)
        if library is not None and (problem := self._verdict(_apart(library, last))) is not None:
            self.problem = self.problem or problem
            self._writer.attributes["check"] = _found(_apart(library, last), problem)
            self._say(f"{self.name}: of the rows it was evaluated on, {problem}")


def _found(largest: float | None, problem: str | None) -> dict[str, JSON]:
    known = largest is not None and np.isfinite(largest)
    return {"largest": largest if known else None, "problem": problem}


def _apart(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Return the largest difference; infinity where one cannot be told (a NaN is larger than nothing)."""
    largest = float(np.abs(one - other).max(initial=0.0))
    return largest if np.isfinite(largest) else np.inf


def _arrays(frame: Frame) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """Return the training inputs (example, feature) and the other arrays by name."""
    arrays = {name: blob.array for name, blob in frame.blobs.items()}
    inputs = _array(frame, "input")
    if inputs.ndim != 2 or inputs.dtype.kind != "f" or not inputs.size:
        raise FrameError(f"a `trees` frame has inputs of {inputs.dtype} and shape {inputs.shape}")
    del arrays["input"]
    return inputs, arrays


def _array(frame: Frame, name: str) -> NDArray[Any]:
    if name not in frame.blobs:
        raise FrameError(f"a `{frame.kind}` frame lacks the array `{name}`")
    return frame.blobs[name].array


def _ensemble(frame: Frame, arrays: dict[str, NDArray[Any]]) -> Ensemble:
    """Return what a frame describes; leaves that it does not hold are found from the nodes."""
    inputs = _array(frame, "input")
    try:
        if "leaf" not in arrays:
            empty = np.zeros((len(_array(frame, "start")) - 1, len(inputs)), np.int32)
            arrays["leaf"] = Ensemble.of(frame.fields, {**arrays, "leaf": empty}).nodes.leaves(inputs)
        ensemble = Ensemble.of(frame.fields, arrays)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise FrameError(f"a `trees` frame describes no ensemble ({clean(error)})") from error
    except TraceError as error:
        raise FrameError(f"a `trees` frame describes no ensemble: {error}") from error
    problem = _contradiction(ensemble, len(inputs))
    if problem is not None:
        raise FrameError(f"a `trees` frame describes no ensemble: {problem}")
    return ensemble


def _contradiction(ensemble: Ensemble, examples: int) -> str | None:
    """Return which arrays of an ensemble do not fit one another."""
    trees, outputs_ = ensemble.trees, ensemble.target.shape[-1]
    nodes = ensemble.nodes
    total = int(nodes.start[-1]) if len(nodes.start) else 0
    shapes = {
        "target": (ensemble.target, (examples, outputs_)),
        "leaf": (ensemble.leaf, (trees, examples)),
        "start": (nodes.start, (trees + 1,)),
        "value": (nodes.value, (total, outputs_)),
        "base_value": (ensemble.base_value, (outputs_,)),
        "weight": (ensemble.weight, (examples,)),
        "sample": (ensemble.sample, (trees, examples)),
        **{column: (getattr(nodes, column), (total,)) for column in NODE_COLUMNS if column != "value"},
    }
    for name, (array, expected) in shapes.items():
        if array is not None and array.shape != expected:
            return f"`{name}` has shape {array.shape}, expected {expected}"
    sizes = np.diff(nodes.start)
    if not trees or nodes.start[0] != 0 or (sizes < 1).any():
        return "its trees have no nodes"
    if (ensemble.leaf < 0).any() or (ensemble.leaf >= sizes[:, None]).any():
        return "a leaf lies outside its tree"
    return None
