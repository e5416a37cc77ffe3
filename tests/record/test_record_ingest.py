from __future__ import annotations

import socket
import struct
from collections.abc import Callable

import numpy as np
import pytest
from record_run import FEATURES, OUTPUTS, Run, await_that, rows
from tscope_format import open_trace

from tscope.record.frames import MAGIC, PREFIX, write_frame
from tscope.record.outcome import lines

Recording = Callable[..., Run]


def trained(run: Run, steps: int = 5) -> None:
    script = run.script()
    script.root()
    script.optimizer(momentum=0.9)
    for step in range(steps):
        script.step(rows(8, step % 3))
    script.no_program()
    script.send("bye", {"roots": {}, "hook_ns": 5_000_000, "wait_ns": 1_000_000, "calls": 1})
    script.leave()


def committed(run: Run) -> int:
    """Return the number of rows that a reader sees now."""
    if not run.out.exists():
        return 0
    reader = open_trace(run.out)
    return reader.root().rows if reader.roots else 0


def test_rows_are_bit_exact_and_the_status_is_set(recording: Recording) -> None:
    run = recording()
    script = run.script()
    script.root()
    for _ in range(300):
        script.step()
    script.no_program()
    script.leave()
    outcome = run.finish("failed", "the script ended with exit code 3")
    assert (outcome.path, outcome.steps, outcome.failure) == (run.out, 300, None)
    reader = open_trace(run.out)
    assert (reader.status, reader.facts["reason"]) == ("failed", "the script ended with exit code 3")
    root = reader.root()
    assert root.rows == 301
    for row in (0, 1, 255, 256, 257, 300):
        assert root.theta(row)["float32"].tobytes() == script.states[row].tobytes()


def test_a_process_that_leaves_without_a_word_may_have_taken_steps_with_it(recording: Recording) -> None:
    run = recording()
    script = run.script()
    script.root()
    script.step()
    script.leave()
    outcome = run.finish("complete")
    assert "the last steps may be missing" in lines(outcome, ["python"], 0)[0]
    reader = open_trace(run.out)
    assert reader.status == "interrupted"
    assert "os._exit or exec" in str(reader.facts["reason"])


def test_facts_say_what_was_run(recording: Recording) -> None:
    run = recording(name="first")
    trained(run)
    run.finish()
    facts = open_trace(run.out).facts
    assert facts["command"] == ["python", "train.py", "\x1b[31m"]
    assert (facts["name"], facts["python"], facts["torch"]) == ("first", "3", "2")
    assert facts["recorder"]["hook_seconds"] == pytest.approx(5e-3)
    assert facts["recorder"]["wait_seconds"] == pytest.approx(1e-3)


def test_a_live_reader_sees_rows_while_the_run_goes_on(recording: Recording) -> None:
    run = recording()
    script = run.script()
    script.root()
    for _ in range(3):
        script.step()
    await_that(lambda: committed(run) == 4)
    assert open_trace(run.out).status == "recording"


def test_repeated_rows_are_stored_once(recording: Recording) -> None:
    run = recording()
    trained(run, steps=6)
    run.finish()
    root = open_trace(run.out).root()
    assert root.read("examples/input/0").shape == (24, FEATURES)
    assert root.read("examples/first_step").tolist() == [1] * 8 + [2] * 8 + [3] * 8
    example = root.read("batch/example")
    assert example[1].tolist() == list(range(8))
    assert example[4].tolist() == list(range(8))
    assert (root.read("examples/input/0")[example[2]] == rows(8, 1)).all()


def test_rows_beyond_the_limit_have_no_identity_and_it_is_said_once(recording: Recording) -> None:
    run = recording(max_examples=10)
    trained(run)
    run.finish()
    root = open_trace(run.out).root()
    assert root.read("batch/example")[2].tolist() == [8, 9] + [-1] * 6
    assert len([text for text in run.said if "different training rows" in text]) == 1


