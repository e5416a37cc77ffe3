"""`tscope record` from end to end, with the real observer."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from record_run import await_that
from record_scripts import command, environment, python, record, said, script
from tscope_format import open_trace
from tscope_format.disk import disk_size

from tscope.program import Program
from tscope.record.outcome import size_text


def test_a_run_is_recorded_and_its_output_untouched(tmp_path: Path) -> None:
    script(tmp_path, "train(50); evaluate(); train(10); print('done', len(sys.argv))")
    done = record(tmp_path, "-o", "t.zarr", sys.executable, "train.py", "--lr", "3")
    assert done.returncode == 0
    assert done.stdout == "done 3\n"
    figures, following = said(done)
    assert figures.startswith("tscope: 60 steps, ")
    assert f", {size_text(disk_size(tmp_path / 't.zarr'))}, " in figures
    assert "% of the run" in figures
    # How many depends on how busy the machine is: the end of the run may not be held up.
    assert re.search(r"\d+ rows? projected on heldout|no projections", figures)
    assert figures.endswith("→ t.zarr")
    assert re.fullmatch(r"tscope: next: tscope analyze t.zarr --metric telescoping( --replay)?", following)
    reader = open_trace(tmp_path / "t.zarr")
    assert (reader.status, reader.root().rows) == ("complete", 61)
    assert reader.facts["command"][1:] == ["train.py", "--lr", "3"]


def test_the_default_output_is_named_after_the_script(tmp_path: Path) -> None:
    script(tmp_path, "train(3)")
    record(tmp_path, *python("train.py"))
    (trace,) = (tmp_path / "runs").iterdir()
    assert trace.name.startswith("train-20")
    assert trace.suffix == ".zarr"


def test_training_rows_stand_in_when_nothing_is_evaluated(tmp_path: Path) -> None:
    script(tmp_path, "train(10)")
    record(tmp_path, "-o", "t.zarr", *python("train.py"))
    root = open_trace(tmp_path / "t.zarr").root()
    assert root.probes == ("train",)
    assert root.attributes["probes"]["train"]["in_sample"] is True


def test_a_probe_file_is_followed(tmp_path: Path) -> None:
    script(tmp_path, "train(10)")
    np.savez(tmp_path / "p.npz", x=np.ones((5, 6), np.float32), y=np.ones((5, 1), np.float32))
    record(tmp_path, "-o", "t.zarr", "--probe", "p.npz", *python("train.py"))
    root = open_trace(tmp_path / "t.zarr").root()
    assert root.read("probe/probe/input/0").shape == (5, 6)
    assert root.read("probe/probe/target").shape == (5, 1)


MASKED = """
import torch
torch.manual_seed(0)
class Masked(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 2)
    def forward(self, mask, x, scale, more):
        return (self.layer(x * mask[0]) + more) * scale
net = Masked()
opt = torch.optim.SGD(net.parameters(), lr=0.05)
mask, scale = torch.tensor([[1.0, 0.0, 1.0, 1.0, 0.0, 2.0]] * 3), torch.tensor(0.5)
X, more = torch.randn(64, 6), torch.randn(64, 2)
for step in range(20):
    rows = torch.randint(0, 64, (16,))
    opt.zero_grad()
    net(mask, X[rows], scale, more[rows]).pow(2).mean().backward()
    opt.step()
