"""An ensemble of decision trees as a root: one row a tree, and what each tree does to every example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tscope_format.disk import Disk
from tscope_format.dtypes import JSON, NDArray
from tscope_format.errors import RecordError
from tscope_format.examples import ExamplesWriter
from tscope_format.group import GroupWriter, checked_name
from tscope_format.metadata import ArrayMetadata
from tscope_format.probe import ProbeWriter
from tscope_format.root_writer import Guard

NODE_COLUMNS = ("feature", "threshold", "left", "right", "missing_left", "value")


@dataclass(frozen=True)
class TreeArrays:
    """What is held of an ensemble.

    Attributes:
        inputs: The training inputs (example, feature).
        hashes: Their identities (example, 16).
        target: What the leaves average, labels or one-hot classes (example, output).
        weight: The weights of the examples (example), None where all are 1.
        sample: How often each tree was given each example (tree, example), None where each was once.
        leaf: The leaf of each example, as its node's number within the tree (tree, example).
        start: The first node of each tree, and one more (tree + 1).
        nodes: The columns of the nodes by name, each (node, …): see `format/SPEC.md`.
    """

    inputs: NDArray
    hashes: npt.NDArray[np.uint8]
    target: NDArray
    weight: NDArray | None
    sample: NDArray | None
    leaf: NDArray
    start: NDArray
    nodes: Mapping[str, NDArray]


class TreesWriter:
    """Writes one root of kind `trees`; made by `TraceWriter.add_trees`.

    Attributes:
        name: the group's name.
        attributes: JSON attributes of the group, written at the next commit.
    """

    def __init__(self, disk: Disk, name: str, guard: Guard, attributes: Mapping[str, JSON]) -> None:
        self.name = name
        self.rows = 0
        self._disk = disk
        self._guard = guard
        self._root = GroupWriter(disk, name)
        self._trees = GroupWriter(disk, f"{name}/trees")
        self._examples = ExamplesWriter(disk, name)
        self._probes: dict[str, ProbeWriter] = {}
        self.attributes = self._root.attributes
        # The tables of a network, empty: readers need not ask what kind of a root they have.
        self.attributes.update({"parameters": [], "buffers": [], **attributes, "kind": "trees"})

    def start(self, arrays: TreeArrays, time: NDArray, loss: NDArray, lr: NDArray) -> None:
        """Write the ensemble; for `TraceWriter.add_trees`.

        Args:
            arrays: The ensemble.
            time: Seconds since the epoch (row).
            loss: Mean squared error of the training examples (row).
            lr: What each tree's values are multiplied with (row).

        Raises:
            RecordError: The arrays contradict one another.
        """
        _check(self.name, arrays)
        self.rows = len(arrays.leaf) + 1
        self._root.put("step", np.arange(self.rows, dtype=np.int64), ("step",))
        self._root.put("time", time.astype(np.float64), ("step",))
        self._root.put("loss", loss.astype(np.float64), ("step",))
        self._root.put("lr", lr.astype(np.float64)[:, None], ("step", "group"))
        self._examples.append([arrays.inputs], arrays.hashes, 1, None)
        self._trees.put("leaf", _after_start(arrays.leaf, -1), ("step", "example"))
        if arrays.sample is not None:
            self._trees.put("sample", _after_start(arrays.sample, 0), ("step", "example"))
        if arrays.weight is not None:
            self._trees.put("weight", arrays.weight, ("example",))
        self._trees.put("target", arrays.target, ("example", "output"))
        self._trees.put("start", arrays.start, ("tree_bound",))
        for column in NODE_COLUMNS:
            dims = ("node", "output") if column == "value" else ("node",)
            self._trees.put(f"node/{column}", arrays.nodes[column], dims)

    def add_probe(
        self,
        name: str,
        inputs: NDArray,
        target: NDArray | None,
        leaf: NDArray,
        attributes: Mapping[str, JSON],
    ) -> ProbeWriter:
        """Add a probe set.

        Args:
            name: its name, one part of a path.
            inputs: (example, feature).
            target: (example, …) labels, if known.
            leaf: the leaf of each example (tree, example).
            attributes: JSON attributes of its group.

        Raises:
            RecordError: the name is taken or cannot be used, or the disk refuses.
        """
        if checked_name("probe", name) in self._probes:
            raise RecordError(f"{self.name}: there is a probe set {name!r} already")
        probe = ProbeWriter(self._disk, self.name, name, self._guard)
        with self._guard() as working:
            if working:
                probe.start([inputs], target, attributes, None)
                probe.put("leaf", _after_start(leaf, -1), ("step", "example"))
                self._probes[name] = probe
        return probe

    def flush(self) -> None:
        """Write everything appended so far."""
        for part in self._parts():
            part.flush()

    def arrays(self) -> dict[str, ArrayMetadata]:
        """Return the metadata of all arrays, by path within the trace."""
        return {path: found for part in self._parts() for path, found in part.arrays().items()}

    def groups(self) -> dict[str, Mapping[str, JSON]]:
        """Return the attributes of all groups that have some, by path within the trace."""
        return {path: own for part in self._parts() for path, own in part.groups().items()}

    def settle(self) -> None:
        """Write what waits for the next row: nothing does."""

    @property
    def bytes_raw(self) -> int:
        """Size of everything recorded, uncompressed."""
        return sum(part.bytes_raw for part in self._parts())

    def _parts(self) -> list[GroupWriter]:
        return [self._root, self._trees, self._examples, *self._probes.values()]


def _after_start(rows: NDArray, fill: int) -> NDArray:
    """Return rows (tree, example) behind row 0, the state before the first tree."""
    return np.concatenate([np.full((1, rows.shape[1]), fill, rows.dtype), rows])


def _check(name: str, arrays: TreeArrays) -> None:
    trees, examples = arrays.leaf.shape
    nodes = {column: len(arrays.nodes[column]) for column in NODE_COLUMNS}
    wrong = [
        what
        for what, got, expected in (
            ("inputs", arrays.inputs.shape[:1], (examples,)),
            ("target", arrays.target.shape[:1], (examples,)),
            ("weight", (examples,) if arrays.weight is None else arrays.weight.shape, (examples,)),
            (
                "sample",
                (trees, examples) if arrays.sample is None else arrays.sample.shape,
                (trees, examples),
            ),
            ("start", arrays.start.shape, (trees + 1,)),
            ("nodes", set(nodes.values()), {int(arrays.start[-1]) if len(arrays.start) else 0}),
        )
        if got != expected
    ]
    if wrong or any(after <= before for before, after in pairwise(arrays.start.tolist())):
        raise RecordError(
            f"{name}: {', '.join(wrong) or 'start'} of an ensemble of {trees} trees and {examples} examples "
            "have other lengths"
        )