def test_a_model_that_never_steps_leaves_no_trace(recording: Recording) -> None:
    run = recording()
    script = run.script()
    script.root()
    script.leave()
    outcome = run.finish()
    assert outcome.path is None
    assert outcome.hello
    assert outcome.torch
    assert not run.out.exists()


def test_hyper_parameters_and_their_changes_are_kept(recording: Recording) -> None:
    run = recording()
    script = run.script()
    script.root()
    script.optimizer(momentum=0.9, eps=float("inf"))
    script.step()
    script.optimizer(momentum=0.5, eps=float("inf"))
    script.step()
    script.no_program()
    script.leave()
    run.finish()
    attributes = open_trace(run.out).root().attributes
    assert attributes["optimizers"][0]["groups"][0]["hyper"] == {"lr": 0.1, "momentum": 0.9, "eps": "inf"}
    assert attributes["optimizer_changes"] == [
        {"optimizer": 0, "step": 1, "groups": [{"group": 0, "hyper": {"momentum": 0.5}}]}
    ]


GARBAGE = {
    "no frame at all": b"GET / HTTP/1.1\r\n\r\n",
    "a truncated prefix": MAGIC,
    "a header that is no JSON": PREFIX.pack(MAGIC, 4, 0) + b"{{{{",
    "a header that is no object": PREFIX.pack(MAGIC, 2, 0) + b"[]",
    "a truncated header": PREFIX.pack(MAGIC, 400, 0) + b"{}",
    "an enormous header": PREFIX.pack(MAGIC, 0xFFFFFFFF, 0),
    "an enormous payload": PREFIX.pack(MAGIC, 60, 1 << 62)
    + b'{"type":"step","blobs":[["theta:float32","float32",['
    + b"1" * 5
    + b"]]]}",
    "an unknown type": PREFIX.pack(MAGIC, 14, 0) + b'{"type":"odd"}',
    "an unknown root": PREFIX.pack(MAGIC, 24, 0) + b'{"type":"step","root":7}',
    "an unknown dtype": PREFIX.pack(MAGIC, 39, 1) + b'{"type":"a","blobs":[["b","quad",[ 1]]]}'[:39],
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_reported_and_ends_only_its_connection(recording: Recording, garbage: bytes) -> None:
    run = recording()
    bad, good = run.script(), run.script()
    good.root()
    good.step()
    bad.connection.sendall(garbage)
    bad.leave()
    await_that(lambda: run.said)
    good.step()
    good.no_program()
    good.leave()
    outcome = run.finish()
    assert outcome.steps == 2
    assert outcome.failure is None
    assert len(run.said) == 2  # the garbage, and the model that could not be exported
    assert "failed, the run goes on" in run.said[0]
    assert "\n" not in run.said[0]
    assert len(open_trace(run.out).facts["reports"]) == 1


def test_a_frame_cut_off_by_death_leaves_the_rows_before_it(recording: Recording) -> None:
    run = recording()
    script = run.script()
    script.root()
    script.step()
    script.connection.sendall(struct.pack("<4sIQ", MAGIC, 1000, 1000) + b"{")
    script.leave()
    assert run.finish("interrupted", "killed").steps == 1
    assert open_trace(run.out).root().rows == 2


def test_a_row_that_does_not_fit_the_model_is_reported(recording: Recording) -> None:
    run = recording()
    script = run.script()
    script.root()
    script.step()
    script.theta = np.zeros(3, np.float32)
    script.step()
    script.leave()
    outcome = run.finish()
    assert outcome.steps == 1
    assert outcome.failure is None
    assert len(run.said) == 1


def test_reports_of_the_hooks_are_kept_and_said_once(recording: Recording) -> None:
    run = recording()
    script = run.script()
    script.root()
    script.step()
    for _ in range(2):
        fields = {"where": "step hook", "error": "ValueError: \x1b[31mno", "pid": 1}
        script.send("report", fields)
    script.no_program()
    script.leave()
    run.finish()
    reports = open_trace(run.out).facts["reports"]
    assert [report["where"] for report in reports] == ["step hook"] * 2
    said = [text for text in run.said if "step hook" in text]
    assert said == ["the recorder's step hook failed, the run goes on without it: ValueError: no"]


def test_only_the_first_rank_is_recorded(recording: Recording) -> None:
    run = recording()
    first, second = run.script(rank="0", pid=10), run.script(rank="1", pid=11)
    for script in (first, second):
        script.root()
        script.step()
    # The copies that export have connections of their own, and are told by the process that they are of.
    await_that(lambda: committed(run) == 2 and any("rank 0" in text for text in run.said))
    for process in (11, 10, 11):
        with socket.socket(socket.AF_UNIX) as copy:
            copy.connect(str(run.address))
            fields = {"root": 0, "pid": process, "ok": False, "reason": f"of process {process}"}
            write_frame(copy, "program", fields)
    first.leave()
    second.leave()
    run.finish()
    trace = open_trace(run.out)
    assert trace.roots == ("model",)
    assert trace.root().attributes["program"]["reason"] == "of process 10"
    assert [text for text in run.said if "failed" in text] == []
    assert len([text for text in run.said if "rank 0" in text]) == 1


def test_several_models_have_groups_of_their_own(recording: Recording) -> None:
    run = recording()
    script = run.script()
    script.root(0, "Generator")
    script.root(1, "Discriminator")
    script.step()
    script.step_number = 0
    script.step(root=1)
    for number in (0, 1):
        script.send("program", {"root": number, "ok": False, "reason": "none"})
    script.leave()
    run.finish()
    assert set(open_trace(run.out).roots) == {"model", "discriminator"}


def test_a_full_disk_ends_the_recording_and_not_the_run(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = recording()
    script = run.script()
    script.root()
    script.step()
    await_that(lambda: committed(run) == 2)

    from tscope_format.disk import Disk

    def full(self: Disk, path: str, parts: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Disk, "_fill", full)
        script.step()
        await_that(lambda: run.said)
    assert len(run.said) == 1
    assert "no space left on device" in run.said[0]
    with pytest.raises(OSError):  # noqa: PT012 - the connection ends some time after the failure
        while True:
            script.step()
    outcome = run.finish("complete")
    assert outcome.path == run.out
    assert outcome.failure is not None
    assert "no space left" in outcome.failure
    assert open_trace(run.out).root().rows == 2
    assert (outcome.steps, outcome.rows) == (1, 1)  # what is on the disk, not what came


def test_a_recorder_that_cannot_even_begin_lets_go_of_the_run(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **options: object) -> None:
        raise ImportError("no codecs here")

    monkeypatch.setattr("tscope.record.trace.Recording", broken)
    run = recording()
    outcome = run.finish()
    assert outcome.failure == "unexpected ImportError: no codecs here"
    with socket.socket(socket.AF_UNIX) as connection, pytest.raises(ConnectionError):
        connection.connect(str(run.address))


def test_outputs_of_micro_batches_are_kept(recording: Recording) -> None:
    run = recording()
    script = run.script()
    script.root()
    output = np.arange(4 * OUTPUTS, dtype=np.float32).reshape(4, OUTPUTS)
    micro = [{"size": 4, "scale": 1.0, "inputs": False}, {"size": 2, "scale": 8.0, "inputs": False}]
    theta = script.theta + 1
    fields = {
        "root": 0,
        "step": 1,
        "time": 1.0,
        "loss": None,
        "lr": [],
        "hook_ns": 0,
        "wait_ns": 0,
        "micro": micro,
    }
    script.send("step", fields, {"theta:float32": theta, "output:0": output})
    script.no_program()
    script.leave()
    run.finish()
    root = open_trace(run.out).root()
    assert root.read("batch/size")[1].tolist() == [4, 2]
    assert root.read("batch/scale")[1].tolist() == [1.0, 8.0]
    assert (root.read("batch/output")[1][:4] == output).all()
    assert np.isnan(root.read("loss")[1])


def test_a_projecting_process_that_cannot_start_is_said(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    run = recording()
    trained(run)
    await_that(lambda: run.said)
    assert run.finish().steps == 5
    assert any("could not be started: No such file" in text for text in run.said)
