from __future__ import annotations

import hashlib
import os
import socket
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from record_run import await_that, rows
from tscope_format import RecordError

from tscope.record.backlog import Backlog, State
from tscope.record.child import Child, StartError, exit_code
from tscope.record.examples import UNKNOWN, Examples, row_hashes
from tscope.record.facts import git_commit
from tscope.record.frames import Blob, FrameError, read_frame, write_frame
from tscope.record.inbox import Inbox
from tscope.record.options import RecordOptions, check_out, default_out, parse_outputs
from tscope.record.probe_choice import ProbeChoice
from tscope.record.probe_source import interpreter, is_function
from tscope.record.session import open_session


def blob(array: np.ndarray) -> Blob:
    return Blob(array, str(array.dtype))


# --- frames


def test_a_frame_comes_back_as_it_was_sent() -> None:
    ours, theirs = socket.socketpair()
    arrays = {
        "odd": Blob(np.arange(3, dtype=np.uint8), "uint8"),
        "bits": Blob(np.array([1, 2], np.uint16), "bfloat16"),
        "matrix": blob(np.arange(6.0).reshape(2, 3).T),
        "scalar": blob(np.float32(3).reshape(())),
        "empty": blob(np.zeros((0, 4))),
    }
    with ours, theirs:
        write_frame(theirs, "step", {"loss": float("nan"), "lr": [[0.1]]}, arrays)
        frame = read_frame(ours.recv_into)
        theirs.close()
        assert read_frame(ours.recv_into) is None
    assert frame is not None
    assert (frame.kind, frame.items("lr")) == ("step", [[0.1]])
    for name, sent in arrays.items():
        found = frame.blobs[name]
        assert (found.dtype, found.array.shape) == (sent.dtype, sent.array.shape)
        assert found.array.flags.aligned
        assert (found.array == sent.array).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [({}, "holds nothing"), ({"step": "3"}, "holds '3'"), ({"step": True}, "holds True")],
)
def test_a_field_of_another_type_is_named(fields: dict[str, object], message: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        write_frame(theirs, "step", fields)
        frame = read_frame(ours.recv_into)
    assert frame is not None
    with pytest.raises(FrameError, match=rf"`step` frame must hold an integer as `step`, it {message}"):
        frame.integer("step")


# --- inbox


def test_a_full_inbox_makes_the_sender_wait_and_a_closed_one_lets_it_go() -> None:
    inbox: Inbox[int] = Inbox(limit=10, fewest=1)
    results: list[bool] = []

    def send() -> None:
        results.extend(inbox.put(number, 8) for number in range(3))

    sender = threading.Thread(target=send)
    sender.start()
    await_that(lambda: len(inbox) == 1)
    assert inbox.get(1) == 0
    await_that(lambda: results == [True, True])
    inbox.close()
    sender.join(10)
    assert results == [True, True, False]


# --- examples


def test_a_row_s_identity_is_the_digest_of_its_bytes_input_after_input() -> None:
    first, second = rows(5, 1), np.arange(10).reshape(5, 2)
    expected = [
        hashlib.blake2b(a.tobytes() + b.tobytes(), digest_size=16).digest()
        for a, b in zip(first, second, strict=True)
    ]
    assert row_hashes([first, second]) == expected
    assert row_hashes([first[:, ::2]]) == [
        hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in first[:, ::2]
    ]


def test_a_row_within_one_batch_is_numbered_once() -> None:
    examples = Examples(10)
    batch = np.repeat(rows(2, 1), 2, axis=0)
    numbers, new = examples.identify([blob(batch)], row_hashes([batch]))
    assert numbers.tolist() == [0, 0, 1, 1]
    assert new is not None
    assert len(new.hashes) == 2


def test_rows_of_another_type_have_no_identity() -> None:
    examples = Examples(10)
    examples.identify([blob(rows(2, 1))], row_hashes([rows(2, 1)]))
    other = rows(2, 2).astype(np.float64)
    numbers, new = examples.identify([blob(other)], row_hashes([other]))
    assert numbers.tolist() == [UNKNOWN] * 2
    assert new is None
    assert examples.changed_kind


# --- backlog


def state(step: int, size: int = 10) -> State:
    return State(step, {"float32": np.zeros(size // 4 + 1, np.float32)}, {})


def feed(backlog: Backlog, steps: range) -> None:
    for step in steps:
        if backlog.wants():
            backlog.add(state(step))


def test_a_backlog_without_room_is_thinned_evenly() -> None:
    backlog = Backlog(limit=10 * state(0).size)
    feed(backlog, range(1, 200))
    steps = backlog.steps
    gaps = set(np.diff(steps).tolist())
    assert 4 <= len(steps) <= 10
    assert len(gaps) == 1
    assert steps[-1] >= 199 - gaps.pop()


def test_a_backlog_that_was_emptied_takes_more_again() -> None:
    backlog = Backlog(limit=10 * state(0).size)
    feed(backlog, range(1, 12))
    while len(backlog):
        backlog.pop()
    feed(backlog, range(12, 16))
    assert backlog.steps == [12, 13, 14, 15]


def test_large_states_are_kept_though_they_exceed_the_limit() -> None:
    backlog = Backlog(limit=1)
    feed(backlog, range(1, 5))
    assert len(backlog) == 4


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_thinning_keeps_the_newest(count: int) -> None:
    backlog = Backlog()
    feed(backlog, range(1, 11))
    backlog.thin(count)
    steps = backlog.steps
    assert len(steps) == min(count, 10)
    assert steps[-1] == 10


# --- probe choice


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def evaluate(choice: ProbeChoice, batch: np.ndarray, training: Examples | None = None) -> None:
    choice.evaluated([blob(batch)], row_hashes([batch]), training or Examples(0))


def train(choice: ProbeChoice, batch: np.ndarray) -> None:
    choice.trained([blob(batch)], row_hashes([batch]))


def test_rows_that_were_trained_on_are_not_held_out() -> None:
    choice, seen = ProbeChoice(clock=Clock()), Examples(100)
    seen.identify([blob(rows(8, 1))], row_hashes([rows(8, 1)]))
    train(choice, rows(8, 1))
    evaluate(choice, np.concatenate([rows(8, 1), rows(80, 2)]), seen)
    train(choice, rows(8, 1))
    found = choice.decide()
    assert found is not None
    assert (found.name, found.examples) == ("heldout", 80)
    assert choice.decide(ended=True) is None


def test_rows_evaluated_before_training_must_stay_out_of_it_for_a_while() -> None:
    clock = Clock()
    choice = ProbeChoice(clock=clock)
    evaluate(choice, rows(256, 1))
    train(choice, rows(256, 1)[:100])
    assert choice.decide() is None
    clock.now = 6.0
    found = choice.decide()
    assert found is not None
    assert (found.name, found.examples) == ("heldout", 156)


def test_few_held_out_rows_are_taken_at_the_end() -> None:
    choice = ProbeChoice(clock=Clock())
    train(choice, rows(8, 1))
    evaluate(choice, rows(3, 2))
    train(choice, rows(8, 1))
    assert choice.decide() is None
    found = choice.decide(ended=True)
    assert found is not None
    assert (found.name, found.examples) == ("heldout", 3)


def test_rows_with_other_inputs_than_those_of_training_are_not_taken() -> None:
    labelled = [blob(rows(8, 1)), blob(np.arange(8))]
    choice = ProbeChoice(clock=Clock())
    evaluate(choice, rows(100, 2))  # before training: what it takes is not known yet
    choice.trained(labelled, row_hashes([part.array for part in labelled]))
    evaluate(choice, rows(100, 3))
    assert choice.unlike
    found = choice.decide(ended=True)
    assert found is not None
    assert (found.name, len(found.inputs)) == ("train", 2)


def test_training_rows_are_taken_after_a_while_and_replaced_later() -> None:
    clock = Clock()
    choice = ProbeChoice(clock=clock)
    train(choice, rows(8, 1))
    assert choice.decide() is None
    clock.now = 5.0
    found = choice.decide()
    assert found is not None
    assert (found.name, found.attributes["in_sample"]) == ("train", True)
    evaluate(choice, rows(256, 2))
    later = choice.decide()
    assert later is not None
    assert later.name == "heldout"
    assert choice.settled


# --- options


@pytest.mark.parametrize(
    ("text", "expected"), [("none", 0), ("all", -1), ("1000", 1000), ("4k", 4096), ("1M", 1 << 20)]
)
def test_sizes_are_understood(text: str, expected: int) -> None:
    assert parse_outputs(text) == expected


@pytest.mark.parametrize("text", ["", "-1", "1.5M", "4T"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(RecordError, match="--outputs must be none, all or a number of bytes"):
        parse_outputs(text)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["python", "train.py", "--lr", "1"], "train"),
        (["python", "-m", "package.fit"], "fit"),
        (["bash", "-c", "exit"], "bash"),
        (["./run me.sh"], "run_me"),
    ],
)
def test_the_default_output_is_called_after_the_script(command: list[str], name: str) -> None:
    assert default_out(command, 0.0).name.startswith(f"{name}-19")


def test_an_output_that_exists_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="exists already; give another -o, or --force"):
        check_out(tmp_path, force=False)
    with pytest.raises(RecordError, match="is not a trace, so --force does not replace it"):
        check_out(tmp_path, force=True)


def test_a_folder_that_cannot_be_written_is_refused() -> None:
    # Not even root can make a folder there.
    with pytest.raises(RecordError, match=r"cannot be written: .* in /proc"):
        check_out(Path("/proc/t.zarr"), force=False)


# --- session, command, facts


def test_the_session_is_private_and_has_a_short_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with open_session(RecordOptions(every=3)) as session:
        assert session.folder.stat().st_mode & 0o777 == 0o700
        assert len(session.environment["TSCOPE_SOCKET"]) < 100
        assert '"every": 3' in session.environment["TSCOPE_OPTIONS"]
        assert not session.said_hello
    assert not session.folder.exists()
    assert list(deep.iterdir()) == []


def test_the_command_inherits_open_files(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    child = Child()
    child.start([sys.executable, "-c", f"import os; os.write({writer}, b'here')"], os.environ)
    os.close(writer)
    assert child.wait() == 0
    assert os.read(reader, 100) == b"here"
    os.close(reader)


def test_a_signal_that_comes_too_early_is_passed_on_later() -> None:
    child = Child()
    child.forward(15)
    child.start(["sleep", "60"], os.environ)
    assert exit_code(child.wait()) == 143


@pytest.mark.parametrize(("name", "code"), [("no/such/command", 127), ("/", 126)])
def test_a_command_that_cannot_be_started_gives_the_code_of_env(name: str, code: int) -> None:
    with pytest.raises(StartError) as error:
        Child().start([name], os.environ)
    assert error.value.exit_code == code


def test_the_interpreter_of_a_command_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = tmp_path / "launch"
    launcher.write_text("#!/opt/python3.12\n")
    launcher.chmod(0o755)
    assert interpreter([str(launcher)]) == "/opt/python3.12"
    assert interpreter(["/somewhere/bin/python3.9", "x.py"]) == "/somewhere/bin/python3.9"
    assert is_function("package.module:function")
    assert not is_function("file.npz")


def test_a_folder_without_a_repository_has_no_commit(tmp_path: Path) -> None:
    assert git_commit(str(tmp_path)) is None