torch.save(net.state_dict(), "end.pt")
"""


def test_tensors_without_examples_are_no_inputs_of_the_probe_set(tmp_path: Path) -> None:
    script(tmp_path, MASKED, train=False)
    rng = np.random.default_rng(0)
    x, more = rng.normal(size=(5, 6)).astype(np.float32), rng.normal(size=(5, 2)).astype(np.float32)
    np.savez(tmp_path / "p.npz", x0=x, x1=more)
    done = record(tmp_path, "-o", "t.zarr", "--probe", "p.npz", *python("train.py"))
    assert done.returncode == 0, done.stderr
    root = open_trace(tmp_path / "t.zarr").root()
    assert [root.read(f"examples/input/{k}").shape[1:] for k in (0, 1)] == [(6,), (2,)]
    assert (root.read("batch/example")[1:] >= 0).all()
    mask, state = np.array([1, 0, 1, 1, 0, 2], np.float32), torch.load(tmp_path / "end.pt")
    expected = ((x * mask) @ state["layer.weight"].numpy().T + state["layer.bias"].numpy() + more) * 0.5
    recorded = root.program()
    assert recorded is not None
    inputs = [torch.from_numpy(root.read(f"probe/probe/input/{k}")) for k in (0, 1)]
    got = Program.load(*recorded)(state, {}, inputs)
    assert got.numpy() == pytest.approx(expected, abs=1e-5)


def test_no_probe_set_is_followed_if_none_is_wanted(tmp_path: Path) -> None:
    script(tmp_path, "train(10); evaluate(); train(10)")
    done = record(tmp_path, "-o", "t.zarr", "--probe", "none", *python("train.py"))
    figures, following = said(done)
    assert "no projections" in figures
    assert following.endswith("--metric telescoping --probe FILE.npz")
    root = open_trace(tmp_path / "t.zarr").root()
    assert root.rows == 21
    assert root.probes == ()
    assert root.program() is not None


def test_a_probe_function_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    script(tmp_path, "train(10); print('helper' in sys.modules)")
    (tmp_path / "helper.py").write_text(
        "import torch\nprint('hello')\ndef rows():\n    return torch.ones(4, 6), torch.zeros(4)\n"
    )
    done = record(tmp_path, "-o", "t.zarr", "--probe", "helper:rows", *python("train.py"))
    assert done.stdout == "False\n"
    assert "hello" in done.stderr
    root = open_trace(tmp_path / "t.zarr").root()
    assert (root.read("probe/probe/input/0") == 1).all()


WRONG_PROBES = {
    "shape": (np.ones((5, 7), np.float32), "rows of input 0 have shape [7]"),
    "dtype": (np.ones((5, 6)), "input 0 is float64, the model was trained on float32"),
}


@pytest.mark.parametrize(("array", "message"), WRONG_PROBES.values(), ids=WRONG_PROBES.keys())
def test_a_probe_set_of_another_kind_is_reported_and_the_run_recorded(
    tmp_path: Path, array: np.ndarray, message: str
) -> None:
    script(tmp_path, "train(5)")
    np.savez(tmp_path / "p.npz", x=array)
    done = record(tmp_path, "-o", "t.zarr", "--probe", "p.npz", *python("train.py"))
    assert done.returncode == 0
    first, figures, _ = said(done)
    assert message in first
    assert "no projections" in figures
    assert open_trace(tmp_path / "t.zarr").root().rows == 6


NOT_STARTED = {
    "no command": (["-o", "t.zarr", "--"], 125, "no command"),
    "no such command": (["-o", "t.zarr", "--", "no-such-command"], 127, "command not found"),
    "no program": (["-o", "t.zarr", "--", "./train.py"], 126, "cannot be executed"),
    "a script alone": (
        ["-o", "t.zarr", "train.py", "--lr", "0.1"],
        127,
        "command not found; a script needs its interpreter: tscope record -- python train.py --lr 0.1",
    ),
    "an output that exists": (["-o", "train.py", *python("train.py")], 125, "exists already"),
    "no trace to replace": (["-o", "train.py", "--force", *python("train.py")], 125, "is not a trace"),
    "a folder that is a file": (["-o", "train.py/t.zarr", *python("train.py")], 125, "is not a folder"),
    "a place in a trace": (["-o", "old.zarr/t.zarr", *python("train.py")], 125, "inside the trace"),
    "no archive": (["--probe", "train.npz", *python("train.py")], 125, "(it is no zip archive)"),
    "no probe file": (["--probe", "no.npz", *python("train.py")], 125, "does not exist"),
    "wrong keys": (["--probe", "keys.npz", *python("train.py")], 125, "must hold arrays `x`"),
    "lengths": (["--probe", "lengths.npz", *python("train.py")], 125, "same number"),
    "objects": (["--probe", "objects.npz", *python("train.py")], 125, "cannot be read"),
    "NaN": (["--probe", "nan.npz", *python("train.py")], 125, "NaN"),
    "a function that raises": (["--probe", "bad:raises", *python("train.py")], 125, "ValueError: so there"),
    "no such function": (["--probe", "bad:none", *python("train.py")], 125, "AttributeError"),
    "no such module": (["--probe", "worse:none", *python("train.py")], 125, "ModuleNotFoundError"),
    "a function of nothing": (["--probe", "bad:nothing", *python("train.py")], 125, "it gives nothing"),
    "a function of NaN": (["--probe", "bad:nan", *python("train.py")], 125, "holds 1 NaN"),
    "every": (["--every", "0", *python("train.py")], 125, "--every must be at least 1"),
    "outputs": (["--outputs", "much", *python("train.py")], 125, "--outputs must be"),
    "what to follow": (["--probe-output", "best", *python("train.py")], 125, "--probe-output must be"),
}


@pytest.mark.parametrize(("arguments", "code", "message"), NOT_STARTED.values(), ids=NOT_STARTED.keys())
def test_what_cannot_start_says_so_in_one_line(
    tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    script(tmp_path, "print('started')", train=False)
    (tmp_path / "train.npz").write_text("no archive")
    (tmp_path / "old.zarr").mkdir()
    (tmp_path / "old.zarr" / "zarr.json").touch()
    np.savez(tmp_path / "keys.npz", inputs=np.ones(3))
    np.savez(tmp_path / "lengths.npz", x=np.ones((3, 2)), y=np.ones(2))
    np.savez(tmp_path / "objects.npz", x=np.array([None, 1], object))
    np.savez(tmp_path / "nan.npz", x=np.array([[1.0, np.nan]]))
    (tmp_path / "bad.py").write_text(
        "import array\ndef raises():\n    raise ValueError('so there')\ndef nothing():\n    pass\n"
        "def nan():\n    return [1.0, float('nan')]\n"
    )
    before = set(tmp_path.iterdir())
    done = record(tmp_path, *arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert done.stderr.startswith("tscope: ")
    assert {path for path in tmp_path.iterdir() if path.name != "__pycache__"} == before


UNRECORDED = {
    "without torch": ("import sys; sys.exit(4)", [], 4, "torch was never imported"),
    "without training": (
        "import torch; torch.nn.Linear(2, 2)(torch.ones(1, 2))",
        [],
        0,
        "no optimizer made a step",
    ),
    "isolated": ("import torch", ["-I"], 0, "python -I ignores the recorder's bootstrap"),
}


@pytest.mark.parametrize(("body", "options", "code", "message"), UNRECORDED.values(), ids=UNRECORDED.keys())
def test_a_run_that_does_not_train_says_how_far_it_got(
    tmp_path: Path, body: str, options: list[str], code: int, message: str
) -> None:
    script(tmp_path, body, train=False)
    done = record(tmp_path, *python(*options, "train.py"))
    assert done.returncode == code
    assert message in said(done)[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


def test_a_shell_command_without_python_says_so(tmp_path: Path) -> None:
    done = record(tmp_path, "--", "sh", "-c", "exit 7")
    assert done.returncode == 7
    assert "no Python loaded the recorder's bootstrap" in said(done)[-1]


def test_a_failing_script_keeps_its_exit_code_and_its_trace(tmp_path: Path) -> None:
    script(tmp_path, "train(5); sys.exit(3)")
    done = record(tmp_path, "-o", "t.zarr", *python("train.py"))
    assert done.returncode == 3
    assert said(done)[0] == "tscope: the script ended with exit code 3"
    reader = open_trace(tmp_path / "t.zarr")
    assert (reader.status, reader.facts["reason"]) == ("failed", "the script ended with exit code 3")
    assert reader.root().rows == 6


def test_force_replaces_a_trace(tmp_path: Path) -> None:
    script(tmp_path, "train(int(sys.argv[1]))")
    record(tmp_path, "-o", "t.zarr", *python("train.py", "2"))
    again = record(tmp_path, "-o", "t.zarr", *python("train.py", "4"))
    assert again.returncode == 125
    record(tmp_path, "-o", "t.zarr", "--force", *python("train.py", "4"))
    assert open_trace(tmp_path / "t.zarr").root().rows == 5


def test_quiet_says_nothing(tmp_path: Path) -> None:
    script(tmp_path, "train(2)")
    assert record(tmp_path, "-o", "t.zarr", "--quiet", *python("train.py")).stderr == ""


def test_the_session_folder_is_removed(tmp_path: Path) -> None:
    script(tmp_path, "train(2)")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    record(tmp_path, "-o", "t.zarr", *python("train.py"), TMPDIR=str(temporary))
    # torch leaves its own cache there.
    assert [path for path in temporary.iterdir() if path.name.startswith("tscope")] == []


FOREVER = """
import signal, time
def stop(number, frame):
    print('got', signal.Signals(number).name, flush=True)
    raise SystemExit(int(os.environ.get('CODE', '0')))
