"""What the writer promises: nothing is replaced by mistake, every axis grows, all kinds of rows come back."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from format_run import ANCHOR_ROWS, Run, check, committed, small_chunks
from tscope_format import (
    NDArray,
    RecordError,
    TraceWriter,
    is_trace,
    open_trace,
    table,
    verify,
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)


def test_a_new_trace_is_there_at_once_and_empty(tmp_path: Path) -> None:
    TraceWriter.create(tmp_path / "deep" / "t.zarr", facts={"command": ["python", "\udc80.py"]})
    trace = open_trace(tmp_path / "deep" / "t.zarr")
    assert trace.status == "recording"
    assert trace.roots == ()
    assert trace.facts["command"] == ["python", "\udc80.py"]
    assert os.listdir(tmp_path / "deep") == ["t.zarr"]


def test_an_existing_path_is_not_replaced_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "t.zarr"
    TraceWriter.create(path, facts={"name": "first"}).close("complete")
    with pytest.raises(RecordError, match=r"t\.zarr exists: choose another name, or replace it with --force"):
        TraceWriter.create(path, facts={})
    TraceWriter.create(path, facts={"name": "second"}, overwrite=True)
    assert open_trace(path).facts["name"] == "second"
    assert os.listdir(tmp_path) == ["t.zarr"]


@pytest.mark.parametrize("kind", ["folder", "file", "zarr"])
def test_only_a_trace_is_ever_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "precious"
    if kind == "file":
        path.write_text("data")
    else:
        path.mkdir()
        name = "zarr.json" if kind == "zarr" else "data"
        (path / name).write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    assert not is_trace(path)
    with pytest.raises(RecordError, match="precious exists and is not a trace: it will not be replaced"):
        TraceWriter.create(path, facts={}, overwrite=True)
    assert path.exists()


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RecordError, match=r"cannot write .*t\.zarr: (not a directory|file exists)"):
        TraceWriter.create(tmp_path / "file" / "t.zarr", facts={})


def test_rows_of_all_kinds_come_back(tmp_path: Path, small: None) -> None:
    run = Run(tmp_path / "t.zarr")
    for step in range(1, 30):
        run.append(
            slots=1 + step % 4, micros=step % 3, groups=1 + step // 10, width=1 + step // 12, buffer=step > 20
        )
        run.add_state()
        run.add_examples(1 + step % 3, 1 + step % 5)
        run.project()
    run.writer.close("complete", None)
    root = committed(run)
    check(root, run.model)
    assert root.attributes["class"] == "Net"
    assert root.attributes["kind"] == "net"
    assert root.probes == ("held out",)
    assert root.group_attributes("probe/held out") == {"rows": 2}
    assert root.read("optimizer_scalar/step").tolist()[2][0] == 2 * ANCHOR_ROWS
    assert run.writer.bytes_raw > 0


def test_norms_are_those_of_each_tensor(tmp_path: Path) -> None:
    run = Run(tmp_path / "t.zarr")
    theta: dict[str, NDArray] = {
        "float32": np.arange(41, dtype=np.float32),
        "bfloat16": np.full(6, 0x4000, np.uint16),
        "float64": np.full(4, 1e200),
    }
    run.append()
    for factor in (1, 3):
        tripled = {**theta, "float32": theta["float32"] * np.float32(factor)}
        run.root.append(replace(run.model.rows[-1], step=10 * factor, theta=tripled))
    run.writer.commit()
    root = committed(run)
    head, tail = (float(np.linalg.norm(part)) for part in (np.arange(35.0), np.arange(35.0, 41.0)))
    assert np.allclose(root.read("theta_norm")[-1][:3], [3 * head, 3 * tail, 2 * np.sqrt(6)])
    assert np.allclose(root.read("update_norm")[-1][:3], [2 * head, 2 * tail, 0])
    assert root.read("theta_norm")[-1][3] == np.inf  # 2e200 is beyond float32


def test_a_diverged_run_is_recorded_without_a_warning(tmp_path: Path) -> None:
    run = Run(tmp_path / "t.zarr")
    run.append()
    row = run.model.rows[-1]
    for step, value in ((2, np.inf), (3, -np.inf), (4, np.nan), (5, 3e38), (6, -3e38), (7, 1e-40)):
        run.root.append(
            replace(row, step=step, theta={**row.theta, "float32": np.full(41, value, np.float32)})
        )
    run.writer.commit()
    norms = committed(run).read("update_norm")[:, 0]
    assert np.isinf(norms[2])
    assert np.isnan(norms[3:6]).sum() >= 1
    assert np.isclose(committed(run).read("theta_norm")[-1, 0], 1e-40 * np.sqrt(35), rtol=1e-3)


def test_buffers_that_never_change_have_one_anchor_and_no_updates(tmp_path: Path, small: None) -> None:
    run = Run(tmp_path / "t.zarr")
    for _ in range(20):
        run.append()
    run.root.append(replace(run.model.rows[-1], step=99, buffer=run.buffer))
    run.writer.commit()
    root = committed(run)
    assert root.arrays()["buffer/anchor"].shape == (1, 3)
    assert "buffer/update" not in root.arrays()
    assert root.buffer(17)["bool"].tolist() == [True, False, True, True]


def test_several_roots_have_their_own_rows(tmp_path: Path) -> None:
    run = Run(tmp_path / "t.zarr")
    tensors = table([("w", (2,), "float32", (), True)])
    critic = run.writer.add_root(
        "critic",
        parameters=tensors,
        buffers=(),
        groups=1,
        theta={"float32": np.zeros(2, np.float32)},
        buffer={},
        time=1.0,
        attributes={},
    )
    run.append()
    run.writer.close("complete")
    trace = open_trace(run.path)
    assert trace.roots == ("model", "critic")
    assert trace.facts["rows"] == {"model": 2, "critic": 1}
    assert trace.root().name == "model"
    assert trace.root("critic").buffer(0) == {}
    assert critic.rows == 1
    assert verify(run.path).ok


@pytest.mark.parametrize("name", ["", "..", "a/b", "__x", "zarr.json", "x" * 201, "analysis", "model"])
def test_a_name_that_cannot_be_used_is_refused(tmp_path: Path, name: str) -> None:
    run = Run(tmp_path / "t.zarr")
    nothing = np.empty(0, np.float32)
    with pytest.raises(RecordError, match=r"root name .* cannot be used in a trace|the name is taken"):
        run.writer.add_root(
            name, parameters=(), buffers=(), groups=0, theta={}, buffer={}, time=0.0, attributes={}
        )
    if name not in ("analysis", "model"):
        with pytest.raises(RecordError, match="probe name"):
            run.root.add_probe(name, inputs=[nothing], target=None, attributes={})


def test_names_with_terminal_escapes_are_only_data(tmp_path: Path) -> None:
    run = Run(tmp_path / "t.zarr")
    name = "\x1b[31mred\x07 é"
    probe = run.root.add_probe(name, inputs=[np.ones((1, 1), np.float32)], target=None, attributes={})
    probe.append(0, *[np.ones((1, 1), np.float32)] * 3)
    run.writer.close("complete")
    assert committed(run).probes == (name,)
    assert committed(run).read(f"probe/{name}/output").tolist() == [[[1.0]]]


def test_rows_that_do_not_fit_are_refused_and_the_trace_goes_on(tmp_path: Path) -> None:
    run = Run(tmp_path / "t.zarr")
    run.append()
    row = run.model.rows[-1]
    theta = dict(row.theta)
    cases = [
        (replace(row, step=1), "step 1 comes after step 1"),
        (replace(row, step=2, theta={"float32": theta["float32"]}), "parameters of types .*expected"),
        (
            replace(row, step=2, theta={**theta, "float32": theta["float32"][:-1]}),
            r"came as float32 of shape \(40,\), expected float32 of shape \(41,\)",
        ),
        (
            replace(row, step=2, theta={**theta, "float64": theta["float64"].astype(np.float32)}),
            "came as float32 of shape .*expected float64",
        ),
        (replace(row, step=2, buffer={"int8": np.zeros(1, np.int8)}), "buffers of types"),
        (
            replace(row, step=2, grad_norm=np.zeros(3, np.float32)),
            r"grad_norm of shape \(3,\) for 4 parameters",
        ),
    ]
    part = row.micro[0]
    assert part.output is not None
    cases += [
        (
            replace(row, step=2, micro=[replace(part, output=part.output.ravel())]),
            r"model: output of shape \(6,\) for a micro-batch of 3 examples",
        ),
        (replace(row, step=2, micro=[replace(part, size=2)]), r"examples of shape \(3,\) .* of 2 examples"),
    ]
    for bad, message in cases:
        with pytest.raises(RecordError, match=message):
            run.root.append(bad)
    run.append()
    run.writer.close("complete")
    check(committed(run), run.model)


def test_an_error_in_the_middle_of_a_row_commits_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "t.zarr")
    run.append()
    run.writer.commit()
    with monkeypatch.context() as patch:
        patch.setattr("tscope_format.batch.BatchWriter.append", lambda self, micro: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run.append()
    run.writer.commit()
    run.append()
    assert run.writer.close("failed")
    trace = open_trace(run.path)
    assert trace.root().rows == 2
    assert trace.facts["reason"].endswith("t.zarr: ZeroDivisionError: division by zero")
    assert verify(run.path).ok


def test_an_element_type_that_cannot_be_held_is_refused_by_name(tmp_path: Path) -> None:
    run = Run(tmp_path / "t.zarr")
    with pytest.raises(
        RecordError, match="the element type 'quint8' cannot be recorded; known types: bfloat16"
    ):
        run.writer.add_root(
            "q",
            parameters=table([("w", (1,), "quint8", (), True)]),
            buffers=(),
            groups=1,
            theta={"quint8": np.zeros(1, np.uint8)},
            buffer={},
            time=0.0,
            attributes={},
        )


def test_complex_parameters_come_back(tmp_path: Path, small: None) -> None:
    trace = TraceWriter.create(tmp_path / "t.zarr", facts={})
    values = np.random.default_rng(0).standard_normal((12, 20)).view(np.complex128)
    root = trace.add_root(
        "model",
        parameters=table([("w", (10,), "complex128", (), True)]),
        buffers=(),
        groups=1,
        theta={"complex128": values[0]},
        buffer={},
        time=0.0,
        attributes={},
    )
    row = replace(
        Run(tmp_path / "other.zarr").model.rows[0], theta={}, grad_norm=np.zeros(1, np.float32), micro=()
    )
    for step in range(1, 12):
        root.append(replace(row, step=step, theta={"complex128": values[step]}))
    trace.close("complete")
    for step in (0, 3, 11):
        assert np.array_equal(open_trace(tmp_path / "t.zarr").root().theta(step)["complex128"], values[step])
    norms = open_trace(tmp_path / "t.zarr").root().read("theta_norm")[:, 0]
    assert np.allclose(norms, np.linalg.norm(values, axis=1))


def test_a_state_that_follows_no_anchor_row_is_refused(tmp_path: Path, small: None) -> None:
    run = Run(tmp_path / "t.zarr")
    for _ in range(ANCHOR_ROWS + 1):
        run.append()
    message = "step 8 has no anchor row: anchors come every 8 rows, and the last row, 9, is step 9"
    with pytest.raises(RecordError, match=message):
        run.root.append_anchor_state(ANCHOR_ROWS, {}, {})


def test_the_states_of_two_optimizers_are_one_array(tmp_path: Path, small: None) -> None:
    run = Run(tmp_path / "t.zarr")
    for _ in range(ANCHOR_ROWS):
        run.append()
    first, second = np.full(41, np.nan, np.float32), np.full(41, np.nan, np.float32)
    first[:20], second[20:] = 1, 2
    half = np.full(6, 0x7FC0, np.uint16)
    other = half.copy()
    half[:3], other[3:] = 0x3F80, 0x4000
    run.root.append_anchor_state(ANCHOR_ROWS, {"m": {"float32": first, "bfloat16": half}}, {"lacking": ["x"]})
    run.root.append_anchor_state(ANCHOR_ROWS, {"m": {"float32": second, "bfloat16": other}}, {})
    run.append()
    run.writer.commit()
    root = committed(run)
    assert np.isnan(root.read("optimizer/m")[0]).all()
    assert root.read("optimizer/m")[1].tolist() == [1] * 20 + [2] * 21
    assert root.read("optimizer_bfloat16/m")[1].tolist() == [0x3F80] * 3 + [0x4000] * 3
    assert root.group_attributes("optimizer") == {"lacking": ["x"]}


@pytest.mark.parametrize(
    ("states", "scalars", "shape"),
    [
        ({"m": {"float32": np.zeros(5, np.float32)}}, {}, r"\(5,\), expected \(41,\)"),
        ({}, {"step": [1]}, r"\(1,\), expected \(4,\)"),
    ],
)
def test_a_state_that_does_not_fit_the_parameters_is_refused(
    tmp_path: Path,
    small: None,
    states: dict[str, dict[str, NDArray]],
    scalars: dict[str, list[int]],
    shape: str,
) -> None:
    run = Run(tmp_path / "t.zarr")
    for _ in range(ANCHOR_ROWS):
        run.append()
    with pytest.raises(RecordError, match=f"model: optimizer state '(m|step)' of shape {shape}"):
        run.root.append_anchor_state(ANCHOR_ROWS, states, {"scalars": scalars})


def test_examples_that_are_not_alike_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    run = Run(tmp_path / "t.zarr")
    run.add_examples()
    hashes = np.zeros((1, 16), np.uint8)
    with pytest.raises(
        RecordError, match="the inputs changed from float32 of 2 dimensions to int64 of 2 dim"
    ):
        run.root.add_examples([np.zeros((1, 3), np.int64)], hashes, 1)
    with pytest.raises(RecordError, match=r"examples with \[2\] input rows and hashes of shape \(1, 16\)"):
        run.root.add_examples([np.zeros((2, 3), np.float32)], hashes, 1)
    run.add_examples(length=9)
    run.writer.close("complete")
    assert verify(run.path).ok
    assert committed(run).arrays()["examples/input/0"].shape == (4, 9)


def test_a_probe_refuses_rows_that_do_not_fit(tmp_path: Path) -> None:
    run = Run(tmp_path / "t.zarr")
    run.project()
    assert run.probe is not None
    good = np.zeros((2, 2), np.float32)
    with pytest.raises(RecordError, match="step 0 comes after step 0; it must increase"):
        run.probe.append(0, good, good, good)
    with pytest.raises(RecordError, match=r"expected \(example, output\) = \(2, 2\) for each"):
        run.probe.append(1, good, good, good[:1])
    with pytest.raises(RecordError, match="there is a probe set 'held out' already"):
        run.root.add_probe("held out", inputs=[], target=None, attributes={})


def test_a_program_comes_back_once(tmp_path: Path) -> None:
    run = Run(tmp_path / "t.zarr")
    constants = {"a.0": np.arange(6.0).reshape(2, 3), "flag": np.array(True), "none": np.zeros((0, 2))}
    run.root.set_program(b'{"nodes": [1]}', constants)
    with pytest.raises(RecordError, match="there is a program already"):
        run.root.set_program(b"{}", {})
    run.writer.close("complete")
    program = committed(run).program()
    assert program is not None
    assert program[0] == {"nodes": [1]}
    assert {name: value.tolist() for name, value in program[1].items()} == {
        name: value.tolist() for name, value in constants.items()
    }
