"""Errors become one line and an exit code; nothing else is printed."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
from cli_runner import Runner
from tscope_cli import commands
from tscope_cli.main import take_debug
from tscope_format import MissingDataError, RecordError, TraceError, UsageError


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Make `tscope ls` raise `broken.error`."""
    state = SimpleNamespace(error=ValueError("no"))

    def ls() -> None:
        raise state.error

    module = SimpleNamespace(ls=ls)
    monkeypatch.setitem(sys.modules, "tscope_cli.broken", module)
    monkeypatch.setitem(commands.COMMANDS, "ls", commands.Command("broken", "ls", "fails"))
    return state


@pytest.mark.parametrize(
    ("error", "code"), [(UsageError, 2), (TraceError, 3), (MissingDataError, 4), (RecordError, 125)]
)
def test_an_error_of_ours_is_one_line_with_its_exit_code(
    tscope: Runner, broken: SimpleNamespace, error: type[Exception], code: int
) -> None:
    broken.error = error("what happened: got 1, expected 2")
    outcome = tscope("ls")
    assert (outcome.code, outcome.out, outcome.err) == (
        code,
        "",
        "tscope: what happened: got 1, expected 2\n",
    )


def test_an_unexpected_error_is_one_line_that_names_its_type(tscope: Runner, broken: SimpleNamespace) -> None:
    broken.error = KeyError("theta\x1b[2J\nsecond line")
    outcome = tscope("ls")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("tscope: unexpected KeyError: ")
    assert outcome.err.endswith("; run with --debug for the traceback\n")
    assert "\x1b" not in outcome.err


@pytest.mark.parametrize("arguments", [("--debug", "ls"), ("ls", "--debug")])
def test_debug_anywhere_shows_the_traceback(
    tscope: Runner, broken: SimpleNamespace, arguments: tuple[str, ...]
) -> None:
    outcome = tscope(*arguments)
    assert outcome.code == 1
    assert outcome.err.startswith("Traceback (most recent call last)")
    assert outcome.err.splitlines()[-1].startswith("tscope: unexpected ValueError: no")


def test_the_environment_can_ask_for_tracebacks(
    tscope: Runner, broken: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSCOPE_DEBUG", "1")
    assert tscope("ls").err.startswith("Traceback")


def test_debug_after_two_dashes_belongs_to_the_recorded_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TSCOPE_DEBUG", raising=False)
    words = ["record", "--", "python", "train.py", "--debug"]
    assert take_debug(words) == (words, False)
    assert take_debug(["record", "--debug", *words[1:]]) == (words, True)


def test_debug_of_a_command_without_two_dashes_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TSCOPE_DEBUG", raising=False)
    words = ["record", "python", "train.py", "--debug"]
    assert take_debug(words) == (words, False)
    assert take_debug(["--debug", *words]) == (words, True)
    assert take_debug(["record", "--debug", *words[1:]]) == (words, True)
    assert take_debug(["info", "record", "--debug"]) == (["info", "record"], True)


def test_a_usage_error_of_record_has_the_code_that_no_command_has(tscope: Runner) -> None:
    outcome = tscope("record", "--zzz", "--", "true")
    assert (outcome.code, outcome.err) == (
        125,
        "tscope: No such option: --zzz; see `tscope record --help`\n",
    )


def test_an_interrupt_ends_with_130(tscope: Runner, broken: SimpleNamespace) -> None:
    broken.error = KeyboardInterrupt()
    outcome = tscope("ls")
    assert (outcome.code, outcome.err) == (130, "tscope: interrupted\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("frob",), "tscope: No such command 'frob'; see `tscope --help`\n"),
        (("--frob",), "tscope: No such option: --frob; see `tscope --help`\n"),
        (("info",), "tscope: Missing argument 'TRACE'; see `tscope info --help`\n"),
        (("verify",), "tscope: Missing argument 'TRACE...'; see `tscope verify --help`\n"),
        (("info", "a", "b"), "tscope: Got unexpected extra argument(s) (b); see `tscope info --help`\n"),
        (("ls", "--frob"), "tscope: No such option: --frob; see `tscope ls --help`\n"),
    ],
)
def test_a_usage_error_is_one_line_with_exit_code_2(
    tscope: Runner, arguments: tuple[str, ...], message: str
) -> None:
    outcome = tscope(*arguments)
    assert (outcome.code, outcome.out, outcome.err) == (2, "", message)


def test_the_version_is_printed(tscope: Runner) -> None:
    from importlib.metadata import version

    assert tscope("--version").out == f"tscope {version('tscope')}\n"


def test_help_names_every_command(tscope: Runner) -> None:
    outcome = tscope("--help")
    assert outcome.code == 0
    assert all(f"  {name} " in outcome.out for name in commands.COMMANDS)


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("record", "[OPTIONS] -- COMMAND..."),
        ("analyze", "[OPTIONS] TRACE"),
        ("browse", "[OPTIONS] [TRACE|DIR]..."),
        ("info", "[OPTIONS] TRACE"),
        ("ls", "[OPTIONS] [DIR]..."),
        ("verify", "[OPTIONS] TRACE..."),
        ("demo", "[OPTIONS]"),
    ],
)
def test_the_help_of_a_command_shows_arguments_as_they_are_typed(
    tscope: Runner, command: str, usage: str
) -> None:
    outcome = tscope(command, "--help")
    assert outcome.code == 0
    assert outcome.out.split("\n")[0] == f"Usage: tscope {command} {usage}"
    assert ("\nArguments:\n" in outcome.out) == (command != "demo")
    assert not any(kind in outcome.out for kind in ("<path", "<list", "<str", "<float", "<int"))


def test_alone_and_not_on_a_terminal_it_lists_the_runs(
    tscope: Runner, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    outcome = tscope()
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err == (
        "tscope: no traces in runs; record one: tscope record -- python train.py (or: tscope demo)\n"
    )


def test_a_closed_pipe_is_quiet() -> None:
    program = "import sys; from tscope_cli.main import main; sys.argv = ['tscope', '--help']; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_an_encoding_without_greek_letters_does_not_fail() -> None:
    code = "import sys; from tscope_cli import main, terminal; sys.argv = ['tscope', '--version']\n"
    code += "try:\n main.main()\nexcept SystemExit:\n terminal.out('Δθ')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={"PYTHONIOENCODING": "ascii", "PATH": ""},
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "??"
