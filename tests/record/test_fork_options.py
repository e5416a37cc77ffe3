from __future__ import annotations

from collections.abc import Sequence

import pytest
from tscope_cli.main import run
from tscope_format.errors import RecordError

from tscope.record import RecordOptions
from tscope.record.fork import Forks, parse_numbers
from tscope.record.fork_runs import record_forks


def test_numbers_are_taken_in_their_order() -> None:
    assert parse_numbers("--fork-at", "10, 2,0") == (0, 2, 10)


@pytest.mark.parametrize("text", ["", "1,,2", "-1", "1.5", "x", "1 2"])
def test_anything_but_whole_numbers_is_refused(text: str) -> None:
    with pytest.raises(RecordError, match=r"--seeds takes whole numbers such as 1,2, got"):
        parse_numbers("--seeds", text)


@pytest.mark.parametrize(
    ("steps", "seeds", "message"),
    [
        ((1, 1), (1,), "--fork-at names a number twice: 1,1"),
        ((1,), (2, 2), "--seeds names a number twice: 2,2"),
        ((1,), (2**32,), f"--seeds must be 0 to {2**32 - 1}, got {2**32}"),
        ((-1,), (1,), "--fork-at must not be negative, got -1"),
        ((), (1,), "--fork-at names nothing"),
    ],
)
def test_forks_that_cannot_be_are_refused(
    steps: tuple[int, ...], seeds: tuple[int, ...], message: str
) -> None:
    with pytest.raises(RecordError, match=message):
        Forks(steps, seeds)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RecordOptions(every=3), "--fork-at 4 is no row with --every 3: .* take a multiple of 3"),
        (RecordOptions(updates=False), "--updates none does not keep them: leave one out"),
    ],
)
def test_recordings_without_the_parameters_at_the_fork_are_refused(
    options: RecordOptions, message: str
) -> None:
    with pytest.raises(RecordError, match=message):
        record_forks(["python", "train.py"], options, Forks((4,)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1"], "--seeds is of forks: give --fork-at STEP, or leave it out"),
        (["--reseed-generators"], "--reseed-generators is of forks: give --fork-at STEP, or leave it out"),
        (["--fork-at", "x"], "--fork-at takes whole numbers such as 1,2, got 'x'"),
        (["--fork-at", "4", "--seeds", "1,1"], "--seeds names a number twice: 1,1"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    arguments: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["record", *arguments, "--", "python", "train.py"]) == 125
    assert capsys.readouterr().err.strip().endswith(message)


def test_forks_of_no_command_are_refused() -> None:
    with pytest.raises(RecordError, match="no command: tscope record --fork-at STEP"):
        record_forks([], RecordOptions(), Forks((4,)))
