"""The observer gets into every Python process of the command, and out of the way of all else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_parent import FakeParent, Run, run
from tscope_format.errors import RecordError

from tscope.record.observer_files import install

TRAIN = """
import torch
net = torch.nn.Linear(3, 2)
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for _ in range(3):
    opt.zero_grad(); net(torch.randn(4, 3)).sum().backward(); opt.step()
print("trained")
"""
PLAIN: dict[str, Any] = {"export": False, "options": {"export": "process"}}


@pytest.fixture
def train(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(TRAIN)
    return tmp_path / "train.py"


def assert_recorded(done: Run) -> None:
    assert done.code == 0, done.stderr
    assert done.stdout == "trained\n"
    assert len(done.steps) == 3
    assert done.marks == {"hello", "torch"}
    assert len(done.of("hello")) == 1


def test_scripts_modules_and_commands_are_recorded(tmp_path: Path, train: Path) -> None:
    assert_recorded(run([sys.executable, train], **PLAIN))
    assert_recorded(run([sys.executable, "-m", "train"], **PLAIN, cwd=tmp_path))
    assert_recorded(run([sys.executable, "-c", TRAIN], **PLAIN))


def test_launchers_are_transparent(tmp_path: Path, train: Path) -> None:
    shell = tmp_path / "run.sh"
    shell.write_text(f"set -e\ncd {tmp_path}\n{sys.executable} launch.py\n")
    (tmp_path / "launch.py").write_text(
        "import subprocess, sys, torch\nsubprocess.run([sys.executable, 'train.py'], check=True)\n"
    )
    assert_recorded(run(["bash", shell], **PLAIN))


def test_isolated_interpreters_leave_no_mark(train: Path) -> None:
    done = run([sys.executable, "-I", train])
    assert (done.code, done.stdout) == (0, "trained\n")
    assert done.marks == set()
    assert done.frames == []


def test_scripts_without_torch_or_training_say_how_far_they_got(tmp_path: Path) -> None:
    done = run([sys.executable, "-c", "print('hi')"])
    assert (done.stdout, done.stderr, done.marks, done.frames) == ("hi\n", "", {"hello"}, [])
    done = run([sys.executable, "-c", "import torch; torch.nn.Linear(2, 2)(torch.ones(1, 2))"])
    assert (done.stderr, done.marks, done.frames) == ("", {"hello", "torch"}, [])


def test_another_sitecustomize_and_pythonpath_keep_working(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('site', __name__)\n")
    (tmp_path / "mine.py").write_text("x = 1\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = (
        "import sys, mine, sitecustomize as s; print(s.__file__, [p for p in sys.path if 'bootstrap' in p])"
    )
    done = run([sys.executable, "-c", code])
    assert done.stdout == f"site sitecustomize\n{tmp_path / 'sitecustomize.py'} []\n"
    assert done.marks == {"hello"}


def test_asking_for_torch_does_not_disarm_the_bootstrap() -> None:
    done = run(
        [sys.executable, "-c", "import importlib.util as u; assert u.find_spec('torch')\n" + TRAIN],
        **PLAIN,
    )
    assert_recorded(done)


def test_a_broken_observer_is_said_and_harmless(train: Path) -> None:
    with FakeParent() as parent:
        package = Path(parent.environment["PYTHONPATH"].split(os.pathsep)[0]) / "_tscope_observer"
        (package / "hooks.py").write_text("raise RuntimeError('broken')\n")
        done = subprocess.run(
            [sys.executable, train], env=parent.environment, capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stdout) == (0, "trained\n")
    assert done.stderr == (
        "tscope: the observer could not start, the run is not recorded (RuntimeError: broken)\n"
    )


@pytest.mark.parametrize("method", ["fork", "spawn", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_data_loader_workers_do_not_record(tmp_path: Path, method: str) -> None:
    script = tmp_path / "loader.py"
    script.write_text(
        f"""
import torch
from torch.utils.data import DataLoader, TensorDataset
if __name__ == "__main__":
    net = torch.nn.Linear(3, 2)
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    data = DataLoader(TensorDataset(torch.randn(24, 3)), batch_size=8, num_workers=2,
                      multiprocessing_context="{method}")
    for epoch in range(2):
        for (x,) in data:
            opt.zero_grad(); net(x).sum().backward(); opt.step()
    print("trained")
"""
    )
    done = run([sys.executable, script], **PLAIN)
    assert done.code == 0, done.stderr
    assert len(done.of("hello")) == 1
    assert [step["step"] for step in done.steps] == [1, 2, 3, 4, 5, 6]


def test_a_child_forked_before_any_training_may_train(tmp_path: Path) -> None:
    script = tmp_path / "fork.py"
    script.write_text(
        "import multiprocessing as mp\nimport torch\ndef train():" + TRAIN.replace("\n", "\n    ")
    )
    with script.open("a") as file:
        file.write("\np = mp.get_context('fork').Process(target=train)\np.start(); p.join()\n")
    done = run([sys.executable, script], **PLAIN)
    assert len(done.steps) == 3
    assert len(done.of("hello")) == 1


def test_sigterm_keeps_its_default_action(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(TRAIN + "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    done = run([sys.executable, script], **PLAIN)
    assert done.code == -15


def test_exit_codes_are_the_scripts(tmp_path: Path) -> None:
    script = tmp_path / "fails.py"
    script.write_text(TRAIN + "raise SystemExit(3)\n")
    done = run([sys.executable, script], **PLAIN)
    assert done.code == 3
    assert len(done.steps) == 3
    assert len(done.of("bye")) == 1


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=r"observer could not be copied into .*file/b: Not a directory"):
        install(tmp_path / "file" / "b")


def test_the_bootstrap_costs_little_without_torch() -> None:
    # Bytes and imports, not seconds: a loaded machine must not fail this.
    with FakeParent() as parent:
        code = "import sys; print(sorted(m for m in sys.modules))"
        bare, mine = (
            subprocess.run(
                [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
            ).stdout
            for env in (os.environ.copy(), parent.environment)
        )
    extra = {name.strip("' ") for name in mine.strip("[]\n").split(",")} - {
        name.strip("' ") for name in bare.strip("[]\n").split(",")
    }
    assert extra <= {"__future__", "sitecustomize"}
