from __future__ import annotations

from pathlib import Path

import pytest

from tscope.record.outcome import Outcome, ending, lines


def test_the_last_lines_say_what_was_recorded_and_what_to_do_next() -> None:
    outcome = Outcome(
        path=Path("runs/a b.zarr"),
        steps=1000,
        rows=1000,
        projected=801,
        probes=["heldout"],
        seconds=10.0,
        hook_seconds=0.3,
        wait_seconds=0.012,
        written=2_500_000,
        raw=10_000_000,
    )
    assert lines(outcome, ["python"], 0) == [
        "1,000 steps, 2.5 MB, 4.0× smaller than raw, recorder 3.0% of the run, run waited 0.01 s, "
        "800 rows projected on heldout, 200 skipped (analyze --replay fills them) → runs/a b.zarr",
        "next: tscope analyze 'runs/a b.zarr' --metric telescoping",
    ]


@pytest.mark.parametrize(
    ("projected", "probes", "programs", "more"),
    [
        (801, ["heldout"], 1, ""),
        (2, ["heldout"], 1, " --replay"),
        (0, ["heldout"], 1, ""),
        (0, [], 1, " --probe FILE.npz"),
        (0, ["heldout"], 0, " --model MODULE:FACTORY"),
        (0, [], 0, " --probe FILE.npz --model MODULE:FACTORY"),
    ],
)
def test_the_next_command_names_what_the_analysis_needs(
    projected: int, probes: list[str], programs: int, more: str
) -> None:
    path = Path("a.zarr")
    outcome = Outcome(path=path, rows=1000, projected=projected, probes=probes, models=1, programs=programs)
    assert lines(outcome, ["python"], 0)[-1] == f"next: tscope analyze a.zarr --metric telescoping{more}"


@pytest.mark.parametrize(
    ("sketched", "unsketched", "text"),
    [(14, 0, "14 rows sketched in 1,024 columns"), (1, 13, "1 row sketched in 1,024 columns, 13 skipped")],
)
def test_sketches_are_counted_with_those_that_were_skipped(sketched: int, unsketched: int, text: str) -> None:
    outcome = Outcome(path=Path("a.zarr"), rows=92, columns=1024, sketched=sketched, unsketched=unsketched)
    assert lines(outcome, ["python"], 0)[0].endswith(f"no projections, {text} → a.zarr")


def test_sketches_that_failed_are_said_and_those_nobody_asked_for_are_not() -> None:
    none = Outcome(path=Path("a.zarr"), rows=92, columns=1024, unsketched=14)
    assert lines(none, ["python"], 0)[0].endswith("no projections, no sketches → a.zarr")
    other = Outcome(path=Path("a.zarr"), rows=92, unsketched=14)
    assert lines(other, ["python"], 0)[0].endswith("no projections → a.zarr")


@pytest.mark.parametrize(
    ("projected", "sketched", "command"),
    [
        (21, 0, "analyze a.zarr --metric telescoping"),
        (0, 3, "analyze a.zarr --metric kernel"),
        (0, 0, "browse a.zarr"),
    ],
)
def test_without_updates_nothing_is_proposed_that_would_replay(
    projected: int, sketched: int, command: str
) -> None:
    outcome = Outcome(
        path=Path("a.zarr"),
        rows=92,
        updates=False,
        probes=["heldout"],
        projected=projected,
        columns=64,
        sketched=sketched,
    )
    first, last = lines(outcome, ["python"], 0)
    assert last == f"next: tscope {command}"
    assert "--replay" not in first


def test_one_step_and_several_models_are_counted_in_words() -> None:
    path = Path("a.zarr")
    one = Outcome(path=path, steps=1, rows=1, projected=2, probes=["train"], models=1, programs=1)
    assert "1 step, " in lines(one, ["python"], 0)[0]
    assert "1 row projected" in lines(one, ["python"], 0)[0]
    assert "42 steps of 3 models, " in lines(Outcome(path=path, steps=42, models=3), ["python"], 0)[0]


def test_a_recording_that_failed_boasts_of_nothing() -> None:
    outcome = Outcome(path=Path("a.zarr"), failure="the disk is full", written=10, raw=1000, models=1)
    failure, figures = lines(outcome, ["python"], 0)  # and nothing to do next: it holds no step
    assert failure == "recording stopped before the run did: the disk is full"
    assert figures.startswith("0 steps, 10 B, recorder")


@pytest.mark.parametrize(
    ("outcome", "command", "message"),
    [
        (Outcome(hello=True, torch=True), ["python"], "no optimizer made a step"),
        (Outcome(hello=True), ["python"], "torch was never imported"),
        (
            Outcome(hello=True, trees=True),
            ["python"],
            "a library of tree ensembles was imported, but none was",
        ),
        (Outcome(hello=True, trees=True, torch=True), ["python"], "no optimizer made a step"),
        (
            Outcome(trees=True, refused="Forest: not recorded: medians"),
            ["python"],
            "Forest: not recorded: med",
        ),
        (Outcome(), ["python3", "-I", "x.py"], "python -I ignores"),
        (Outcome(), ["python", "-uS", "x.py"], "python -uS ignores"),
        (Outcome(), ["make"], "no Python loaded the recorder's bootstrap"),
        (Outcome(failure="the disk is full"), ["python"], "the disk is full"),
    ],
)
def test_nothing_recorded_says_why(outcome: Outcome, command: list[str], message: str) -> None:
    (line,) = lines(outcome, command, 0)
    assert line.startswith("nothing was recorded: ")
    assert message in line


@pytest.mark.parametrize(
    ("code", "text"),
    [(3, "ended with exit code 3"), (-15, "was killed by SIGTERM"), (-99, "was killed by signal 99")],
)
def test_an_ending_is_named(code: int, text: str) -> None:
    assert ending(code) == text
