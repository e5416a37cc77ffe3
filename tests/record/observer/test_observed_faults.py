"""An exception in the observer, and the recorder's death, change nothing in the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fake_parent import Run, python
from observed_scripts import PRELUDE, write
from test_observed_identity import assert_same, bare

INJECT = """
import os
if os.environ.get("FAULT") and "_tscope_observer" in sys.modules:
    import importlib
    place, kind = os.environ["FAULT"].split(" ") if " " in os.environ["FAULT"] else (os.environ["FAULT"], "")
    module, owner, method = place.split(".")
    owner = getattr(importlib.import_module("_tscope_observer." + module), owner)
    original = getattr(owner, method)
    def broken(self, *args, **kwargs):
        if not kind or kind == self.kind:
            raise ZeroDivisionError("injected into " + method)
        return original(self, *args, **kwargs)
    setattr(owner, method, broken)
"""

HOOKS = {
    "forward": "forwards.Forwards.before_forward",
    "forward output": "forwards.Forwards.after_forward",
    "backward": "backwards.Backwards.after_backward",
    "output gradient": "backwards.Backwards.arrived",
    "optimizer step begin": "steps.Steps.enter_step",
    "optimizer step end": "steps.Steps.leave_step",
    "export": "exporter.Exporter.begin",
    "exit": "recorder.Recorder.finish",
}
BUILDERS = {
    "root": "root.Root.announcement",
    "optimizer": "driver.Driver.announcement",
    "step": "rows.Row.build",
    "state": "driver.Driver.state",
    "eval": "rows.Rows.evaluations",
}
FRAMES = ["hello", "root", "optimizer", "step", "state", "eval", "bye"]
OPTIONS = {"anchor": 4, "export": "process"}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("bare")
    done = bare(write(folder, "dropout_scheduler"), str(folder / "out.pt"))
    assert done.returncode == 0, done.stderr
    return done.stdout, folder / "out.pt"


def faulty(tmp_path: Path, reference: tuple[str, Path], fault: str, **options: object) -> Run:
    done = python(
        write(tmp_path, "dropout_scheduler", INJECT),
        str(tmp_path / "out.pt"),
        options={**OPTIONS, **options},
        environment={"FAULT": fault},
        export=False,
    )
    assert (done.code, done.stdout) == (0, reference[0]), done.stderr
    expected, got = (torch.load(p, weights_only=False) for p in (reference[1], tmp_path / "out.pt"))
    assert_same(expected, got)
    return done


@pytest.mark.parametrize("where", list(HOOKS))
def test_a_hook_that_fails_is_reported_once_and_left_alone(
    tmp_path: Path, reference: tuple[str, Path], where: str
) -> None:
    done = faulty(tmp_path, reference, HOOKS[where])
    reports = [(r["where"], r["error"].split(" ")[0]) for r in done.of("report")]
    assert reports == [(where, "ZeroDivisionError:")]
    # Without the beginning of steps updates are still seen, by comparing memory; without their end none is.
    assert len(done.steps) == (0 if where == "optimizer step end" else 18)
    assert done.stderr == ""


def test_a_failing_zero_grad_hook_is_reported_once(tmp_path: Path) -> None:
    # It only has something to do after a backward: in a closure that is evaluated again.
    alone = bare(write(tmp_path, "lbfgs"), str(tmp_path / "bare.pt"))
    done = python(
        write(tmp_path, "lbfgs", INJECT),
        str(tmp_path / "out.pt"),
        options=OPTIONS,
        environment={"FAULT": "backwards.Backwards.zeroed"},
        export=False,
    )
    assert (done.code, done.stdout) == (0, alone.stdout)
    states = [torch.load(tmp_path / name, weights_only=False) for name in ("bare.pt", "out.pt")]
    assert_same(states[0], states[1])
    assert [report["where"] for report in done.of("report")] == ["zero_grad"]
    assert len(done.steps) == 6


@pytest.mark.parametrize("kind", list(BUILDERS))
def test_a_frame_that_cannot_be_built_is_reported_once(
    tmp_path: Path, reference: tuple[str, Path], kind: str
) -> None:
    done = faulty(tmp_path, reference, BUILDERS[kind])
    assert len(done.of("report")) == 1
    assert done.stderr == ""
    assert len(done.steps) == (18 if kind in ("state", "eval") else 0)  # the rows do not depend on those


@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_that_cannot_be_encoded_is_reported_once(
    tmp_path: Path, reference: tuple[str, Path], kind: str
) -> None:
    done = faulty(tmp_path, reference, "wire.Frame.pieces " + kind)
    if kind == "bye":  # too late to be told
        return
    assert [report["where"] for report in done.of("report")] == ["frame " + kind]


@pytest.mark.parametrize("where", ["GradScaler.scale", "GradScaler.step"])
def test_a_failing_scaler_hook_is_reported_once(tmp_path: Path, where: str) -> None:
    place = {"GradScaler.scale": "backwards.Backwards.scaled", "GradScaler.step": "steps.Steps.count_steps"}
    alone = bare(write(tmp_path, "scaler"), str(tmp_path / "bare.pt"))
    done = python(
        write(tmp_path, "scaler", INJECT),
        str(tmp_path / "out.pt"),
        options=OPTIONS,
        environment={"FAULT": place[where]},
        export=False,
    )
    assert (done.code, done.stdout) == (0, alone.stdout)
    states = [torch.load(tmp_path / name, weights_only=False) for name in ("bare.pt", "out.pt")]
    assert_same(states[0], states[1])
    assert [report["where"] for report in done.of("report")] == [where]
    assert done.stderr == alone.stderr


@pytest.mark.parametrize("steps", [1, 7])
def test_a_run_whose_recorder_dies_goes_on_to_the_same_end(
    tmp_path: Path, reference: tuple[str, Path], steps: int
) -> None:
    done = python(
        write(tmp_path, "dropout_scheduler"),
        str(tmp_path / "out.pt"),
        options={"queue_bytes": 4096},  # so that steps are waiting when it dies
        stop_after=steps,
        export=False,
    )
    assert (done.code, done.stdout) == (0, reference[0]), done.stderr
    expected, got = (torch.load(p, weights_only=False) for p in (reference[1], tmp_path / "out.pt"))
    assert_same(expected, got)
    assert done.stderr.count("\n") <= 1  # one line, if a step came after the death


DAEMON = """
import os
net = mlp()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for number, (x, y) in enumerate(batches(epochs=4)):
    opt.zero_grad()
    F.cross_entropy(net(x), y).backward()
    opt.step()
    if number == 3:
        # A daemon: what it opens then gets the numbers of the recorder's connection and pipes.
        os.closerange(3, 64)
        read, write = zip(*[os.pipe() for _ in range(20)])
        for end in write:
            os.write(end, b"mine")