if 'HANDLE' in os.environ:
    signal.signal(getattr(signal, os.environ['HANDLE']), stop)
train(5)
print('ready', flush=True)
while True:
    train(1)
    time.sleep(0.01)
"""


def running(tmp_path: Path, **extra: str) -> subprocess.Popen[str]:
    """Start recording a script that goes on for ever, and return once it trains."""
    script(tmp_path, FOREVER)
    process = subprocess.Popen(
        command("-o", "t.zarr", *python("train.py")),
        cwd=tmp_path,
        env=environment(**extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    await_that(lambda: committed(tmp_path / "t.zarr") >= 6)
    return process


def committed(trace: Path) -> int:
    """Return the number of rows that a reader sees now."""
    if not trace.exists():
        return 0
    reader = open_trace(trace)
    return reader.root().rows if reader.roots else 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_are_passed_on(tmp_path: Path, number: signal.Signals) -> None:
    process = running(tmp_path)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"tscope: the script was killed by {number.name}" in err
    reader = open_trace(tmp_path / "t.zarr")
    assert (reader.status, reader.facts["reason"]) == (
        "interrupted",
        f"the script was killed by {number.name}",
    )
    assert reader.root().rows >= 6


def test_a_script_that_handles_a_signal_completes(tmp_path: Path) -> None:
    process = running(tmp_path, HANDLE="SIGTERM", CODE="0")
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "got SIGTERM\n")
    assert open_trace(tmp_path / "t.zarr").status == "complete"


def test_ctrl_c_reaches_the_script_only(tmp_path: Path) -> None:
    """In a terminal of its own, as Ctrl-C comes from one."""
    script(tmp_path, FOREVER)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, termios, os, sys; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
            "os.execv(sys.argv[1], sys.argv[1:])",
            *command("-o", "t.zarr", *python("train.py")),
        ],
        cwd=tmp_path,
        env=environment(HANDLE="SIGINT", CODE="5"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    text = b""
    while b"ready" not in text:
        text += os.read(ours, 4096)
    os.write(ours, b"\x03\x03")
    code = process.wait(timeout=60)
    assert code == 5
    reader = open_trace(tmp_path / "t.zarr")
    assert reader.status == "failed"
    assert reader.root().rows >= 6
    os.close(ours)


def test_a_killed_script_leaves_an_interrupted_trace(tmp_path: Path) -> None:
    process = running(tmp_path)
    os.kill(open_trace(tmp_path / "t.zarr").facts["pid"], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGKILL
    assert "killed by SIGKILL" in err
    assert open_trace(tmp_path / "t.zarr").status == "interrupted"
