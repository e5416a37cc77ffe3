"""A made-up training run that is recorded row by row, and the model store that the trace is held against."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from tscope_format import (
    Micro,
    ProbeWriter,
    RootReader,
    RootWriter,
    Row,
    TraceWriter,
    arrays,
    chain,
    disk,
    example_hash,
    open_trace,
    root_writer,
    table,
)
from tscope_format.dtypes import NDArray

ANCHOR_ROWS = 8
PARAMETERS = table(
    [
        ("a.weight", (5, 7), "float32", ("head.weight",), True),
        ("a.bias", (6,), "float32", (), True),
        ("half", (2, 3), "bfloat16", (), True),
        ("double", (4,), "float64", (), False),
    ]
)
BUFFERS = table(
    [
        ("norm.mean", (3,), "float32", (), False),
        ("norm.count", (), "int64", (), False),
        ("mask", (2, 2), "bool", (), False),
    ]
)
PROBE = "held out"


def small_chunks(patch: pytest.MonkeyPatch) -> None:
    """Make blocks, pieces and anchors so small that a short run has many of each."""
    patch.setattr(chain, "_PIECE", 16)
    patch.setattr(chain, "_BLOCK_ROWS", 5)
    patch.setattr(chain, "ANCHOR_ROWS", ANCHOR_ROWS)
    patch.setattr(root_writer, "ANCHOR_ROWS", ANCHOR_ROWS)
    patch.setattr(arrays, "_BLOCK_ROWS", 3)


def bits(array: NDArray) -> NDArray:
    return np.ascontiguousarray(array).view(f"u{array.itemsize}")


def same(left: NDArray, right: NDArray) -> bool:
    return left.dtype == right.dtype and np.array_equal(bits(left), bits(right))


@dataclass
class Model:
    """What was appended, as plain lists."""

    rows: list[Row] = field(default_factory=list)
    buffers: list[dict[str, NDArray]] = field(default_factory=list)
    inputs: list[NDArray] = field(default_factory=list)
    projections: list[tuple[int, NDArray]] = field(default_factory=list)
    states: dict[int, NDArray] = field(default_factory=dict)


class Run:
    """Appends random rows to a trace and remembers them."""

    def __init__(self, path: Path, seed: int = 0, *, flush_seconds: float = 1e9) -> None:
        self.random = np.random.default_rng(seed)
        self.path = path
        self.model = Model()
        self.writer = TraceWriter.create(path, facts={"id": "test"}, flush_seconds=flush_seconds)
        self.buffer: dict[str, NDArray] = {
            "float32": np.zeros(3, np.float32),
            "int64": np.zeros(1, np.int64),
            "bool": np.array([True, False, True, True]),
        }
        theta = self.theta()
        self.root: RootWriter = self.writer.add_root(
            "model",
            parameters=PARAMETERS,
            buffers=BUFFERS,
            groups=1,
            theta=theta,
            buffer=self.buffer,
            time=100.0,
            attributes={"class": "Net"},
        )
        self.model.rows.append(self.first_row(theta))
        self.model.buffers.append(self.buffer)
        self.probe: ProbeWriter | None = None

    def theta(self) -> dict[str, NDArray]:
        raw = self.random.integers(0, 2**32, 41, dtype=np.uint32)
        # Any bits at all now and then, and small changes otherwise.
        wild = self.random.random() < 0.2 or not self.model.rows
        single = raw.view(np.float32) if wild else self.model.rows[-1].theta["float32"] * np.float32(1.001)
        return {
            "float32": single,
            "bfloat16": self.random.integers(0, 2**16, 6, dtype=np.uint16),
            "float64": self.random.standard_normal(4),
        }

    def first_row(self, theta: dict[str, NDArray]) -> Row:
        nothing = np.full(4, np.nan, np.float32)
        return Row(0, 100.0, np.nan, np.full(1, np.nan), theta, None, nothing, False, False, ())

    def append(
        self, *, slots: int = 3, micros: int = 1, groups: int = 1, width: int | None = 2, buffer: bool = False
    ) -> None:
        if buffer:
            self.buffer = {
                **self.buffer,
                "float32": self.buffer["float32"] + np.float32(0.5),
                "int64": self.buffer["int64"] + 1,
            }
        step = len(self.model.rows)
        with np.errstate(over="ignore", invalid="ignore"):
            theta = self.theta()
        row = Row(
            step=step,
            time=100.0 + step,
            loss=float(self.random.standard_normal()),
            lr=self.random.random(groups),
            theta=theta,
            buffer=self.buffer if buffer else None,
            grad_norm=self.random.random(4).astype(np.float32),
            skipped=step % 5 == 0,
            foreign=step % 7 == 0,
            micro=[self.micro(slots, width) for _ in range(micros)],
        )
        self.root.append(row)
        self.model.rows.append(row)
        self.model.buffers.append(self.buffer)

    def micro(self, slots: int, width: int | None) -> Micro:
        values = None if width is None else self.random.standard_normal((slots, width)).astype(np.float32)
        return Micro(
            slots, 1.0, self.random.integers(0, 50, slots), values, None if values is None else -values
        )

    def add_state(self) -> None:
        """Add an optimizer state, if the last row is an anchor row."""
        row = len(self.model.rows) - 1
        if row == 0 or row % ANCHOR_ROWS:
            return
        state = self.random.standard_normal(41).astype(np.float32)
        self.root.append_anchor_state(
            row, {"exp_avg": {"float32": state}}, {"scalars": {"step": [row, None, row, row]}}
        )
        self.model.states[row // ANCHOR_ROWS] = state

    def add_examples(self, count: int = 2, length: int = 3) -> None:
        inputs = self.random.standard_normal((count, length)).astype(np.float32)
        hashes = np.array([np.frombuffer(example_hash([row]), np.uint8) for row in inputs])
        self.root.add_examples([inputs], hashes, len(self.model.rows))
        self.model.inputs += list(inputs)

    def project(self) -> None:
        if self.probe is None:
            inputs = [np.ones((2, 3), np.float32)]
            self.probe = self.root.add_probe(
                PROBE, inputs=inputs, target=np.arange(2), attributes={"rows": 2}
            )
        step = len(self.model.rows) - 1
        if self.model.projections and self.model.projections[-1][0] == step:
            return
        output = self.random.standard_normal((2, 2)).astype(np.float32)
        self.probe.append(step, output, output * 2, output * 3)
        self.model.projections.append((step, output))


def check(root: RootReader, model: Model) -> None:
    """Hold everything that a root has committed against the model."""
    count = root.rows
    rows = model.rows[:count]
    assert len(rows) == count
    assert root.read("step").tolist() == [row.step for row in rows]
    assert same(root.read("time"), np.array([row.time for row in rows]))
    assert np.array_equal(root.read("loss"), np.array([row.loss for row in rows]), equal_nan=True)
    assert root.read("skipped").tolist() == [row.skipped for row in rows]
    assert same(root.read("grad_norm"), np.array([row.grad_norm for row in rows]))
    lr = root.read("lr")
    for at, row in enumerate(rows):
        assert np.array_equal(lr[at, : len(row.lr)], row.lr, equal_nan=True)
        assert np.isnan(lr[at, len(row.lr) :]).all()
    check_states(root, model)
    check_batches(root, rows)
    check_sets(root, model)


def check_states(root: RootReader, model: Model) -> None:
    seen = 0
    for (start, theta), (again, buffer) in zip(root.theta_blocks(), root.buffer_blocks(), strict=True):
        assert start == again == seen
        for at in range(len(theta["float32"])):
            for key, values in model.rows[seen].theta.items():
                assert same(theta[key][at], values), (key, seen)
            for key, values in model.buffers[seen].items():
                assert same(buffer[key][at], values), (key, seen)
            seen += 1
    assert seen == root.rows


def check_batches(root: RootReader, rows: list[Row]) -> None:
    if not any(row.micro for row in rows):
        return
    example, size = root.read("batch/example"), root.read("batch/size")
    outputs = root.read("batch/output") if "batch/output" in root.arrays() else None
    for at, row in enumerate(rows):
        ids = np.concatenate([part.examples for part in row.micro]) if row.micro else np.empty(0)
        assert np.array_equal(example[at, : len(ids)], ids)
        assert (example[at, len(ids) :] == -1).all()
        assert size[at].sum() == len(ids)
        values = [part.output for part in row.micro if part.output is not None]
        if outputs is not None and values:
            joined = np.concatenate(values)
            assert same(outputs[at, : len(joined), : joined.shape[1]], joined)
            assert np.isnan(outputs[at, len(joined) :]).all()
            assert np.isnan(outputs[at, :, joined.shape[1] :]).all()


def check_sets(root: RootReader, model: Model) -> None:
    held = root.arrays()
    if "examples/hash" in held:
        inputs, shapes = root.read("examples/input/0"), root.read("examples/shape/0")
        for at in range(len(inputs)):
            assert same(inputs[at, : shapes[at, 0]], model.inputs[at])
    if f"probe/{PROBE}/output" in held:
        steps = root.read(f"probe/{PROBE}/probe_step")
        output, lazy = root.read(f"probe/{PROBE}/output"), root.read(f"probe/{PROBE}/lazy")
        for at, (step, values) in enumerate(model.projections[: len(steps)]):
            assert steps[at] == step
            assert same(output[at], values)
            assert same(lazy[at], values * 3)
    if "optimizer/exp_avg" in held:
        states = root.read("optimizer/exp_avg")
        for at in range(len(states)):
            expected = model.states.get(at, np.full(41, np.nan, np.float32))
            assert np.array_equal(states[at], expected, equal_nan=True)


def committed(run: Run) -> RootReader:
    return open_trace(run.path).root()


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the process runs after it."""


@contextmanager
def killed_at(operation: int, patch: pytest.MonkeyPatch, *, torn: float = 0.5) -> Iterator[list[int]]:
    """Die at the given file operation (a write, torn in the middle, or a rename); yields the count so far."""
    count = [0]
    fill, replace = disk.Disk._fill, os.replace

    def dying_fill(self: disk.Disk, path: str, parts: list[bytes]) -> None:
        count[0] += 1
        if count[0] - 1 == operation:
            data = b"".join(parts)
            fill(self, path, [data[: int(torn * len(data))]])
            raise Killed
        fill(self, path, parts)

    def dying_replace(source: str, target: str) -> None:
        count[0] += 1
        if count[0] - 1 == operation:
            raise Killed
        replace(source, target)

    with patch.context() as context:
        context.setattr(disk.Disk, "_fill", dying_fill)
        context.setattr("tscope_format.disk.os.replace", dying_replace)
        with suppress(Killed):
            yield count