assert [os.read(end, 9) for end in read] == [b"mine"] * 20
for end in read + write:
    os.close(end)
save(net)
"""


def test_a_script_that_closes_all_files_keeps_the_ones_it_opens_then(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(PRELUDE + DAEMON)
    expected = bare(path, str(tmp_path / "bare.pt"))
    done = python(path, str(tmp_path / "out.pt"))
    assert (done.code, done.stdout) == (expected.returncode, expected.stdout) != (1, ""), done.stderr
    states = [torch.load(tmp_path / name, weights_only=False) for name in ("bare.pt", "out.pt")]
    assert_same(states[0], states[1])
    assert len(done.steps) <= 4
    closed = "tscope: the recorder: the script closed the connection to it, and recording ends here"
    assert done.stderr == f"{closed}; the run goes on\n"


def test_a_run_without_a_recorder_says_so_and_goes_on(tmp_path: Path, reference: tuple[str, Path]) -> None:
    done = python(
        write(tmp_path, "dropout_scheduler"),
        str(tmp_path / "out.pt"),
        environment={"TSCOPE_SOCKET": str(tmp_path / "nobody")},
        export=False,
    )
    assert (done.code, done.stdout) == (0, reference[0])
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["tscope"]
    assert "FileNotFoundError" in done.stderr


def test_an_exception_of_the_scripts_signal_handler_is_not_swallowed(tmp_path: Path) -> None:
    script = tmp_path / "interrupted.py"
    script.write_text(
        """
import signal, sys, torch
from _tscope_observer import forwards
class Interrupted(Exception): pass
def handler(*_): raise Interrupted()
signal.signal(signal.SIGUSR1, handler)
forwards.Forwards.before_forward = lambda *_: signal.raise_signal(signal.SIGUSR1)
try:
    torch.nn.Linear(2, 2)(torch.ones(1, 2))
except Interrupted:
    print("handled")
"""
    )
    done = python(script)
    assert (done.code, done.stdout) == (0, "handled\n")
    assert done.stderr == ""
