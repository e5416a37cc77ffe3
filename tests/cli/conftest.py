"""Running `tscope` in this process, and in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest
from cli_runner import Outcome, Runner
from tscope_cli.main import run


@pytest.fixture
def tscope(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Return a function that runs `tscope` with its arguments in this process."""
    monkeypatch.delenv("TSCOPE_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        written = capsys.readouterr()
        return Outcome(code, written.out, written.err)

    return call


@pytest.fixture
def fresh() -> Runner:
    """Return a function that runs Python code in a fresh interpreter."""

    def call(code: str, *arguments: str) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call
